package envoy

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// plainRuleset has one route, with one rule.
func plainRuleset() (*dataplanev1.Ruleset, *dataplanev1.Authentication, *dataplanev1.TokenRule) {
	rule := &dataplanev1.TokenRule{
		Issuer: "a", AudienceUnchecked: true, Expiration: dataplanev1.TimeCheck_REQUIRED, NotBefore: dataplanev1.TimeCheck_IF_PRESENT,
		FromHeaders: []*dataplanev1.TokenLocation{{Name: "authorization", Prefix: "Bearer "}},
	}
	a := &dataplanev1.Authentication{Mode: dataplanev1.Authentication_STRICT, AllowScripts: true, Rules: []*dataplanev1.TokenRule{rule}}
	return &dataplanev1.Ruleset{
		Service: "orders",
		Issuers: []*dataplanev1.Issuer{{Name: "a", Issuer: "https://a.example", Keys: []*dataplanev1.Key{{Jwk: "{}"}}}},
		Routes:  []*dataplanev1.Route{{Authentication: a}},
	}, a, rule
}

// A ruleset that Envoy would refuse, or enforce less of than is written, does not
// leave this package. (The compiler makes none of these.)
func TestCheckRefuses(t *testing.T) {
	type part = func(rs *dataplanev1.Ruleset, a *dataplanev1.Authentication, r *dataplanev1.TokenRule)
	output := func(list ...*dataplanev1.OutputClaim) part {
		for _, o := range list {
			o.ClaimPath = []string{"sub"}
		}
		return func(_ *dataplanev1.Ruleset, _ *dataplanev1.Authentication, r *dataplanev1.TokenRule) {
			r.OutputClaims = list
		}
	}
	header := func(name string) *dataplanev1.OutputClaim { return &dataplanev1.OutputClaim{Header: name} }
	from := func(name, prefix string) part {
		return func(_ *dataplanev1.Ruleset, _ *dataplanev1.Authentication, r *dataplanev1.TokenRule) {
			r.FromHeaders = []*dataplanev1.TokenLocation{{Name: name, Prefix: prefix}}
		}
	}
	consumer := func(c *dataplanev1.Consumer) part {
		return func(rs *dataplanev1.Ruleset, _ *dataplanev1.Authentication, _ *dataplanev1.TokenRule) {
			rs.Consumers = []*dataplanev1.Consumer{c}
		}
	}
	for name, tt := range map[string]struct {
		change part
		want   string // part of the error
	}{
		"streams that end with their token": {func(_ *dataplanev1.Ruleset, a *dataplanev1.Authentication, _ *dataplanev1.TokenRule) {
			a.EndStreams = true
		}, "can't end what it has let in"},
		"claim that says how long a body is": {output(header("content-length")), `"content-length"`},
		"claim that says how a body is sent": {output(header("transfer-encoding")), `"transfer-encoding"`},
		"claim that ends the connection":     {output(header("connection")), `"connection"`},
		"header with a line break":           {output(header("x\r\ny")), `"x\r\ny"`},
		"header of other letters":            {output(header("x-é")), `"x-é"`},
		"header of ours":                     {output(header("x_watchword-caller")), "are our own"},
		"cookie that is two":                 {output(&dataplanev1.OutputClaim{Cookie: "a; b"}), `"a; b"`},
		"two claims in a header":             {output(header("x-a"), header("x-a")), `"x-a" is there twice`},
		"two claims in a header, one beside": {output(header("x-a"), &dataplanev1.OutputClaim{Header: "x-a", KeepExisting: true}), `"x-a" is there twice`},
		"token where we have ours":           {from("X-Watchword-Pass", ""), "our own"},
		"token in a header without name":     {from("", ""), "no name"},
		"token in a header that can't be":    {from("x y", ""), `"x y"`},
		"token in a pseudo header":           {from(":path", ""), `":path"`},
		"prefix with a line break":           {from("x-token", "a\nb"), "control characters"},
		"consumer with a line break":         {consumer(&dataplanev1.Consumer{Name: "ann", Username: "a\r\nx-evil: 1"}), `consumer "ann"`},
		"consumer whose name has one":        {consumer(&dataplanev1.Consumer{Name: "a\nb"}), "control characters"},
		"claim and consumer in a header": {func(rs *dataplanev1.Ruleset, a *dataplanev1.Authentication, r *dataplanev1.TokenRule) {
			a.ConsumerHeaders = []*dataplanev1.ConsumerHeader{{Attribute: dataplanev1.ConsumerHeader_NAME, Header: "x-a"}}
			r.PayloadHeader = "x-a"
		}, "is a consumer header, too"},
		"attribute that is none": {func(_ *dataplanev1.Ruleset, a *dataplanev1.Authentication, _ *dataplanev1.TokenRule) {
			a.ConsumerHeaders = []*dataplanev1.ConsumerHeader{{Attribute: 9, Header: "x-a"}}
		}, "is not known"},
		"content type with a line break": {func(rs *dataplanev1.Ruleset, _ *dataplanev1.Authentication, _ *dataplanev1.TokenRule) {
			rs.Routes[0].Responses = []*dataplanev1.Response{{Body: "x", ContentType: "a\r\nx-evil: 1"}}
		}, "response 0"},
		"stripped header without name": {func(rs *dataplanev1.Ruleset, _ *dataplanev1.Authentication, _ *dataplanev1.TokenRule) {
			rs.StrippedHeaders = []string{""}
		}, "stripped header"},
		"stripped pseudo header": {func(rs *dataplanev1.Ruleset, _ *dataplanev1.Authentication, _ *dataplanev1.TokenRule) {
			rs.StrippedHeaders = []string{":path"}
		}, `":path"`},
		"subjects of nobody": {func(rs *dataplanev1.Ruleset, _ *dataplanev1.Authentication, _ *dataplanev1.TokenRule) {
			rs.OwnSubjects = &dataplanev1.OwnSubjects{Prefix: "spiffe://"}
		}, "spiffe://"},
		"two keys in one": {func(rs *dataplanev1.Ruleset, _ *dataplanev1.Authentication, _ *dataplanev1.TokenRule) {
			rs.Issuers[0].Keys[0].Jwk = `{},{}`
		}, "not a JSON object"},
		"key that is null": {func(rs *dataplanev1.Ruleset, _ *dataplanev1.Authentication, _ *dataplanev1.TokenRule) {
			rs.Issuers[0].Keys[0].Jwk = `null`
		}, "not a JSON object"},
		"type that is empty": {func(_ *dataplanev1.Ruleset, _ *dataplanev1.Authentication, r *dataplanev1.TokenRule) {
			r.Types = []string{""}
		}, "is empty"},
		"required claim without name": {func(_ *dataplanev1.Ruleset, _ *dataplanev1.Authentication, r *dataplanev1.TokenRule) {
			r.RequiredClaims = []string{""}
		}, "is empty"},
		"time check that is none": {func(_ *dataplanev1.Ruleset, _ *dataplanev1.Authentication, r *dataplanev1.TokenRule) { r.NotBefore = 9 }, "time check"},
		"life of more than all time": {func(_ *dataplanev1.Ruleset, _ *dataplanev1.Authentication, r *dataplanev1.TokenRule) {
			r.MaxLifetime = durationpb.New(200 * 365 * 24 * time.Hour)
		}, "max lifetime"},
		"path that is too long": {func(rs *dataplanev1.Ruleset, _ *dataplanev1.Authentication, _ *dataplanev1.TokenRule) {
			rs.Routes = append([]*dataplanev1.Route{{Match: &dataplanev1.RequestMatch{Paths: []string{"/" + strings.Repeat("@", 5000)}}, Authentication: rs.Routes[0].Authentication}}, rs.Routes...)
		}, "bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			rs, a, r := plainRuleset()
			if err := check(rs); err != nil {
				t.Fatalf("without the change: %v", err)
			}
			tt.change(rs, a, r)
			if err := check(rs); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// Rules of a route that looks at no token fill nothing, and break nothing.
func TestRulesThatAreOff(t *testing.T) {
	rs, a, r := plainRuleset()
	r.OutputClaims = []*dataplanev1.OutputClaim{{ClaimPath: []string{"sub"}, Header: "x-a"}, {ClaimPath: []string{"sub"}, Cookie: "a"}}
	a.Mode = dataplanev1.Authentication_OFF
	if _, err := Resources(proto.CloneOf(rs)); err != nil {
		t.Fatal(err)
	}
}
