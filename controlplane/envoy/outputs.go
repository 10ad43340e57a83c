package envoy

import (
	_ "embed"
	"fmt"
	"slices"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	"google.golang.org/protobuf/types/known/structpb"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// Claims that go into a header of their own are put there by jwt_authn itself.
// All others wait in a header of ours until the request is let in: jwt_authn
// alone can read every path of claims, and makes one text of them all.

// output is where a claim goes that jwt_authn can't put there itself.
type output struct{ kind, name string }

const (
	toHeader = "header" // beside what the caller sent
	toQuery  = "query"
	toCookie = "cookie"
	toForm   = "form"
)

// outputOf is empty if jwt_authn puts the claim there.
func outputOf(o *dataplanev1.OutputClaim) output {
	switch {
	case o.GetQuery() != "":
		return output{toQuery, o.GetQuery()}
	case o.GetCookie() != "":
		return output{toCookie, o.GetCookie()}
	case o.GetForm() != "":
		return output{toForm, o.GetForm()}
	case o.GetKeepExisting():
		return output{toHeader, o.GetHeader()}
	}
	return output{}
}

// outputs are the distinct ones of a ruleset, in order of their names.
func outputs(rs *dataplanev1.Ruleset) []output {
	var out []output
	for _, r := range rs.GetRoutes() {
		for _, tr := range r.GetAuthentication().GetRules() {
			for _, o := range tr.GetOutputClaims() {
				if to := outputOf(o); to != (output{}) {
					out = append(out, to)
				}
			}
		}
	}
	slices.SortFunc(out, func(a, b output) int {
		return slices.Compare([]string{a.kind, a.name}, []string{b.kind, b.name})
	})
	return slices.Compact(out)
}

// outputHeader is the header that jwt_authn puts a claim into.
func (p *plan) outputHeader(o *dataplanev1.OutputClaim) string {
	to := outputOf(o)
	if to == (output{}) {
		return o.GetHeader()
	}
	return waitingHeader(slices.Index(outputs(p.rs), to))
}

func waitingHeader(n int) string { return fmt.Sprintf("%sout-%d", headerPrefix, n) }

// outputMutations put claims into the query, and beside what a caller sent in a
// header. What a caller sent in the query under such a name is removed on every
// route. Nil if there is nothing to do.
func outputMutations(p *plan) *headermutationv3.HeaderMutation {
	m := new(headermutationv3.Mutations)
	for n, o := range outputs(p.rs) {
		value := fmt.Sprintf("%%REQ(%s)%%", waitingHeader(n))
		switch o.kind {
		case toHeader:
			m.RequestMutations = append(m.RequestMutations, &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Append{
				Append: &corev3.HeaderValueOption{
					Header:       &corev3.HeaderValue{Key: o.name, Value: value},
					AppendAction: corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD,
				},
			}})
		case toQuery:
			m.QueryParameterMutations = append(m.QueryParameterMutations,
				&corev3.KeyValueMutation{Remove: o.name},
				&corev3.KeyValueMutation{Append: &corev3.KeyValueAppend{
					Record: &corev3.KeyValuePair{Key: o.name, Value: structpb.NewStringValue(value)},
					Action: corev3.KeyValueAppend_OVERWRITE_IF_EXISTS_OR_ADD,
				}})
		}
	}
	if len(m.RequestMutations)+len(m.QueryParameterMutations) == 0 {
		return nil
	}
	return &headermutationv3.HeaderMutation{Mutations: m}
}

//go:embed output.lua
var outputLua string

// outputScript puts claims into cookies and forms; nil if there are none.
func outputScript(p *plan) *luav3.Lua {
	var cookies, fields []string
	for n, o := range outputs(p.rs) {
		entry := luaTable{{"name", luaString(o.name)}, {"header", luaString(waitingHeader(n))}}.String()
		switch o.kind {
		case toCookie:
			cookies = append(cookies, entry)
		case toForm:
			fields = append(fields, entry)
		}
	}
	if len(cookies)+len(fields) == 0 {
		return nil
	}
	return luaFilter("local COOKIES = "+luaList(cookies), "local FIELDS = "+luaList(fields), outputLua)
}
