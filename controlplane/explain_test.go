package controlplane

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/watchword-mesh/watchword/controlplane/api"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/issuer/sts"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

func (r *replicaInMemory) explainer() explainer {
	return explainer{rulesets: &r.published, dataPlanes: dataPlanes{xds: r.xds}, now: time.Now}
}

func (r *replicaInMemory) explain(req *adminv1.ExplainRequest) *adminv1.ExplainResponse {
	r.t.Helper()
	resp, err := r.explainer().Explain(req)
	if err != nil {
		r.t.Fatalf("Explain(%v): %v", req, err)
	}
	return resp
}

// token is one that the token service issues.
func (r *replicaInMemory) token(service, audience string) string {
	r.t.Helper()
	resp, err := r.sts.Issue(context.Background(), sts.Request{Service: service, Audience: audience})
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.AccessToken
}

// What is explained is what was published, keys included: a token that was issued
// here is verified, until its key or its service is gone.
func TestExplainIsOfWhatWasPublished(t *testing.T) {
	r := begin(t)
	r.connect("b")
	req := &adminv1.ExplainRequest{Service: "b", Token: r.token("a", "b")}
	verdict := func(want string) {
		t.Helper()
		resp := r.explain(req)
		got := fmt.Sprintf("%t %s %s at %d", resp.GetAllowed(), resp.GetReason(), resp.GetRule(), resp.GetRevision())
		if got != want {
			t.Errorf("got %q, want %q\n%s", got, want, protojson.Format(resp))
		}
	}
	verdict("true   at 1")
	resp := r.explain(req)
	want := &adminv1.ExplainCaller{Issuer: "watchword", Iss: "http://sts.test", Subject: "spiffe://mesh.test/a"}
	if diff := cmp.Diff(want, resp.GetCaller(), protocmp.Transform()); diff != "" {
		t.Errorf("caller (-want +got):\n%s", diff)
	}
	if planes := resp.GetDataPlanes(); len(planes) != 1 || planes[0].GetNode() != "node-b" || !planes[0].GetInSync() {
		t.Errorf("data planes %v, want node-b in sync", planes)
	}

	r.apply(r.edit(`{apiVersion: watchword.dev/v1, kind: AuthorizationPolicy, metadata: {name: p}, spec: {target: {services: [b]}, action: DENY, rules: [{from: {services: [a]}}]}}`))
	verdict("false consumer_denied p/0 at 2")
	r.apply(r.edit("", policy.Key{Kind: policy.KindAuthorizationPolicy, Name: "p"}))
	verdict("true   at 3")
	r.apply(r.rekey(signingKey(t)))
	verdict("false key_unknown  at 4")

	first, err := r.published.of("b")
	again, _ := r.published.of("b")
	if err != nil || first != again {
		t.Errorf("the ruleset was compiled again, or %v", err)
	}
	r.apply(r.edit("", policy.Key{Kind: policy.KindService, Name: "b"}))
	if _, err := r.explainer().Explain(req); !errors.Is(err, api.ErrUnknown) {
		t.Errorf("of a service that is gone: %v, want ErrUnknown", err)
	}
}

// A data plane that has not confirmed what is explained is told of, with the
// revision that it has.
func TestExplainTellsWhoIsBehind(t *testing.T) {
	r := begin(t)
	ctx, cancel := context.WithCancel(asService(context.Background(), "b"))
	defer cancel()
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(r.conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&discovery.DeltaDiscoveryRequest{
		Node: &core.Node{Id: "slow", Cluster: "b", UserAgentName: "envoy"}, TypeUrl: extensionType,
		ResourceNamesSubscribe: []string{"mesh.inbound/b", "mesh.revoked/b"},
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil { // and never confirms it
		t.Fatal(err)
	}
	resp := r.explain(&adminv1.ExplainRequest{Service: "b"})
	if p := resp.GetDataPlanes(); len(p) != 1 || p[0].GetNode() != "slow" || p[0].GetInSync() || p[0].GetReason() == "" {
		t.Errorf("data planes %v, want slow, not in sync, and why", p)
	}
	if resp.GetReason() != "token_missing" || resp.GetRevision() != 1 {
		t.Errorf("got %s", protojson.Format(resp))
	}
}

// The request is that of the caller, with what it leaves out filled in.
func TestExplainRequest(t *testing.T) {
	field := func(name, value string) *adminv1.ExplainField {
		return &adminv1.ExplainField{Name: name, Value: value}
	}
	for name, tt := range map[string]struct {
		req  *adminv1.ExplainRequest
		want string
	}{
		"nothing": {&adminv1.ExplainRequest{Service: "b"}, "GET b/ [] "},
		"all": {&adminv1.ExplainRequest{Service: "b", Method: "PUT", Host: "h:80", Path: "/p?q", Headers: []*adminv1.ExplainField{field("A", "b")}},
			"PUT h:80/p?q [{A b}] "},
		"form": {&adminv1.ExplainRequest{Service: "b", Form: []*adminv1.ExplainField{field("a b", "c&d"), field("e", "")}},
			"POST b/ [{content-type application/x-www-form-urlencoded}] a+b=c%26d&e="},
		"form of another type": {&adminv1.ExplainRequest{Service: "b", Method: "PUT", Headers: []*adminv1.ExplainField{field("Content-Type", "x")}, Form: []*adminv1.ExplainField{field("a", "b")}},
			"PUT b/ [{Content-Type x}] a=b"},
	} {
		q := requestOf(tt.req)
		if got := fmt.Sprintf("%s %s%s %v %s", q.Method, q.Authority, q.Path, q.Header, q.Body); got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

const sharedSecret = "a-secret-of-thirty-two-characters"

// Neither a token nor a secret is in an explanation or in the log, whatever the
// verdict is, and wherever the token came from.
func TestExplainShowsNoSecret(t *testing.T) {
	r := begin(t)
	r.apply(r.edit(`
{apiVersion: watchword.dev/v1, kind: Consumer, metadata: {name: alice}, spec: {credentials: [{key: key-a, keySet: {secret: {keys: [{secret: ` + sharedSecret + `}]}}}]}}
---
apiVersion: watchword.dev/v1
kind: AuthenticationPolicy
metadata: {name: b}
spec:
  target: {services: [b]}
  allowScripts: true
  jwtRules:
  - {issuer: watchword, forwardOriginalToken: true}
  - consumers: {names: [alice]}
    audienceCheck: UNCHECKED
    expiration: IF_PRESENT
    forwardOriginalToken: true
    outputPayloadToHeader: x-payload
    fromHeaders: [{name: authorization, prefix: "Bearer "}, {name: x-tok}]
    fromParams: [t]
    fromForm: [f]
`))
	b64 := base64.RawURLEncoding.EncodeToString
	sign := func(header, claims, secret string) string {
		input := b64([]byte(header)) + "." + b64([]byte(claims))
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(input))
		return input + "." + b64(mac.Sum(nil))
	}
	tokens := map[string]string{
		"issued":      r.token("a", "b"),
		"credential":  sign(`{"alg":"HS256"}`, `{"iss":"key-a","jti":"an-id-of-the-token"}`, sharedSecret),
		"forged":      sign(`{"alg":"HS256"}`, `{"iss":"key-a"}`, "another"),
		"expired":     sign(`{"alg":"HS256"}`, `{"iss":"key-a","exp":1}`, sharedSecret),
		"unknown":     sign(`{"alg":"HS256"}`, `{"iss":"nobody"}`, sharedSecret),
		"broken":      sign(`{"alg":"HS256"`, `{"iss":"key-a"}`, sharedSecret),
		"no claims":   sign(`{"alg":"HS256"}`, `7`, sharedSecret),
		"admin token": "wwat_" + strings.Repeat("A", 52),
	}
	verdicts := map[string]bool{}
	for name, token := range tokens {
		for where, req := range map[string]*adminv1.ExplainRequest{
			"given":  {Token: token},
			"header": {Headers: []*adminv1.ExplainField{{Name: "Authorization", Value: "Bearer " + token}, {Name: "x-tok", Value: token}, {Name: "x-watchword-token", Value: token}}},
			"query":  {Path: "/x?t=" + token},
			"form":   {Form: []*adminv1.ExplainField{{Name: "f", Value: token}}},
		} {
			req.Service = "b"
			resp := r.explain(req)
			verdicts[fmt.Sprintf("%t %s", resp.GetAllowed(), resp.GetReason())] = true
			text := protojson.Format(resp) + r.log.String()
			secrets := append(strings.Split(token, "."), token, sharedSecret, b64([]byte(sharedSecret)))
			for _, secret := range secrets {
				if len(secret) > 4 && strings.Contains(text, secret) {
					t.Errorf("%s in the %s: %q is shown in\n%s", name, where, secret, text)
				}
			}
		}
	}
	for _, want := range []string{"true ", "false signature_invalid", "false token_expired", "false token_malformed", "false credential_unknown"} {
		if !verdicts[want] {
			t.Errorf("no verdict %q among %v", want, verdicts)
		}
	}
}
