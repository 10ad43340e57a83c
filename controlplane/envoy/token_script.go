package envoy

import (
	"cmp"
	_ "embed"
	"fmt"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// Where a token may be.
const (
	inHeader = "header"
	inParam  = "param"
	inCookie = "cookie"
	inForm   = "form"
)

// tokenPlace is one location of a rule.
type tokenPlace struct{ kind, name, prefix string }

func tokenPlaces(r *dataplanev1.TokenRule) []tokenPlace {
	var out []tokenPlace
	for _, e := range []struct {
		kind string
		list []*dataplanev1.TokenLocation
	}{{inHeader, r.GetFromHeaders()}, {inParam, r.GetFromParams()}, {inCookie, r.GetFromCookies()}, {inForm, r.GetFromForm()}} {
		for _, l := range e.list {
			out = append(out, tokenPlace{e.kind, l.GetName(), l.GetPrefix()})
		}
	}
	return out
}

// scripted says whether the tokens of a place are read by the script: all of
// them, if there is one that Envoy can't read itself. Of several tokens in a
// request Envoy takes those that it finds in headers last, and the headers of the
// script are in the order of tokenPlaces.
func (v *verification) scripted(pl place) bool {
	return slices.ContainsFunc(tokenPlaces(pl.rule), func(l tokenPlace) bool { return v.needsScript(pl, l) })
}

// needsScript says whether Envoy can't read a token there, or not take it out
// once it has.
func (v *verification) needsScript(pl place, l tokenPlace) bool {
	switch l.kind {
	case inForm:
		return true
	case inParam:
		return l.prefix != ""
	case inCookie:
		return l.prefix != "" || v.removes(pl) && v.authentications[pl.treatment].GetAllowScripts()
	}
	return false
}

// removedByScript says whether the script takes the token out, once the request
// is let in. Envoy does so only for what it has read itself, before it is known
// whether the token counts; and to take one out of the query it decodes all of
// the query and does not encode it again.
func (v *verification) removedByScript(pl place) bool {
	return v.removes(pl) && (v.scripted(pl) || v.permissive(pl) || len(pl.rule.GetFromParams()) > 0)
}

func (v *verification) removes(pl place) bool {
	return v.enforces() && !pl.rule.GetForwardOriginalToken()
}

// tokenScript is what the Lua filter in front of jwt_authn does for each
// treatment that needs it: it puts tokens where Envoy can read them, and says
// which credential a token claims to be signed with. What it says only selects:
// the token has then to verify with that credential.
type tokenScript struct {
	places []tokenPlace // in order
}

func newTokenScript(vs ...*verification) *tokenScript {
	s := new(tokenScript)
	for _, v := range vs {
		for _, pl := range v.placesWhere(v.scripted) {
			s.places = append(s.places, tokenPlaces(pl.rule)...)
		}
	}
	slices.SortFunc(s.places, tokenPlace.compare)
	s.places = slices.Compact(s.places)
	return s
}

// compare orders as Envoy reads: by kind, then by name and prefix together.
func (l tokenPlace) compare(o tokenPlace) int {
	kinds := []string{inHeader, inParam, inCookie, inForm}
	return cmp.Or(
		cmp.Compare(slices.Index(kinds, l.kind), slices.Index(kinds, o.kind)),
		cmp.Compare(l.name+l.prefix, o.name+o.prefix),
		cmp.Compare(l.name, o.name))
}

// tokenHeader is the header that the token of a place is put into.
func (s *tokenScript) tokenHeader(l tokenPlace) string {
	return fmt.Sprintf("%stoken-%04d", headerPrefix, slices.Index(s.places, l))
}

// keyHeader is the header with the key claim for a lookup.
func (v *verification) keyHeader(in *instance) string {
	who := "key"
	if !v.enforces() {
		who = "observed-key"
	}
	return fmt.Sprintf("%s%s-%d", headerPrefix, who, in.number)
}

// keys are the credentials that each lookup knows.
func (v *verification) keys() luaTable {
	if v == nil {
		return nil
	}
	var out luaTable
	for _, in := range v.instances {
		if !in.lookup {
			continue
		}
		known := luaTable{}
		for _, c := range v.plan.credentials(in.places[0].rule) {
			known = append(known, luaEntry{c.GetKey(), "true"})
		}
		out = append(out, luaEntry{v.keyHeader(in), known.String()})
	}
	return out
}

// scriptedTreatment is what the script does for one treatment.
type scriptedTreatment struct {
	places  []scriptedPlace
	lookups []scriptedLookup
}

type scriptedPlace struct {
	tokenPlace
	header string // empty: Envoy reads it where it is
}

type scriptedLookup struct {
	header  string
	places  []int // of the treatment
	claim   string
	sources []string
}

// treatment gathers what one needs, or nil.
func (s *tokenScript) treatment(p *plan, n int) *scriptedTreatment {
	t := new(scriptedTreatment)
	for _, v := range []*verification{p.observed, p.enforced} {
		if v == nil {
			continue
		}
		for _, pl := range v.at(n) {
			s.add(t, v, pl)
		}
	}
	if len(t.places) == 0 {
		return nil
	}
	return t
}

func (s *tokenScript) add(t *scriptedTreatment, v *verification, pl place) {
	lookup, scripted := v.plan.needsLookup(pl.rule), v.scripted(pl)
	var at []int
	for _, l := range tokenPlaces(pl.rule) {
		if !scripted && !lookup {
			continue
		}
		i := slices.IndexFunc(t.places, func(p scriptedPlace) bool { return p.tokenPlace == l })
		if i < 0 {
			i = len(t.places)
			t.places = append(t.places, scriptedPlace{tokenPlace: l})
		}
		if scripted {
			t.places[i].header = s.tokenHeader(l)
		}
		at = append(at, i)
	}
	if !lookup {
		return
	}
	sl := scriptedLookup{header: v.keyHeader(v.instanceOf(pl)), places: at, claim: pl.rule.GetKeyClaim().GetName()}
	for _, src := range pl.rule.GetKeyClaim().GetSources() {
		sl.sources = append(sl.sources, strings.ToLower(src.String()))
	}
	t.lookups = append(t.lookups, sl)
}

//go:embed fields.lua
var fieldsLua string

//go:embed token.lua
var tokenLua string

// filter is nil if no treatment needs it.
func (s *tokenScript) filter(p *plan) *luav3.Lua {
	needs, keys := luaTable{}, luaTable{}
	for _, v := range []*verification{p.observed, p.enforced} {
		keys = append(keys, v.keys()...)
	}
	for n, t := range p.treatments {
		if st := s.treatment(p, n); st != nil {
			needs = append(needs, luaEntry{t.id, st.lua()})
		}
	}
	if len(needs) == 0 {
		return nil
	}
	return luaFilter(
		"local TREATMENT = "+luaString(p.treatmentMetadata()),
		"local NONE = "+luaString(noCredential),
		"local KEYS = "+keys.String(),
		"local NEEDS = "+needs.String(),
		fieldsLua, tokenLua)
}

func (t *scriptedTreatment) lua() string {
	var places, lookups []string
	for _, p := range t.places {
		entry := luaTable{{"kind", luaString(p.kind)}, {"name", luaString(p.name)}, {"prefix", luaString(p.prefix)}}
		if p.header != "" {
			entry = append(entry, luaEntry{"header", luaString(p.header)})
		}
		places = append(places, entry.String())
	}
	for _, l := range t.lookups {
		var at []string
		for _, i := range l.places {
			at = append(at, fmt.Sprint(i+1))
		}
		lookups = append(lookups, luaTable{{"header", luaString(l.header)}, {"claim", luaString(l.claim)},
			{"places", luaList(at)}, {"sources", luaStrings(l.sources)}}.String())
	}
	return luaTable{{"places", luaList(places)}, {"lookups", luaList(lookups)}}.String()
}

// luaFilter joins the parts of a script. Every data plane gets it with every
// change, so it goes without comments and blanks at the beginning of lines.
func luaFilter(parts ...string) *luav3.Lua {
	var lines []string
	for _, p := range parts {
		for line := range strings.Lines(p) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "--") {
				lines = append(lines, line)
			}
		}
	}
	return &luav3.Lua{DefaultSourceCode: &corev3.DataSource{
		Specifier: &corev3.DataSource_InlineString{InlineString: strings.Join(lines, "\n")},
	}}
}

// luaString quotes so that no text can end the literal: all but plain characters
// are decimal escapes.
func luaString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for i := 0; i < len(s); i++ {
		if c := s[i]; unreserved(c) || c == ' ' || c == '/' || c == ':' || c == '@' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, `\%03d`, c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

type luaEntry struct{ name, value string }

// luaTable is a table constructor; its values are Lua.
type luaTable []luaEntry

func (t luaTable) String() string {
	var b strings.Builder
	b.WriteByte('{')
	for _, e := range t {
		fmt.Fprintf(&b, "[%s]=%s,", luaString(e.name), e.value)
	}
	b.WriteByte('}')
	return b.String()
}

func luaList(values []string) string { return "{" + strings.Join(values, ",") + "}" }

func luaStrings(list []string) string {
	var out []string
	for _, s := range list {
		out = append(out, luaString(s))
	}
	return luaList(out)
}
