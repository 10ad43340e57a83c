package envoy

import (
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/dataplane/reason"
)

// facts is the metadata of a request, in JSON.
func facts(t *testing.T, rbac, jwt string) *corev3.Metadata {
	t.Helper()
	md := new(corev3.Metadata)
	text := `{"filterMetadata": {"envoy.filters.http.rbac": {` + rbac + `}, "envoy.filters.http.jwt_authn": {` + jwt + `}, "other": {"watchword_deny_enforced_engine_result": "denied"}}}`
	if err := protojson.Unmarshal([]byte(text), md); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return md
}

func enforced(stage, result, id string) string {
	return `"watchword_` + stage + `_enforced_engine_result": "` + result + `", "watchword_` + stage + `_enforced_effective_policy_id": "` + id + `"`
}

func observed(stage, result, id string) string {
	return `"watchword_observed_` + stage + `_shadow_engine_result": "` + result + `", "watchword_observed_` + stage + `_shadow_effective_policy_id": "` + id + `"`
}

func TestOutcome(t *testing.T) {
	const alice = `"watchword_jwt": {"iss": "https://a.example", "sub": "alice", "email": "x"}`
	for _, tt := range []struct {
		name, rbac, jwt string
		want            Refusal
	}{
		{name: "nothing"},
		{name: "let through", rbac: enforced("verify", "allowed", "verified") + `, "watchword_route_shadow_effective_policy_id": "route-0001"`, jwt: alice},
		{name: "an allowing policy with a word", rbac: enforced("deny", "allowed", "consumer_denied")},
		{name: "somebody else's filters", rbac: `"enforced_engine_result": "denied", "enforced_effective_policy_id": "revoked", "watchword_other_enforced_engine_result": "denied"`},
		{name: "facts that are not text", rbac: `"watchword_deny_enforced_engine_result": true, "watchword_verify_enforced_engine_result": {"denied": "denied"}`},

		{name: "guard", rbac: enforced("guard", "denied", "path_ambiguous"), want: Refusal{Reason: "path_ambiguous"}},
		{name: "verify", rbac: enforced("verify", "denied", "token_expired#2"), want: Refusal{Reason: "token_expired"}},
		{name: "claims", rbac: enforced("claims", "denied", "claim_missing"), want: Refusal{Reason: "claim_missing"}},
		{name: "deny", rbac: enforced("deny", "denied", "consumer_denied[no-delete/0]"), want: Refusal{Reason: "consumer_denied", Rule: "no-delete/0"}},
		{name: "deny by a rule of many routes", rbac: enforced("deny", "denied", "consumer_denied[no-delete/0]#3"), want: Refusal{Reason: "consumer_denied", Rule: "no-delete/0"}},
		{name: "authorize", rbac: enforced("authorize", "denied", "consumer_denied"), want: Refusal{Reason: "consumer_denied"}},
		{name: "revoked", rbac: enforced("revoked", "denied", "revoked"), want: Refusal{Reason: "revoked"}},
		{name: "lease", rbac: enforced("lease", "denied", "lease_expired"), want: Refusal{Reason: "lease_expired"}},
		{name: "no name", rbac: `"watchword_deny_enforced_engine_result": "denied"`, want: Refusal{Reason: "unnamed"}},
		{name: "half a rule", rbac: enforced("deny", "denied", "consumer_denied[no"), want: Refusal{Reason: "consumer_denied"}},

		{name: "the first stage counts", rbac: enforced("revoked", "denied", "revoked") + "," + enforced("claims", "denied", "claim_missing") + "," + enforced("verify", "allowed", "verified"),
			want: Refusal{Reason: "claim_missing"}},
		{name: "observed", rbac: observed("verify", "denied", "token_missing"), want: Refusal{Observed: "token_missing"}},
		{name: "the first observed stage counts", rbac: observed("authorize", "denied", "consumer_denied") + "," + observed("deny", "denied", "consumer_denied[later/1]"),
			want: Refusal{Observed: "consumer_denied", ObservedRule: "later/1"}},
		{name: "both", rbac: observed("claims", "denied", "claim_missing") + "," + enforced("authorize", "denied", "consumer_denied"), jwt: alice,
			want: Refusal{Observed: "claim_missing", Reason: "consumer_denied", Issuer: "https://a.example", Subject: "alice"}},

		{name: "who and where", jwt: alice,
			rbac: enforced("deny", "denied", "consumer_denied[p/0]") + `, "watchword_route_shadow_effective_policy_id": "route-0001", "watchword_consumer_shadow_effective_policy_id": "acme"`,
			want: Refusal{Reason: "consumer_denied", Rule: "p/0", RouteID: "route-0001", Consumer: "acme", Issuer: "https://a.example", Subject: "alice"}},
		{name: "claims that are not text", jwt: `"watchword_jwt": {"iss": 7, "sub": ["alice"]}`, rbac: enforced("verify", "denied", "token_missing"), want: Refusal{Reason: "token_missing"}},
		{name: "a caller that an observed policy knows", jwt: `"watchword_observed_jwt": {"sub": "bob"}`, rbac: observed("claims", "denied", "claim_missing"),
			want: Refusal{Observed: "claim_missing", Subject: "bob"}},
		{name: "a caller that only an observed policy knows", jwt: `"watchword_observed_jwt": {"sub": "bob"}`,
			rbac: observed("claims", "denied", "claim_missing") + "," + enforced("verify", "denied", "issuer_unknown"),
			want: Refusal{Observed: "claim_missing", Reason: "issuer_unknown"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := Outcome(facts(t, tt.rbac, tt.jwt))
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Outcome (-want +got):\n%s\nof rbac {%s}, jwt {%s}", diff, tt.rbac, tt.jwt)
			}
			if want := tt.want != (Refusal{}); ok != want {
				t.Errorf("refused: %t, want %t; of rbac {%s}", ok, want, tt.rbac)
			}
		})
	}
	if got, ok := Outcome(nil); ok || got != (Refusal{}) {
		t.Errorf("Outcome(nil) = %+v, %t, want nothing", got, ok)
	}
}

// What the filter of the log selects is what Outcome calls a refusal: each of
// its conditions alone is one, and it has one for each stage.
func TestLogSelectsOutcomes(t *testing.T) {
	filters := refused().GetOrFilter().GetFilters()
	if want := len(enforcedStatPrefixes) + len(observedStatPrefixes); len(filters) != want {
		t.Errorf("the filter has %d conditions, want %d", len(filters), want)
	}
	for _, f := range filters {
		m := f.GetMetadataFilter().GetMatcher()
		path := m.GetPath()[0].GetKey()
		md := facts(t, `"`+path+`": "`+m.GetValue().GetStringMatch().GetExact()+`"`, "")
		if _, ok := Outcome(md); !ok || m.GetFilter() != rbacNamespace || f.GetMetadataFilter().GetMatchIfKeyNotFound().GetValue() {
			t.Errorf("%v selects %v, which is no refusal", f, md)
		}
	}
}

// What the log takes apart, Reported puts together again.
func TestReported(t *testing.T) {
	const facts = `{"watchword_deny_enforced_engine_result": "denied", "watchword_deny_enforced_effective_policy_id": "consumer_denied[p/0]"}`
	deny := Refusal{Reason: "consumer_denied", Rule: "p/0"}
	with := func(issuer, subject string) Refusal {
		r := deny
		r.Issuer, r.Subject = issuer, subject
		return r
	}
	for _, tt := range []struct {
		attributes map[string]string
		want       Refusal
	}{
		{nil, Refusal{}},
		{map[string]string{"facts": "-", "issuer": "i", "subject": "s"}, Refusal{}},
		{map[string]string{"facts": `{"watchword_deny_enforced_engine_result": "denied"`}, Refusal{}},
		{map[string]string{"facts": `["watchword_deny_enforced_engine_result"]`}, Refusal{}},
		{map[string]string{"facts": facts}, deny},
		{map[string]string{"facts": facts, "issuer": "-", "subject": "-"}, deny},
		{map[string]string{"facts": facts, "issuer": "i", "subject": "s"}, with("i", "s")},
		{map[string]string{"facts": facts, "issuer": "i", "subject": "-"}, with("i", "")},
		{map[string]string{"facts": facts, "observed_issuer": "i", "observed_subject": "s"}, deny},
		{map[string]string{"facts": strings.NewReplacer("deny", "observed_deny", "enforced", "shadow").Replace(facts), "observed_issuer": "i", "observed_subject": "s"},
			Refusal{Observed: "consumer_denied", ObservedRule: "p/0", Issuer: "i", Subject: "s"}},
	} {
		got, _ := Outcome(Reported(tt.attributes))
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("Outcome(Reported(%v)) (-want +got):\n%s", tt.attributes, diff)
		}
	}
}

func TestRouteIndex(t *testing.T) {
	for i := range maxRoutes {
		if got, ok := RouteIndex(routeID(i)); !ok || got != i {
			t.Fatalf("RouteIndex(%q) = %d, %t, want %d", routeID(i), got, ok, i)
		}
	}
	for _, id := range []string{"", "-", "route-", "route-1", "route--0001", "route-+001", "route-00001", "treatment-0001", "route-0001 "} {
		if got, ok := RouteIndex(id); ok {
			t.Errorf("RouteIndex(%q) = %d, want none", id, got)
		}
	}
}

// Whatever a data plane sends, Outcome ends, and what it says of a refusal has
// a reason and a rule without the brackets around it.
func FuzzOutcome(f *testing.F) {
	f.Add([]byte(nil), "consumer_denied[p/0]#1")
	f.Add([]byte{1}, "[]#[")
	f.Add([]byte{0x0a, 0x02, 0x0a, 0x00}, "#")
	f.Fuzz(func(t *testing.T, wire []byte, id string) {
		md := new(corev3.Metadata)
		if proto.Unmarshal(wire, md) == nil {
			if r, ok := Outcome(md); ok == (r.Reason == "" && r.Observed == "") {
				t.Fatalf("Outcome(%v) = %+v, %t", md, r, ok)
			}
		}
		word, rule := splitReason(id)
		if word == "" || strings.HasPrefix(rule, "[") && !strings.Contains(id, "[[") {
			t.Fatalf("splitReason(%q) = %q, %q", id, word, rule)
		}
		if reason.Known(reason.Parse(id)) && word != reason.Parse(id) {
			t.Fatalf("splitReason(%q) = %q, want the word that is there", id, word)
		}
	})
}
