package parity

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	"github.com/watchword-mesh/watchword/dataplane/ruleset"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// change makes another service out of the bench.
type change func(b *bench, r *dataplanev1.Route, rule *dataplanev1.TokenRule)

// testCase is one request to one service.
type testCase struct {
	name    string
	service change // nil: the bench as it is
	request func(b *bench) ruleset.Request
	want    reason.Word // "": let in
	saw     map[string]string
	// observed is what would have been refused
	observed reason.Word
}

func as(change map[string]any) func(b *bench) ruleset.Request {
	return func(b *bench) ruleset.Request { return bearer(b.hs.token(header(nil), b.claims(change))) }
}

func signed(change map[string]any) func(b *bench) ruleset.Request {
	return func(b *bench) ruleset.Request { return bearer(b.hs.token(header(change), b.claims(nil))) }
}

func nothing(*bench) ruleset.Request { return get() }

func now(seconds int64) int64 { return time.Now().Unix() + seconds }

var testCases = []testCase{
	{name: "good", request: as(nil), saw: map[string]string{"X-Sub": "alice", "X-Watchword-Caller": "alice", "X-Watchword-Issuer": "https://a.example"}},
	{name: "missing", request: nothing, want: reason.TokenMissing},
	{name: "malformed", request: func(*bench) ruleset.Request { return bearer("x.y") }, want: reason.TokenMalformed},
	{name: "exp of another type", request: as(map[string]any{"exp": "soon"}), want: reason.TokenMalformed},
	{name: "critical header", request: signed(map[string]any{"crit": []string{"x"}, "x": 1}), want: reason.TokenMalformed},
	{name: "no signature", request: signed(map[string]any{"alg": "none"}), want: reason.AlgorithmNotAllowed},
	{name: "unknown issuer", request: as(map[string]any{"iss": "https://b.example"}), want: reason.IssuerUnknown},
	{name: "unknown key", request: signed(map[string]any{"kid": "other"}), want: reason.KeyUnknown},
	{name: "another key's kid", request: signed(map[string]any{"kid": "es"}), want: reason.KeyUnknown},
	{name: "wrong signature", request: func(b *bench) ruleset.Request { return bearer(b.good()[:len(b.good())-5] + "AAAAA") }, want: reason.SignatureInvalid},
	{name: "expired", request: as(map[string]any{"exp": now(-120)}), want: reason.TokenExpired},
	{name: "expired within the skew", request: as(map[string]any{"exp": now(-20)})},
	{name: "not yet valid", request: as(map[string]any{"nbf": now(600)}), want: reason.TokenNotYetValid},
	{name: "issued in the future", request: as(map[string]any{"iat": now(600)}), want: reason.TokenNotYetValid},
	{name: "no exp", request: as(map[string]any{"exp": absent}), want: reason.ClaimMissing},
	{name: "exp of zero", request: as(map[string]any{"exp": 0}), want: reason.ClaimMissing},
	{name: "exp without end", request: as(map[string]any{"exp": int64(1) << 60}), want: reason.LifetimeExceeded},
	{name: "lives too long", service: func(_ *bench, _ *dataplanev1.Route, rule *dataplanev1.TokenRule) {
		rule.MaxLifetime = durationpb.New(time.Minute)
	},
		request: as(nil), want: reason.LifetimeExceeded},
	{name: "a claim that is required", service: func(_ *bench, _ *dataplanev1.Route, rule *dataplanev1.TokenRule) {
		rule.RequiredClaims = []string{"tenant"}
	},
		request: as(nil), want: reason.ClaimMissing},
	{name: "another audience", request: as(map[string]any{"aud": "payments"}), want: reason.AudienceMismatch},
	{name: "no audience", request: as(map[string]any{"aud": absent}), want: reason.AudienceMismatch},
	{name: "one of several audiences", request: as(map[string]any{"aud": []string{"payments", "orders"}})},
	{name: "type of the header", service: func(_ *bench, _ *dataplanev1.Route, rule *dataplanev1.TokenRule) { rule.Types = []string{"at+jwt"} },
		request: signed(map[string]any{"typ": "dpop+jwt"}), want: reason.TypeNotAllowed},
	{name: "type in another spelling", service: func(_ *bench, _ *dataplanev1.Route, rule *dataplanev1.TokenRule) { rule.Types = []string{"at+jwt"} },
		request: signed(map[string]any{"typ": "application/AT+JWT"})},
	{name: "subject with a line break", service: noOutputs, request: as(map[string]any{"sub": "a\r\nx-evil: 1"}), want: reason.SubjectMalformed},
	{name: "subject with NUL", service: noOutputs, request: as(map[string]any{"sub": "a\x00"}), want: reason.SubjectMalformed},
	{name: "subject that a header would trim", service: noOutputs, request: as(map[string]any{"sub": "alice "}), want: reason.SubjectMalformed},
	{name: "claim with a line break", request: as(map[string]any{"o": "a\nb"}), want: reason.ClaimMalformed},
	{name: "subject of a service", service: func(b *bench, _ *dataplanev1.Route, _ *dataplanev1.TokenRule) {
		b.rs.OwnSubjects = &dataplanev1.OwnSubjects{Prefix: "spiffe://mesh/", Issuer: "https://sts.example"}
	}, request: as(map[string]any{"sub": "spiffe://mesh/web"}), want: reason.SubjectForged},
	{name: "one good and one bad token", request: func(b *bench) ruleset.Request {
		return get(ruleset.Field{Name: "Authorization", Value: "Bearer " + b.good()}, ruleset.Field{Name: "X-Token", Value: b.hs.token(header(nil), b.claims(map[string]any{"exp": now(-1000)}))})
	}, want: reason.TokenExpired},
	{name: "the same where all is let in", service: permissive, request: func(b *bench) ruleset.Request {
		return get(ruleset.Field{Name: "Authorization", Value: "Bearer " + b.hs.token(header(nil), b.claims(map[string]any{"exp": now(-1000)}))}, ruleset.Field{Name: "X-Token", Value: b.good()})
	}, saw: map[string]string{"X-Watchword-Caller": "", "X-Sub": ""}},
	{name: "permissive, without end", service: permissive, request: as(map[string]any{"exp": absent}), saw: map[string]string{"X-Watchword-Caller": "", "X-Watchword-Issuer": "", "X-Sub": ""}},
	{name: "permissive, critical", service: permissive, request: signed(map[string]any{"crit": []string{"x"}, "x": 1}), saw: map[string]string{"X-Watchword-Caller": "", "X-Sub": ""}},
	{name: "permissive, from the future", service: permissive, request: as(map[string]any{"iat": now(1000)}), saw: map[string]string{"X-Watchword-Caller": "", "X-Sub": ""}},
	{name: "permissive, and good", service: permissive, request: as(nil), saw: map[string]string{"X-Watchword-Caller": "alice", "X-Sub": "alice"}},
	{name: "permissive", service: permissive, request: as(map[string]any{"exp": now(-1000)}), saw: map[string]string{"X-Watchword-Caller": "", "X-Sub": ""}},
	{name: "optional without", service: optional, request: nothing},
	{name: "optional with a bad one", service: optional, request: as(map[string]any{"exp": now(-1000)}), want: reason.TokenExpired},
	{name: "forged headers", service: optional, request: func(*bench) ruleset.Request {
		return get(ruleset.Field{Name: "X-Watchword-Caller", Value: "root"}, ruleset.Field{Name: "x_sub", Value: "root"})
	}, saw: map[string]string{"X-Watchword-Caller": "", "X_sub": "", "X-Sub": ""}},
	{name: "observed", service: func(_ *bench, r *dataplanev1.Route, _ *dataplanev1.TokenRule) { r.Authentication.Observe = true },
		request: nothing, observed: reason.TokenMissing},
	{name: "denied", service: func(_ *bench, r *dataplanev1.Route, _ *dataplanev1.TokenRule) {
		r.Authorization = &dataplanev1.Authorization{Deny: []*dataplanev1.AuthorizationRule{{Name: "p/0", From: []*dataplanev1.Principal{{Issuer: "a", Subject: "alice"}}}}}
	}, request: as(nil), want: reason.ConsumerDenied},
	{name: "not allowed", service: allowAdmins, request: as(nil), want: reason.ConsumerDenied},
	{name: "allowed by a claim in a list", service: allowAdmins, request: as(map[string]any{"realm": map[string]any{"roles": []string{"user", "admin"}}})},
	{name: "observed authorization", service: func(b *bench, r *dataplanev1.Route, rule *dataplanev1.TokenRule) {
		allowAdmins(b, r, rule)
		r.ObservedAuthorization, r.Authorization = r.Authorization, nil
	}, request: as(nil), observed: reason.ConsumerDenied},
	{name: "ambiguous path", service: aboutPaths, request: func(b *bench) ruleset.Request { return at(b, "/a/%2e%2e/admin") }, want: reason.PathAmbiguous},
	{name: "two slashes", service: aboutPaths, request: func(b *bench) ruleset.Request { return at(b, "//admin") }, want: reason.PathAmbiguous},
	{name: "path as it is", service: aboutPaths, request: func(b *bench) ruleset.Request { return at(b, "/admin") }, want: reason.ConsumerDenied},
	{name: "ambiguous host", service: func(_ *bench, r *dataplanev1.Route, _ *dataplanev1.TokenRule) {
		r.Authorization = &dataplanev1.Authorization{Deny: []*dataplanev1.AuthorizationRule{{Name: "p/0", To: &dataplanev1.RequestMatch{Hosts: []string{"admin.example"}}}}}
	}, request: func(b *bench) ruleset.Request {
		r := at(b, "/")
		r.Authority = "admin.example:x"
		return r
	}, want: reason.HostAmbiguous},
	{name: "credential", service: credentials, request: as(map[string]any{"iss": "k2"}),
		saw: map[string]string{"X-Watchword-Consumer": "bob", "X-Consumer-Username": "bob", "X-Consumer-Custom-Id": ""}},
	{name: "unknown credential", service: credentials, request: as(map[string]any{"iss": "k9"}), want: reason.CredentialUnknown},
	{name: "credential with another's key", service: credentials, request: as(map[string]any{"iss": "k1"}), want: reason.KeyUnknown},
	{name: "anonymous", service: func(b *bench, r *dataplanev1.Route, rule *dataplanev1.TokenRule) {
		credentials(b, r, rule)
		r.Authentication.Mode, r.Authentication.AnonymousConsumer = dataplanev1.Authentication_PERMISSIVE, "guest"
	}, request: as(map[string]any{"iss": "k9"}), saw: map[string]string{"X-Watchword-Consumer": "guest", "X-Anonymous-Consumer": "true"}},
}

func noOutputs(_ *bench, _ *dataplanev1.Route, rule *dataplanev1.TokenRule) { rule.OutputClaims = nil }

func permissive(_ *bench, r *dataplanev1.Route, _ *dataplanev1.TokenRule) {
	r.Authentication.Mode = dataplanev1.Authentication_PERMISSIVE
}

func optional(_ *bench, r *dataplanev1.Route, _ *dataplanev1.TokenRule) {
	r.Authentication.Mode = dataplanev1.Authentication_OPTIONAL
}

func allowAdmins(_ *bench, r *dataplanev1.Route, _ *dataplanev1.TokenRule) {
	r.Authorization = &dataplanev1.Authorization{Restricted: true, Allow: []*dataplanev1.AuthorizationRule{{Name: "p/0", When: []*dataplanev1.ClaimMatch{
		{ClaimPath: []string{"realm", "roles"}, Op: dataplanev1.ClaimMatch_IN, Values: []*structpb.Value{structpb.NewStringValue("admin")}},
	}}}}
}

func aboutPaths(_ *bench, r *dataplanev1.Route, _ *dataplanev1.TokenRule) {
	r.Authorization = &dataplanev1.Authorization{Deny: []*dataplanev1.AuthorizationRule{{Name: "p/0", To: &dataplanev1.RequestMatch{Paths: []string{"/admin"}}}}}
}

func at(b *bench, path string) ruleset.Request {
	r := bearer(b.good())
	r.Path = path
	return r
}

// credentials has two consumers with a key each, and a guest.
func credentials(b *bench, r *dataplanev1.Route, rule *dataplanev1.TokenRule) {
	rule.Issuer, rule.CredentialSet = "", "all"
	rule.KeyClaim = &dataplanev1.KeyClaim{Name: "iss", Sources: []dataplanev1.KeyClaim_Source{dataplanev1.KeyClaim_PAYLOAD}}
	b.rs.CredentialSets = []*dataplanev1.CredentialSet{{Name: "all", Credentials: []*dataplanev1.Credential{
		{Key: "k1", Keys: keysOf([]*signer{b.es}), Consumer: "ann"}, {Key: "k2", Keys: keysOf([]*signer{b.hs}), Consumer: "bob"},
	}}}
	b.rs.Consumers = []*dataplanev1.Consumer{{Name: "ann", Username: "ann"}, {Name: "bob", Username: "bob"}, {Name: "guest"}}
	r.Authentication.ConsumerHeaders = []*dataplanev1.ConsumerHeader{
		{Attribute: dataplanev1.ConsumerHeader_USERNAME, Header: "x-consumer-username"},
		{Attribute: dataplanev1.ConsumerHeader_CUSTOM_ID, Header: "x-consumer-custom-id"},
		{Attribute: dataplanev1.ConsumerHeader_ANONYMOUS, Header: "x-anonymous-consumer"},
	}
}

// Each case comes out the same in the reference and in all data planes, and as it
// says; together they show every reason.
func TestCases(t *testing.T) {
	b := newBench()
	plain := proto.CloneOf(b.rs)
	p := startPlanes(t)
	shown := map[reason.Word]bool{reason.Revoked: true} // by a filter that has nothing to refuse yet
	for _, tt := range testCases {
		shown[tt.want] = true
		t.Run(tt.name, func(t *testing.T) {
			b.rs = proto.CloneOf(plain)
			tt.play(t, b, p)
		})
	}
	for _, w := range reason.All() {
		if !shown[w] {
			t.Errorf("no case is refused for %s", w)
		}
	}
}

// play sends the request of a case to all of them, and returns what they made of it.
func (tt *testCase) play(t *testing.T, b *bench, p *planes) (outcome, ruleset.Request) {
	t.Helper()
	if tt.service != nil {
		tt.service(b, b.rs.Routes[0], b.rs.Routes[0].Authentication.Rules[0])
	}
	reference := b.load(t, p)
	req := tt.request(b)
	all := p.ask(t, reference, req)
	if d := disagreements(all); d != "" {
		t.Fatalf("%s%s", d, show(req))
	}
	got := all[0].got
	if got.Allowed != (tt.want == "") || got.Reason != tt.want || got.Observed != tt.observed {
		t.Fatalf("got %+v, want reason %q, observed %q\n%s", got, tt.want, tt.observed, show(req))
	}
	for name, value := range tt.saw {
		if saw := got.Forward.Header.Get(name); saw != value {
			t.Errorf("the service saw %s: %q, want %q\n%s", name, saw, value, show(req))
		}
	}
	return got, req
}

func (b *bench) load(t *testing.T, p *planes) *ruleset.Ruleset {
	t.Helper()
	reference, err := p.load(t, b.rs)
	if err != nil {
		t.Fatal(err)
	}
	return reference
}
