package ruleset

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// counted remembers everything, and how often that was of use.
type counted struct {
	memo
	hits int
}

func (c *counted) Get(text string) *VerifiedToken {
	t := c.memo.Get(text)
	if t != nil {
		c.hits++
	}
	return t
}

// knownTokens are few, so that they come again in every ruleset: right by one key or
// another, or by none, and with an end that some of the test's times are behind.
func knownTokens() (all []string) {
	for _, h := range []string{hsHeader, `{"alg":"HS256","kid":"c1"}`, `{"alg":"HS256"}`, `{"alg":"HS256","kid":"k1","crit":["x"],"x":1}`} {
		for _, iss := range []string{"https://sts.example", "https://ci.example", "key-bob", "key-pay"} {
			for _, secret := range []string{secretA, secretB, "wrong"} {
				all = append(all, sign(h, claimsOf("iss", iss), secret), sign(h, claimsOf("iss", iss, "sub", "spiffe://mesh.local/payments", "exp", now.Unix()+30), secret))
			}
		}
	}
	return all
}

// otherKeys gives the issuers and the credentials of a ruleset other keys, or the same
// ones under other names.
var otherKeys = []*strings.Replacer{
	strings.NewReplacer(),
	strings.NewReplacer(hsKey("k1", secretA), hsKey("k1", secretB)),
	strings.NewReplacer(hsKey("k1", secretA), hsKey("c1", secretA), hsKey("c1", secretB), hsKey("k1", secretB)),
	strings.NewReplacer(hsKey("k1", secretA), hsKey("", secretA), hsKey("", secretA), hsKey("k1", secretA)),
	strings.NewReplacer(hsKey("", secretA), hsKey("", secretB), hsKey("", secretB), hsKey("", secretA)),
	strings.NewReplacer(hsKey("k1", secretA), hsKey("k1", secretA)+","+hsKey("c1", secretB)),
}

// What a memo has from other rulesets, with other keys, and from other times, makes no
// difference: neither to the decision nor to the request for the service.
func TestMemoMakesNoDifference(t *testing.T) {
	known, shared := rapid.SampledFrom(knownTokens()), &counted{memo: memo{}}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SampledFrom(otherKeys).Draw(t, "keys").Replace(drawRuleset(t))
		rs := ready(t, text)
		for range 20 {
			r := drawRequestWith(t, func(t *rapid.T) string { return known.Draw(t, "token") })
			at := now.Add(time.Duration(rapid.SampledFrom([]int{0, 0, 80, 91, 400}).Draw(t, "later")) * time.Second)
			want := rs.Evaluate(r, at)
			for range 2 { // the second time all that is right is remembered
				v := rs.Decide(r, at, shared)
				got := *v.Decision()
				if got.Allowed {
					got.Forward = v.Forward()
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("with a memo it is decided otherwise (-without +with):\n%s\nrequest\n%s\nruleset\n%s", diff, seen(r), text)
				}
			}
		}
	})
	if shared.hits < 100 {
		t.Errorf("%d tokens were remembered; the test proves nothing", shared.hits)
	}
	t.Logf("%d tokens were remembered", shared.hits)
}
