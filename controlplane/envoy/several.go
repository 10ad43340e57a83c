package envoy

import (
	"fmt"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// Of several tokens that one rule verifies, jwt_authn copies the claims of each,
// and watchword.claims looks only at those that count: what the others have must
// not stay. How many there were is how often the payload is in a header, which
// no text of a claim can pretend.

// mayCopySeveral says whether a rule can have the claims of several tokens copied.
func mayCopySeveral(r *dataplanev1.TokenRule) bool {
	return len(outputsOf(r)) > 0 && mayHaveSeveral(r)
}

// countHeader is where the payload goes of rules that don't send it anywhere.
func countHeader(in *instance) string { return fmt.Sprintf("%stokens-%d", headerPrefix, in.number) }

func (v *verification) payloadHeader(in *instance, r *dataplanev1.TokenRule) string {
	switch h := r.GetPayloadHeader(); {
	case !v.enforces():
		return ""
	case h != "":
		return v.plan.outputHeader(output{toHeader, h}, in)
	case mayCopySeveral(r):
		return countHeader(in)
	}
	return ""
}

// severals are, for each rule that may copy several, the header that counts and
// those with claims.
func (p *plan) severals() []string {
	var out []string
	seen := map[int]bool{}
	for _, pl := range p.enforced.placesWhere(func(pl place) bool { return mayCopySeveral(pl.rule) }) {
		if seen[pl.mark] {
			continue
		}
		seen[pl.mark] = true
		in := p.enforced.instanceOf(pl)
		count := p.enforced.payloadHeader(in, pl.rule)
		headers := []string{luaCopy(count, nil)}
		for _, o := range pl.rule.GetOutputClaims() {
			headers = append(headers, luaCopy(p.outputHeader(outputOf(o), in), o.GetClaimPath()))
		}
		out = append(out, luaTable{{"by", luaString(p.enforced.byKey(pl.mark))}, {"count", luaString(count)}, {"headers", luaList(headers)}}.String())
	}
	return out
}

func luaCopy(header string, path []string) string {
	return luaTable{{"name", luaString(header)}, {"path", luaStrings(path)}}.String()
}
