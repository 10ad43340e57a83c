package envoy

import (
	"cmp"
	_ "embed"
	"fmt"
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// output is where a claim goes, or all of them. jwt_authn can put it into a
// header only, and removes that header from whatever request comes through a
// filter that knows it: also if it was an earlier jwt_authn that has set it. So
// with several instances, and for all other places, the claim waits in a header
// of ours, one for each instance, until the request is let in. (That jwt_authn
// reads the claim is worth the way: it alone can read every path, and makes one
// text of them all.)
type output struct {
	kind outputKind
	name string
}

type outputKind string

const (
	toHeader     outputKind = "header"
	besideHeader outputKind = "header beside what the caller sent"
	toQuery      outputKind = "query"
	toCookie     outputKind = "cookie"
	toForm       outputKind = "form"
)

func outputOf(o *dataplanev1.OutputClaim) output {
	switch {
	case o.GetQuery() != "":
		return output{toQuery, o.GetQuery()}
	case o.GetCookie() != "":
		return output{toCookie, o.GetCookie()}
	case o.GetForm() != "":
		return output{toForm, o.GetForm()}
	case o.GetKeepExisting():
		return output{besideHeader, o.GetHeader()}
	}
	return output{toHeader, o.GetHeader()}
}

// outputsOf are those of one rule.
func outputsOf(r *dataplanev1.TokenRule) []output {
	var out []output
	for _, o := range r.GetOutputClaims() {
		out = append(out, outputOf(o))
	}
	if h := r.GetPayloadHeader(); h != "" {
		out = append(out, output{toHeader, h})
	}
	return out
}

// findOutputs are the distinct ones of a ruleset, in order.
func findOutputs(rs *dataplanev1.Ruleset) []output {
	var out []output
	for _, r := range rs.GetRoutes() {
		if !looksAtTokens(r.GetAuthentication()) {
			continue // a rule that is not tried fills nothing
		}
		for _, tr := range r.GetAuthentication().GetRules() {
			out = append(out, outputsOf(tr)...)
		}
	}
	slices.SortFunc(out, func(a, b output) int {
		return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.name, b.name))
	})
	return slices.Compact(out)
}

// outputHeader is the header that an instance puts an output into.
func (p *plan) outputHeader(o output, in *instance) string {
	if p.direct(o) {
		return o.name
	}
	return waitingHeader(slices.Index(p.outputs, o), in)
}

// direct says whether jwt_authn can put an output where it goes.
func (p *plan) direct(o output) bool { return o.kind == toHeader && len(p.enforced.instances) == 1 }

func waitingHeader(n int, in *instance) string {
	return fmt.Sprintf("%sout-%d-%d", headerPrefix, in.number, n)
}

// waiting are the headers that an output may wait in.
func (p *plan) waiting(o output) []string {
	var out []string
	for _, in := range p.enforced.instances {
		out = append(out, waitingHeader(slices.Index(p.outputs, o), in))
	}
	return out
}

// outputMutations put what waits into headers. Nil if there is nothing to do.
func outputMutations(p *plan) *headermutationv3.HeaderMutation {
	m := new(headermutationv3.Mutations)
	for _, o := range p.outputs {
		if o.kind != besideHeader && (o.kind != toHeader || p.direct(o)) {
			continue
		}
		for _, h := range p.waiting(o) {
			set := setHeader(o.name, fmt.Sprintf("%%REQ(%s)%%", h))
			if o.kind == besideHeader {
				set.GetAppend().AppendAction = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
			}
			m.RequestMutations = append(m.RequestMutations, set)
		}
	}
	if len(m.RequestMutations) == 0 {
		return nil
	}
	return &headermutationv3.HeaderMutation{Mutations: m}
}

//go:embed output.lua
var outputLua string

// outputScript takes tokens out of the request that Envoy can't, puts claims into
// the query, cookies and forms, and leaves of each only what counts; nil if there
// is nothing to do. (For the
// query there is a filter of Envoy's, which adds a parameter without a value
// where the claim is absent.) What a caller sent under the name of an output is
// removed on every route; a form is looked at only where the route fills it.
func outputScript(p *plan) *luav3.Lua {
	var parameters, cookies []string
	forms, removals := luaTable{}, luaTable{}
	for _, o := range p.outputs {
		switch o.kind {
		case toQuery:
			parameters = append(parameters, p.luaOutput(o))
		case toCookie:
			cookies = append(cookies, p.luaOutput(o))
		}
	}
	for n, t := range p.treatments {
		var fields []string
		for _, o := range p.outputs {
			if o.kind == toForm && fills(t.authentication, o) {
				fields = append(fields, p.luaOutput(o))
			}
		}
		if len(fields) > 0 {
			forms = append(forms, luaEntry{t.id, luaList(fields)})
		}
		if r := p.removals(n); len(r) > 0 {
			removals = append(removals, luaEntry{t.id, luaList(r)})
		}
	}
	several := p.severals()
	if len(parameters)+len(cookies)+len(forms)+len(removals)+len(several) == 0 {
		return nil
	}
	return luaFilter(
		"local TREATMENT = "+luaString(p.treatmentMetadata()),
		"local PARAMETERS = "+luaList(parameters),
		"local COOKIES = "+luaList(cookies),
		"local FORMS = "+forms.String(),
		"local REMOVE = "+removals.String(),
		"local SEVERAL = "+luaList(several),
		"local PAYLOAD = "+luaString(payloadKey),
		fieldsLua, outputLua)
}

func (p *plan) luaOutput(o output) string {
	return luaTable{{"name", luaString(o.name)}, {"headers", luaStrings(p.waiting(o))}}.String()
}

// fills says whether a rule has a claim for an output.
func fills(a *dataplanev1.Authentication, o output) bool {
	return slices.ContainsFunc(a.GetRules(), func(r *dataplanev1.TokenRule) bool { return slices.Contains(outputsOf(r), o) })
}

// removals of one treatment: the places of tokens that the script takes out.
func (p *plan) removals(n int) []string {
	var out []string
	if p.enforced == nil {
		return nil
	}
	for _, pl := range p.enforced.at(n) {
		if !p.enforced.removedByScript(pl) {
			continue
		}
		var places []string
		for _, l := range tokenPlaces(pl.rule) {
			if l.kind == inCookie && !p.treatments[n].authentication.GetAllowScripts() {
				continue // cookies are as they are where the policy does not say so
			}
			places = append(places, luaTable{{"kind", luaString(l.kind)}, {"name", luaString(l.name)}, {"prefix", luaString(l.prefix)}}.String())
		}
		out = append(out, luaTable{{"by", luaString(p.enforced.byKey(pl.mark))}, {"places", luaList(places)}}.String())
	}
	return out
}
