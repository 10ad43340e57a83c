package envoy

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

var rulesets = flag.Int("rulesets", 200, "how many random rulesets Envoy must take")

// Strings that mean something to a regular expression, to YAML, to JSON or to
// Envoy's formatter are among them.
var word = rapid.OneOf(
	rapid.SampledFrom([]string{"a", "n", "on", "1", "a.b", "a b", "%REQ(x)%", `"`, `\`, "é", "{}", "$(x)", "a/b", "spiffe://td/x", "https://x.example/y"}),
	rapid.StringMatching(`[a-z][a-z0-9-]{0,10}`),
)

func list[T any](g *rapid.Generator[T], least, most int) *rapid.Generator[[]T] {
	return rapid.SliceOfN(g, least, most)
}

func matchGen() *rapid.Generator[*dataplanev1.RequestMatch] {
	host := rapid.StringMatching(`(\*\.)?[a-z0-9-]{1,8}(\.[a-z]{1,8}){0,3}`)
	path := rapid.StringMatching(`(/[A-Za-z0-9._~!$&'()+,;=:@-]{1,8}){1,4}(/\*)?|/\*?`)
	return rapid.Custom(func(t *rapid.T) *dataplanev1.RequestMatch {
		return &dataplanev1.RequestMatch{
			Hosts:   list(host, 0, 3).Draw(t, "hosts"),
			Paths:   list(path, 0, 3).Draw(t, "paths"),
			Methods: list(rapid.SampledFrom([]string{"GET", "POST", "PURGE"}), 0, 2).Draw(t, "methods"),
		}
	})
}

func valueGen() *rapid.Generator[*structpb.Value] {
	return rapid.OneOf(
		rapid.Map(word, structpb.NewStringValue),
		rapid.Map(rapid.Float64(), structpb.NewNumberValue),
		rapid.Map(rapid.Bool(), structpb.NewBoolValue),
	)
}

func authorizationRuleGen() *rapid.Generator[*dataplanev1.AuthorizationRule] {
	return rapid.Custom(func(t *rapid.T) *dataplanev1.AuthorizationRule {
		r := &dataplanev1.AuthorizationRule{
			Name: fmt.Sprintf("%s/%d", rapid.StringMatching(`[a-z]{1,4}`).Draw(t, "policy"), rapid.IntRange(0, 3).Draw(t, "index")),
		}
		if rapid.Bool().Draw(t, "to") {
			r.To = matchGen().Draw(t, "match")
		}
		for range rapid.IntRange(0, 3).Draw(t, "from") {
			r.From = append(r.From, &dataplanev1.Principal{
				Issuer: word.Draw(t, "iss"), Subject: rapid.OneOf(rapid.Just(""), word).Draw(t, "sub"),
			})
		}
		for range rapid.IntRange(0, 2).Draw(t, "when") {
			m := &dataplanev1.ClaimMatch{
				ClaimPath: list(word, 1, 3).Draw(t, "claim"),
				Op:        dataplanev1.ClaimMatch_Operator(rapid.IntRange(1, 3).Draw(t, "op")),
			}
			if m.Op != dataplanev1.ClaimMatch_EXISTS {
				m.Values = list(valueGen(), 1, 3).Draw(t, "values")
			}
			r.When = append(r.When, m)
		}
		return r
	})
}

func named(list []string) []*dataplanev1.TokenLocation {
	var out []*dataplanev1.TokenLocation
	for _, n := range list {
		out = append(out, &dataplanev1.TokenLocation{Name: n})
	}
	return out
}

func tokenRuleGen(issuers int) *rapid.Generator[*dataplanev1.TokenRule] {
	name := rapid.StringMatching(`[a-z][a-z0-9-]{0,8}`)
	return rapid.Custom(func(t *rapid.T) *dataplanev1.TokenRule {
		r := &dataplanev1.TokenRule{
			Issuer:               fmt.Sprint("issuer-", rapid.IntRange(0, issuers-1).Draw(t, "issuer")),
			Audiences:            list(word, 1, 3).Draw(t, "audiences"),
			FromHeaders:          []*dataplanev1.TokenLocation{{Name: "authorization", Prefix: "Bearer "}},
			FromParams:           named(list(name, 0, 2).Draw(t, "params")),
			FromCookies:          named(list(name, 0, 2).Draw(t, "cookies")),
			ClockSkew:            durationpb.New(time.Duration(rapid.IntRange(1, 600).Draw(t, "skew")) * time.Second),
			ForwardOriginalToken: rapid.Bool().Draw(t, "forward"),
		}
		if rapid.Bool().Draw(t, "lifetime") {
			r.MaxLifetime = durationpb.New(time.Duration(rapid.IntRange(1, 1e6).Draw(t, "max")) * time.Second)
		}
		for i := range rapid.IntRange(0, 2).Draw(t, "outputs") {
			r.OutputClaims = append(r.OutputClaims, &dataplanev1.OutputClaim{
				ClaimPath: list(word, 1, 3).Draw(t, "claim"),
				Header:    fmt.Sprint("x-out-", rapid.StringMatching(`[a-z0-9_-]{1,6}`).Draw(t, "header"), i),
			})
		}
		return r
	})
}

// rulesetGen makes what the compiler of policies may make.
func rulesetGen() *rapid.Generator[*dataplanev1.Ruleset] {
	return rapid.Custom(func(t *rapid.T) *dataplanev1.Ruleset {
		rs := &dataplanev1.Ruleset{Service: "s"}
		issuers := rapid.IntRange(1, 3).Draw(t, "issuers")
		for i := range issuers {
			rs.Issuers = append(rs.Issuers, &dataplanev1.Issuer{
				Name: fmt.Sprint("issuer-", i), Issuer: fmt.Sprint(word.Draw(t, "iss"), i),
				Keys: randomKeys[:rapid.IntRange(1, len(randomKeys)).Draw(t, "keys")],
			})
		}
		routes := rapid.IntRange(1, 12).Draw(t, "routes")
		for i := range routes {
			r := &dataplanev1.Route{Name: fmt.Sprint("route", i), Authentication: &dataplanev1.Authentication{
				Mode: dataplanev1.Authentication_Mode(rapid.IntRange(1, 3).Draw(t, "mode")),
			}}
			if i < routes-1 {
				r.Match = matchGen().Draw(t, "match")
			}
			if r.Authentication.Mode != dataplanev1.Authentication_OFF {
				r.Authentication.Rules = list(tokenRuleGen(issuers), 1, 3).Draw(t, "rules")
			}
			if rapid.Bool().Draw(t, "authorization") {
				r.Authorization = &dataplanev1.Authorization{
					Deny:       list(authorizationRuleGen(), 0, 3).Draw(t, "deny"),
					Restricted: rapid.Bool().Draw(t, "restricted"),
					Allow:      list(authorizationRuleGen(), 0, 3).Draw(t, "allow"),
				}
			}
			rs.Routes = append(rs.Routes, r)
		}
		if rapid.Bool().Draw(t, "inbound") {
			rs.Inbound = &dataplanev1.Inbound{Address: "127.0.0.1", Port: 8080, LocalIp: "127.0.0.1", LocalPort: 8081,
				Protocol: dataplanev1.Inbound_Protocol(rapid.IntRange(0, 2).Draw(t, "protocol"))}
		}
		return rs
	})
}

var randomKeys = []*dataplanev1.Key{
	{Kid: "ec", Algorithm: "ES256", Jwk: `{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","kid":"ec","alg":"ES256"}`},
	{Kid: "ed", Algorithm: "EdDSA", Jwk: `{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","kid":"ed","alg":"EdDSA"}`},
	{Algorithm: "HS256", Symmetric: true, Jwk: `{"kty":"oct","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA","alg":"HS256"}`},
}

// Envoy takes whatever Resources makes.
func TestEnvoyTakesRandomRulesets(t *testing.T) {
	gen := rulesetGen()
	var all [][]Resource
	for i := range *rulesets {
		rs := gen.Example(i)
		rs.Service = fmt.Sprint("s", i)
		if rs.Inbound != nil {
			rs.Inbound.Port = uint32(10000 + i) // one Envoy has them all
		}
		resources, err := Resources(rs)
		if err != nil {
			t.Fatalf("%v\n%v", err, rs)
		}
		all = append(all, resources)
	}
	const batch = 100
	for len(all) > 0 {
		n := min(batch, len(all))
		takes(t, all[:n])
		all = all[n:]
	}
}

// takes halves what Envoy refuses until it knows which one it is.
func takes(t *testing.T, all [][]Resource) {
	t.Helper()
	var resources []Resource
	for _, r := range all {
		resources = append(resources, r...)
	}
	err := validate(t, static(t, resources))
	switch {
	case err == nil:
	case len(all) == 1:
		t.Fatalf("Envoy refuses it: %v\n%s", err, shown(t, resources))
	default:
		takes(t, all[:len(all)/2])
		takes(t, all[len(all)/2:])
		t.Fatalf("Envoy refuses %d rulesets together, not one by one: %v", len(all), err)
	}
}

// Equal input, even decoded anew, gives equal bytes.
func TestResourcesAreDeterministic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rs := rulesetGen().Draw(t, "ruleset")
		b, err := proto.Marshal(rs)
		if err != nil {
			t.Fatal(err)
		}
		again := new(dataplanev1.Ruleset)
		if err := proto.Unmarshal(b, again); err != nil {
			t.Fatal(err)
		}
		first, err := Resources(rs)
		if err != nil {
			t.Fatal(err)
		}
		second, err := Resources(again)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(first, second); diff != "" {
			t.Fatalf("-first +second:\n%s", diff)
		}
	})
}
