package ruleset

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What a caller that is refused is told, to the byte.
func TestResponses(t *testing.T) {
	const own = `, "responses": [
	 {"reasons": ["token_missing", "token_expired"], "status": 402, "body": "no token", "contentType": "text/plain"},
	 {"reasons": ["consumer_denied"], "status": 401}, {"reasons": ["credential_unknown"], "body": "who?", "contentType": "text/plain"}, {"reasons": ["audience_mismatch"], "body": "<x>", "contentType": "text/html"}]`
	plain := ready(t, oneRoute("STRICT", rule(""), `, "authorization": {"restricted": true}`))
	custom := ready(t, oneRoute("STRICT", rule(""), `, "authorization": {"restricted": true}`+own))
	lookup := ready(t, oneRoute("STRICT", kongRule, own))
	all := ready(t, oneRoute("STRICT", rule(""), `, "responses": [{"body": "{}", "contentType": "application/problem+json"}]`))
	paths := ready(t, service(`{"match": {"paths": ["/x"]}, "authentication": {"mode": "OFF"}}, {"match": {}, "authentication": {"mode": "OFF"}, "responses": [{"body": "b", "contentType": "c"}]}`))
	grpc := func(r Request, contentType string) Request {
		r.Header = append(r.Header, Field{"Content-Type", contentType})
		return r
	}
	expired := get("/", bearer(jwt("exp", 1)))
	other := get("/", bearer(jwt("aud", "x")))
	for name, tt := range map[string]struct {
		rs   *Ruleset
		r    Request
		want Decision
	}{
		"missing": {plain, get("/"), Decision{Reason: "token_missing", Status: 401, Body: `{"reason":"token_missing"}`, ContentType: "application/json",
			WWWAuthenticate: `Bearer realm="orders"`}},
		"expired": {plain, expired, Decision{Reason: "token_expired", Status: 401, Body: `{"reason":"token_expired"}`, ContentType: "application/json",
			WWWAuthenticate: `Bearer realm="orders", error="invalid_token", error_description="token_expired"`}},
		"audience": {plain, other, Decision{Reason: "audience_mismatch", Status: 403, Body: `{"reason":"audience_mismatch"}`, ContentType: "application/json"}},
		"denied": {plain, get("/", bearer(jwt())), Decision{Reason: "consumer_denied", Status: 403, Body: `{"reason":"consumer_denied"}`, ContentType: "application/json",
			Caller: Caller{Issuer: "sts", Iss: "https://sts.example", Subject: "alice"}}},
		"own": {custom, get("/"), Decision{Reason: "token_missing", Status: 402, Body: "no token", ContentType: "text/plain"}},
		"own body, plain status": {lookup, get("/", bearer(sign(hsHeader, `{}`, secretB))), Decision{Reason: "credential_unknown", Status: 401, Body: "who?", ContentType: "text/plain",
			WWWAuthenticate: `Bearer realm="orders", error="invalid_token", error_description="credential_unknown"`}},
		"own status": {custom, get("/", bearer(jwt())), Decision{Reason: "consumer_denied", Status: 401, Body: `{"reason":"consumer_denied"}`, ContentType: "application/json",
			WWWAuthenticate: `Bearer realm="orders", error="invalid_token", error_description="consumer_denied"`,
			Caller:          Caller{Issuer: "sts", Iss: "https://sts.example", Subject: "alice"}}},
		"own body": {custom, other, Decision{Reason: "audience_mismatch", Status: 403, Body: "<x>", ContentType: "text/html"}},
		"own for another": {custom, get("/", bearer("x")), Decision{Reason: "token_malformed", Status: 401, Body: `{"reason":"token_malformed"}`, ContentType: "application/json",
			WWWAuthenticate: `Bearer realm="orders", error="invalid_token", error_description="token_malformed"`}},
		"own for all":     {all, other, Decision{Reason: "audience_mismatch", Status: 403, Body: "{}", ContentType: "application/problem+json"}},
		"before a route":  {paths, get("//"), Decision{Reason: "path_ambiguous", Status: 403, Body: `{"reason":"path_ambiguous"}`, ContentType: "application/json"}},
		"gRPC":            {plain, grpc(expired, "application/grpc"), Decision{Reason: "token_expired", Status: 200, ContentType: "application/grpc", GRPCStatus: 16, GRPCMessage: "token_expired", WWWAuthenticate: `Bearer realm="orders", error="invalid_token", error_description="token_expired"`}},
		"gRPC, forbidden": {plain, grpc(other, "application/grpc+proto"), Decision{Reason: "audience_mismatch", Status: 200, ContentType: "application/grpc", GRPCStatus: 7, GRPCMessage: "audience_mismatch"}},
		"gRPC, own":       {custom, grpc(get("/"), "application/grpc+json"), Decision{Reason: "token_missing", Status: 200, ContentType: "application/grpc", GRPCStatus: 7, GRPCMessage: "no token"}},
		"gRPC, own status": {custom, grpc(get("/", bearer(jwt())), "application/grpc"), Decision{Reason: "consumer_denied", Status: 200, ContentType: "application/grpc", GRPCStatus: 16, GRPCMessage: "consumer_denied",
			WWWAuthenticate: `Bearer realm="orders", error="invalid_token", error_description="consumer_denied"`,
			Caller:          Caller{Issuer: "sts", Iss: "https://sts.example", Subject: "alice"}}},
		"gRPC-Web is plain HTTP": {plain, grpc(other, "application/grpc-web"), Decision{Reason: "audience_mismatch", Status: 403, Body: `{"reason":"audience_mismatch"}`, ContentType: "application/json"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, tt.rs.Evaluate(tt.r, now)); diff != "" {
				t.Errorf("%s, fields\n%s(-want +got):\n%s", tt.r.Path, fieldsOf(tt.r), diff)
			}
		})
	}
}

// The header section of a refusal has what there is to say, no empty field, and no word
// of what was only observed.
func TestRefusalHeader(t *testing.T) {
	rs := ready(t, strings.Replace(oneRoute("STRICT", rule(""), `, "authorization": {"restricted": true}`), `"mode":`, `"observe": true, "mode":`, 1))
	for name, tt := range map[string]struct{ contentType, want string }{
		"HTTP": {"text/plain", "content-type: application/json\nx-watchword-reason: consumer_denied\n"},
		"gRPC": {"application/grpc", "content-type: application/grpc\ngrpc-message: consumer_denied\ngrpc-status: 7\nx-watchword-reason: consumer_denied\n"},
	} {
		d := rs.Evaluate(get("/", "content-type: "+tt.contentType), now)
		if diff := cmp.Diff(tt.want, fieldsOf(Request{Header: d.RefusalHeader()})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	d := ready(t, oneRoute("STRICT", rule(""), "")).Evaluate(get("/"), now)
	want := "content-type: application/json\nwww-authenticate: Bearer realm=\"orders\"\nx-watchword-reason: token_missing\n"
	if diff := cmp.Diff(want, fieldsOf(Request{Header: d.RefusalHeader()})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
