package access

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/watchword-mesh/watchword/controlplane/policy"
)

// state reads resources, and fails on what could not be stored.
func state(t testing.TB, texts ...string) policy.State {
	t.Helper()
	s := policy.State{}
	objects, faults := policy.Parse([]policy.Document{{Source: "a.yaml", Content: strings.Join(texts, "\n---\n")}})
	for _, o := range objects {
		s[o.Key] = o.Resource
	}
	if faults = append(faults, policy.Check(s)...); len(faults) > 0 {
		t.Fatalf("%+v", faults)
	}
	return s
}

const header = "apiVersion: watchword.dev/v1\n"

const mesh = header + `kind: Issuer
metadata: {name: watchword}
spec: {issuer: "http://sts.test", keySet: {builtin: {trustDomain: mesh.test}}}
---
` + header + `kind: Issuer
metadata: {name: corp}
spec: {issuer: "https://corp.test", keySet: {jwksUri: {uri: "https://corp.test/jwks"}}}
---
` + header + `kind: Service
metadata: {name: orders, labels: {team: a}}
spec: {routes: [{name: admin, paths: ["/admin"]}]}
---
` + header + `kind: Service
metadata: {name: stock}
spec: {routes: [{name: admin, paths: ["/admin"]}]}
---
` + header + `kind: Service
metadata: {name: deployer}
spec: {}
`

// binding is a RoleBinding in YAML.
func binding(name, spec string) string {
	return header + "kind: RoleBinding\nmetadata: {name: " + name + "}\nspec: " + spec + "\n"
}

func names(roles []Role) string {
	var out []string
	for _, r := range roles {
		out = append(out, r.String())
	}
	return strings.Join(out, "; ")
}

// Who is who, and has which roles: each kind of evidence, alone and together.
func TestResolve(t *testing.T) {
	s := state(t, mesh,
		binding("viewers", `{role: VIEWER, subjects: [{unixUser: alice}, {unixUser: "1001"}, {certificate: {uri: "spiffe://x/ci"}}]}`),
		binding("operators", `{role: OPERATOR, subjects: [{service: deployer}, {certificate: {dnsName: ci.test}}, {token: {issuer: corp, subjects: [alice]}}]}`),
		binding("officers", `{role: SECURITY_OFFICER, subjects: [{certificate: {email: sec@corp.test}}, {token: {issuer: corp, audiences: [cli], claims: [{path: [realm, roles], values: [sec, top]}, {path: [mfa], values: ["yes"]}]}}]}`),
		binding("owners", `{role: SERVICE_OWNER, services: [stock, orders], subjects: [{service: deployer}, {token: {issuer: corp, subjects: [bob], audiences: [cli]}}]}`),
		binding("owners2", `{role: SERVICE_OWNER, services: [orders], subjects: [{service: deployer}]}`))
	token := func(sub, aud string, claims map[string]any) *Token {
		return &Token{Issuer: "corp", Subject: sub, Audiences: []string{"other", aud}, Claims: claims}
	}
	officer := map[string]any{"realm": map[string]any{"roles": []any{7, "top"}}, "mfa": "yes"}
	for name, tt := range map[string]struct {
		ev          Evidence
		want, roles string
		err         error
	}{
		"nothing":        {Evidence{}, "", "", NoCredential},
		"root":           {Evidence{Unix: UnixPeer("root", 0, 1000)}, "unix:root", "OPERATOR; SECURITY_OFFICER", nil},
		"our own":        {Evidence{Unix: UnixPeer("watchword", 1000, 1000)}, "unix:watchword", "OPERATOR; SECURITY_OFFICER", nil},
		"user by name":   {Evidence{Unix: UnixPeer("alice", 1002, 1000)}, "unix:alice", "VIEWER", nil},
		"user by number": {Evidence{Unix: UnixPeer("", 1001, 1000)}, "unix:1001", "VIEWER", nil},
		"other user":     {Evidence{Unix: UnixPeer("mallory", 1003, 1000)}, "unix:mallory", "", nil},
		"user and token": {Evidence{Unix: UnixPeer("root", 0, 0), Token: token("bob", "cli", nil)}, "token:corp/bob", "SERVICE_OWNER of orders, stock", nil},

		"admin token":         {Evidence{AdminToken: true}, "admin-token", "OPERATOR; SECURITY_OFFICER", nil},
		"admin token at root": {Evidence{AdminToken: true, Unix: UnixPeer("alice", 1002, 1000)}, "admin-token", "OPERATOR; SECURITY_OFFICER", nil},

		"service":               {Evidence{Services: []string{"deployer"}}, "service:deployer", "OPERATOR; SERVICE_OWNER of orders, stock", nil},
		"service, both proofs":  {Evidence{Services: []string{"deployer", "deployer"}}, "service:deployer", "OPERATOR; SERVICE_OWNER of orders, stock", nil},
		"service without roles": {Evidence{Services: []string{"orders"}}, "service:orders", "", nil},

		"token by subject":     {Evidence{Token: token("alice", "watchword-admin", nil)}, "token:corp/alice", "OPERATOR", nil},
		"token by claims":      {Evidence{Token: token("carol", "cli", officer)}, "token:corp/carol", "SECURITY_OFFICER", nil},
		"one claim missing":    {Evidence{Token: token("carol", "cli", map[string]any{"mfa": "yes"})}, "token:corp/carol", "", nil},
		"claim of other form":  {Evidence{Token: token("carol", "cli", map[string]any{"realm": "roles", "mfa": []any{"yes"}})}, "token:corp/carol", "", nil},
		"claims, other aud":    {Evidence{Token: token("carol", "watchword-admin", officer)}, "token:corp/carol", "", nil},
		"subject, other aud":   {Evidence{Token: token("alice", "cli", nil)}, "token:corp/alice", "", nil},
		"aud for a service":    {Evidence{Token: token("alice", "orders", nil)}, "", "", WrongAudience},
		"token without sub":    {Evidence{Token: token("", "cli", officer)}, "", "", NoName},
		"sub with a line":      {Evidence{Token: token("a\nb", "cli", officer)}, "", "", NoName},
		"issuer that is other": {Evidence{Token: &Token{Issuer: "watchword", Subject: "alice", Audiences: []string{"watchword-admin"}}}, "", "", WrongAudience},

		"certificate, uri":     {Evidence{Certificate: &Certificate{URIs: []string{"spiffe://x/ci"}}}, "certificate:uri:spiffe://x/ci", "VIEWER", nil},
		"certificate, dns":     {Evidence{Certificate: &Certificate{DNSNames: []string{"CI.test"}}}, "certificate:dns:CI.test", "OPERATOR", nil},
		"certificate, email":   {Evidence{Certificate: &Certificate{Emails: []string{"sec@corp.test"}}}, "certificate:email:sec@corp.test", "SECURITY_OFFICER", nil},
		"certificate, all":     {Evidence{Certificate: &Certificate{URIs: []string{"spiffe://x/ci"}, Emails: []string{"sec@corp.test"}}}, "certificate:uri:spiffe://x/ci", "VIEWER; SECURITY_OFFICER", nil},
		"certificate, none":    {Evidence{Certificate: &Certificate{}}, "", "", NoName},
		"email of another":     {Evidence{Certificate: &Certificate{Emails: []string{"Sec@corp.test"}}}, "certificate:email:Sec@corp.test", "", nil},
		"wildcard certificate": {Evidence{Certificate: &Certificate{DNSNames: []string{"*.test"}}}, "certificate:dns:*.test", "", nil},

		"two services":            {Evidence{Services: []string{"deployer", "orders"}}, "", "", Disagreement},
		"admin token and token":   {Evidence{AdminToken: true, Token: token("alice", "cli", nil)}, "", "", Disagreement},
		"certificate and token":   {Evidence{Certificate: &Certificate{URIs: []string{"a:b"}}, Token: token("alice", "cli", nil)}, "", "", Disagreement},
		"service and certificate": {Evidence{Services: []string{"deployer"}, Certificate: &Certificate{URIs: []string{"a:b"}}}, "", "", Disagreement},
		"bad token beside good":   {Evidence{AdminToken: true, Token: token("alice", "orders", nil)}, "", "", WrongAudience},
	} {
		tt.ev.Source = "10.0.0.1"
		a, err := Resolve(s, tt.ev)
		if !errors.Is(err, tt.err) || a.Name != tt.want || names(a.Roles) != tt.roles || a.Source != "10.0.0.1" {
			t.Errorf("%s: Resolve(%+v) = %q with %q from %s, %v; want %q with %q, %v", name, tt.ev, a.Name, names(a.Roles), a.Source, err, tt.want, tt.roles, tt.err)
		}
	}
}

// A role that is taken away while a call goes on is gone at its next step, and who
// needs none keeps all.
func TestAt(t *testing.T) {
	with := state(t, mesh, binding("b", `{role: OPERATOR, subjects: [{service: deployer}]}`))
	without := state(t, mesh)
	a, err := Resolve(with, Evidence{Services: []string{"deployer"}})
	if err != nil || !a.Has(Operator) {
		t.Fatalf("Resolve = %+v, %v", a, err)
	}
	if got := a.At(without); len(got.Roles) > 0 || got.Name != a.Name {
		t.Errorf("without the binding: %+v; want no role", got)
	}
	if got := a.At(without).At(with); !got.Has(Operator) {
		t.Errorf("with the binding again: %+v; want the role", got)
	}
	root, err := Resolve(with, Evidence{Unix: UnixPeer("root", 0, 0)})
	if got := root.At(policy.State{}); err != nil || names(got.Roles) != names(AllRoles()) {
		t.Errorf("root in an empty state: %+v, %v", got, err)
	}
	if got := (Actor{}).At(with); got.Name != "" || len(got.Roles) > 0 {
		t.Errorf("nobody is %+v", got)
	}
}

// The names of a certificate are all of its subject alternative names, and not its
// common name.
func TestCertificateOf(t *testing.T) {
	uri, err := url.Parse("spiffe://x/ci")
	if err != nil {
		t.Fatal(err)
	}
	got := CertificateOf(&x509.Certificate{Subject: pkix.Name{CommonName: "root"}, URIs: []*url.URL{uri}, DNSNames: []string{"ci.test"}, EmailAddresses: []string{"a@b"}})
	want := &Certificate{URIs: []string{"spiffe://x/ci"}, DNSNames: []string{"ci.test"}, Emails: []string{"a@b"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("CertificateOf -want +got:\n%s", diff)
	}
}

// Tokens of the issuers that bindings are about are verified, and no others'.
func TestTokenIssuers(t *testing.T) {
	other := header + `kind: Issuer
metadata: {name: alpha}
spec: {issuer: "https://alpha.test", keySet: {jwksUri: {uri: "https://alpha.test/jwks"}}}
`
	s := state(t, mesh, other,
		binding("b", `{role: VIEWER, subjects: [{unixUser: a}, {token: {issuer: corp, subjects: [a]}}, {token: {issuer: corp, subjects: [b]}}]}`),
		binding("c", `{role: VIEWER, subjects: [{token: {issuer: alpha, subjects: [a]}}]}`))
	if diff := cmp.Diff([]string{"alpha", "corp"}, TokenIssuers(s)); diff != "" {
		t.Errorf("TokenIssuers -want +got:\n%s", diff)
	}
	if got := TokenIssuers(state(t, mesh)); len(got) > 0 {
		t.Errorf("TokenIssuers without bindings = %v", got)
	}
}

// There is one bearer token or none; anything else is no credential.
func TestBearer(t *testing.T) {
	for _, tt := range []struct {
		headers []string
		want    string
		err     error
	}{
		{nil, "", nil},
		{[]string{"Bearer a.b"}, "a.b", nil},
		{[]string{"bearer a"}, "a", nil},
		{[]string{""}, "", BadCredential},
		{[]string{"Bearer"}, "", BadCredential},
		{[]string{"Bearer "}, "", BadCredential},
		{[]string{"Bearer  a"}, "", BadCredential},
		{[]string{"Bearer a b"}, "", BadCredential},
		{[]string{"Basic a"}, "", BadCredential},
		{[]string{"Bearer a", "Bearer a"}, "", BadCredential},
	} {
		if got, err := Bearer(tt.headers); got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("Bearer(%q) = %q, %v; want %q, %v", tt.headers, got, err, tt.want, tt.err)
		}
	}
}

// Whatever is in the header: what is taken for a token has no blank, and stands in it.
func FuzzBearer(f *testing.F) {
	f.Add("Bearer a.b.c")
	f.Add("bearer  x")
	f.Fuzz(func(t *testing.T, header string) {
		token, err := Bearer([]string{header})
		if (err == nil) == (token == "") || strings.ContainsAny(token, " \t") || !strings.HasSuffix(header, token) {
			t.Errorf("Bearer(%q) = %q, %v", header, token, err)
		}
	})
}
