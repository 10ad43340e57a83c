package parity

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	"github.com/watchword-mesh/watchword/dataplane/ruleset"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// signerNames are all whose tokens can be revoked.
var signerNames = []string{"a", "any", "b", "consumer/ann", "consumer/bob", "consumer/cy", "sts", "watchword"}

// revocations are of few things, so that they have to do with the tokens; in every other
// world there are none.
func (w *world) revocations(t *rapid.T, now int64) *dataplanev1.Revocations {
	r := &dataplanev1.Revocations{Service: service}
	if !chance(t, "revocations", 2) {
		return r
	}
	// Else most tokens that verify end before anybody asks whether they are revoked.
	for i, route := range w.rs.GetRoutes() {
		if chance(t, fmt.Sprint("everybody ", i), 2) {
			route.Authorization = &dataplanev1.Authorization{}
		}
	}
	if chance(t, "revoked consumers", 2) {
		r.Consumers = slices.Sorted(slices.Values(some(t, "revoked consumers of", consumers, 1, 2)))
	}
	until := func(label string) int64 {
		return pick(t, label, []int64{now - 100, now - 6, now - 4, now + 60})
	}
	for _, name := range slices.Sorted(slices.Values(some(t, "signers revoked", signerNames, 4, 8))) {
		is := &dataplanev1.RevokedOfIssuer{Issuer: name}
		if chance(t, name+" tokens", 3) {
			is.Tokens = slices.Sorted(slices.Values(some(t, name+" tokens of", []string{"j", "k", "a|b", "none"}, 1, 2)))
		}
		if chance(t, name+" instances", 4) {
			is.Instances = []*dataplanev1.RevokedInstance{{Subject: pick(t, name+" instance of", subjects), Instance: "i1"}}
		}
		found := map[string]int64{}
		for i := range rapid.IntRange(0, 2).Draw(t, name+" subjects") {
			label := fmt.Sprint(name, " subject ", i)
			found[pick(t, label, subjects)] = pick(t, label+" until", []int64{0, until(label + " at")})
		}
		for _, s := range slices.Sorted(maps.Keys(found)) {
			is.Subjects = append(is.Subjects, &dataplanev1.RevokedSubject{Subject: s, IssuedUntil: found[s]})
		}
		if chance(t, name+" issued", 3) {
			is.IssuedUntil = until(name + " issued until")
		}
		r.Issuers = append(r.Issuers, is)
	}
	return r
}

// Each form of a revocation refuses what it is about, and nothing else, whatever the
// mode of the route lets in; what has no token, or is not looked at, passes.
func TestRevocations(t *testing.T) {
	p, pool := startPlanes(t), newPool()
	now := time.Now().Unix()
	sts, ann, web, guest := pool.trusted[0], pool.trusted[1], pool.trusted[3], pool.stranger
	rule := func(r *dataplanev1.TokenRule) *dataplanev1.TokenRule {
		r.Audiences, r.Expiration, r.NotBefore = []string{"orders"}, dataplanev1.TimeCheck_REQUIRED, dataplanev1.TimeCheck_IF_PRESENT
		r.FromHeaders, r.ClockSkew = []*dataplanev1.TokenLocation{{Name: "authorization", Prefix: "Bearer "}}, durationpb.New(time.Second)
		return r
	}
	byIssuer := &dataplanev1.KeyClaim{Name: "iss", Sources: []dataplanev1.KeyClaim_Source{dataplanev1.KeyClaim_PAYLOAD}}
	rules := []*dataplanev1.TokenRule{
		rule(&dataplanev1.TokenRule{Issuer: "sts", Consumers: []*dataplanev1.ConsumerMatch{{Consumer: "bob", When: []*dataplanev1.ClaimMatch{{ClaimPath: []string{"app"}, Op: dataplanev1.ClaimMatch_IN, Values: []*structpb.Value{structpb.NewStringValue("bob")}}}}}}),
		rule(&dataplanev1.TokenRule{CredentialSet: "apps", KeyClaim: byIssuer}),
		rule(&dataplanev1.TokenRule{CredentialSet: "self", KeyClaim: byIssuer}),
	}
	route := func(path string, mode dataplanev1.Authentication_Mode) *dataplanev1.Route {
		r := &dataplanev1.Route{Name: strings.Trim(path, "/*"), Match: &dataplanev1.RequestMatch{}, Authentication: &dataplanev1.Authentication{Mode: mode}, Authorization: &dataplanev1.Authorization{}}
		if path != "" {
			r.Match.Paths = []string{path}
		}
		if mode != dataplanev1.Authentication_OFF {
			r.Authentication.Rules = rules
		}
		return r
	}
	optional := route("/optional", dataplanev1.Authentication_OPTIONAL)
	optional.Authentication.AnonymousConsumer = "ann"
	rs := &dataplanev1.Ruleset{
		Service:     service,
		OwnSubjects: &dataplanev1.OwnSubjects{Prefix: "spiffe://mesh/", Issuer: "https://sts.example"},
		Issuers:     []*dataplanev1.Issuer{{Name: "sts", Issuer: "https://sts.example", Keys: keysOf([]*signer{sts})}},
		Consumers:   []*dataplanev1.Consumer{{Name: "ann"}, {Name: "bob"}},
		CredentialSets: []*dataplanev1.CredentialSet{
			{Name: "apps", Credentials: []*dataplanev1.Credential{{Key: "app-1", Keys: keysOf([]*signer{ann}), Consumer: "ann"}, {Key: "app-2", Keys: keysOf([]*signer{guest}), Consumer: "bob"}}},
			{Name: "self", Credentials: []*dataplanev1.Credential{{Key: "self-web", Keys: keysOf([]*signer{web}), Service: "web", Subject: "spiffe://mesh/web"}}},
		},
		Routes: []*dataplanev1.Route{route("/off", dataplanev1.Authentication_OFF), optional, route("/permissive", dataplanev1.Authentication_PERMISSIVE), route("", dataplanev1.Authentication_STRICT)},
	}
	token := func(s *signer, iss string, changes ...any) string {
		claims := map[string]any{"iss": iss, "sub": "alice", "aud": "orders", "exp": now + 600, "iat": now - 100, "jti": "j1"}
		for i := 0; i < len(changes); i += 2 {
			if claims[changes[i].(string)] = changes[i+1]; changes[i+1] == nil {
				delete(claims, changes[i].(string))
			}
		}
		text, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		return s.token(map[string]any{"alg": s.alg, "kid": s.kid}, text)
	}
	const iss = "https://sts.example"
	tokens := map[string]string{
		"plain":     token(sts, iss),
		"another":   token(sts, iss, "jti", "j2", "sub", "bert"),
		"instance":  token(sts, iss, "jti", "j3", "sub", "spiffe://mesh/api", "instance", "i1"),
		"instance2": token(sts, iss, "jti", "j4", "sub", "spiffe://mesh/api", "instance", "i2"),
		"bob":       token(sts, iss, "jti", "j5", "sub", "app", "app", "bob"),
		"young":     token(sts, iss, "jti", "j6", "iat", now-10),
		"ageless":   token(sts, iss, "jti", "j7", "iat", nil),
		"nameless":  token(sts, iss, "jti", nil, "sub", nil),
		"ann":       token(ann, "app-1"),
		"guest":     token(guest, "app-2"),
		"self":      token(web, "self-web", "sub", "spiffe://mesh/web"),
	}
	of := func(issuer string, change func(*dataplanev1.RevokedOfIssuer)) *dataplanev1.Revocations {
		is := &dataplanev1.RevokedOfIssuer{Issuer: issuer}
		change(is)
		return &dataplanev1.Revocations{Service: service, Issuers: []*dataplanev1.RevokedOfIssuer{is}}
	}
	subject := func(sub string, until int64) func(*dataplanev1.RevokedOfIssuer) {
		return func(r *dataplanev1.RevokedOfIssuer) {
			r.Subjects = []*dataplanev1.RevokedSubject{{Subject: sub, IssuedUntil: until}}
		}
	}
	jti := func(ids ...string) func(*dataplanev1.RevokedOfIssuer) {
		return func(r *dataplanev1.RevokedOfIssuer) { r.Tokens = ids }
	}
	many := make([]string, 10_000)
	for i := range many {
		many[i] = fmt.Sprintf("00000000-0000-4000-8000-%012d", i)
	}
	for name, tt := range map[string]struct {
		revoked *dataplanev1.Revocations
		gone    string // which tokens are refused
	}{
		"nothing":                   {&dataplanev1.Revocations{Service: service}, ""},
		"a token":                   {of("sts", jti("j1")), "plain"},
		"a token of nobody":         {of("sts", jti("")), "nameless"}, // no compiler makes that
		"a token of a consumer":     {of("consumer/ann", jti("j1")), "ann"},
		"a token that is self-made": {of("watchword", jti("j1")), "self"},
		"ten thousand":              {of("sts", jti(append(many, "j2")...)), "another"},
		"an instance": {of("sts", func(r *dataplanev1.RevokedOfIssuer) {
			r.Instances = []*dataplanev1.RevokedInstance{{Subject: "spiffe://mesh/api", Instance: "i1"}}
		}), "instance"},
		"a consumer":              {&dataplanev1.Revocations{Service: service, Consumers: []string{"ann"}}, "ann"},
		"a consumer of an issuer": {&dataplanev1.Revocations{Service: service, Consumers: []string{"bob"}}, "bob guest"},
		"a subject":               {of("sts", subject("alice", 0)), "plain young ageless"},
		"a subject, self-issued":  {of("watchword", subject("spiffe://mesh/web", 0)), "self"},
		"a subject until":         {of("sts", subject("alice", now-50)), "plain ageless"},
		"a subject until its iat": {of("sts", subject("alice", now-100)), "plain ageless"},
		"a subject until before":  {of("sts", subject("alice", now-101)), "ageless"},
		"an issuer until":         {of("sts", func(r *dataplanev1.RevokedOfIssuer) { r.IssuedUntil = now - 50 }), "plain another instance instance2 bob ageless nameless"},
		"an issuer and a subject": {of("sts", func(r *dataplanev1.RevokedOfIssuer) {
			subject("alice", now-5)(r)
			r.IssuedUntil = now - 50
		}), "plain another instance instance2 bob ageless nameless young"},
		"another issuer": {of("other", jti("j1")), ""},
	} {
		reference, err := p.loadRevoking(t, rs, tt.revoked)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for which, text := range tokens {
			for path, looked := range map[string]bool{"/": true, "/optional": true, "/permissive": true, "/off": false} {
				req := ruleset.Request{Method: "GET", Authority: "orders", Path: path, Header: []ruleset.Field{{Name: "authorization", Value: "Bearer " + text}}}
				all := p.ask(t, reference, req)
				if d := disagreements(all); d != "" {
					t.Errorf("%s, %s to %s:\n%s", name, which, path, d)
				}
				gone := looked && slices.Contains(strings.Fields(tt.gone), which)
				if got := all[0].want; got.Allowed == gone || gone && (got.Reason != reason.Revoked || got.Status != 401) {
					t.Errorf("%s, %s to %s: allowed %t, %d %s; want refused as revoked %t", name, which, path, got.Allowed, got.Status, got.Reason, gone)
				}
			}
		}
		all := p.ask(t, reference, ruleset.Request{Method: "GET", Authority: "orders", Path: "/optional"})
		if d := disagreements(all); d != "" || !all[0].want.Allowed {
			t.Errorf("%s, without a token: %+v\n%s", name, all[0].want, d)
		}
	}
}
