package doors

import (
	"crypto/tls"
	"net/http"
	"testing"
	"time"

	"google.golang.org/grpc"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// cast is the mesh that the tables play in: `target` is what calls are about.
func cast(corp *meshtest.Signer) string {
	binding := func(name, role, subject string) string {
		return resource("RoleBinding", name, "role: "+role, "subjects: [{"+subject+"}]")
	}
	owner := func(name, service, subject string) string {
		return resource("RoleBinding", name, "role: SERVICE_OWNER", "services: ["+service+"]", "subjects: [{"+subject+"}]")
	}
	return resource("Service", "target", "calls: [{service: other}]") + resource("Service", "other", "{}") + resource("Service", "plain", "calls: [{service: target}]") +
		resource("Service", "deployer", "calls: [{service: target}]") +
		resource("Issuer", "corp", "issuer: https://corp.example", "keySet: {jwks: '"+meshtest.JWKS(corp)+"'}") +
		binding("viewers", "VIEWER", "certificate: {dnsName: viewer.test}") +
		binding("operators", "OPERATOR", "certificate: {dnsName: operator.test}") +
		binding("officers", "SECURITY_OFFICER", "certificate: {dnsName: officer.test}") +
		owner("owners", "target", "certificate: {dnsName: owner.test}") +
		owner("others", "other", "service: other") +
		binding("deployers", "OPERATOR", "service: deployer") +
		binding("corp-viewers", "VIEWER", "token: {issuer: corp, subjects: [alice]}")
}

// actor is somebody who comes to the admin API with something.
type actor struct {
	name string
	// is the role that it has: a column of the table; or "norole", or one of the
	// outcomes "unauthenticated" and "no TLS", which are those of every call.
	is    string
	cert  *tls.Certificate
	token func() string

	conn *grpc.ClientConn
	http *http.Client
}

func actors(t *testing.T, m *mesh, corp *meshtest.Signer) []*actor {
	t.Helper()
	v := m.openVault(t)
	own, foreign := v.authority(t), newAuthority(t, "foreign")
	revoked, plain, other, deployer := m.enrol(t, "deployer"), m.enrol(t, "plain"), m.enrol(t, "other"), m.enrol(t, "deployer")
	m.revoke(t, revoked)
	key := newKey(t)
	oldAdmin := replaceAdminToken(t, m)
	impostor := meshtest.NewSigner(t, "ES256")
	impostor.KID = corp.KID
	text := func(s string) func() string { return func() string { return s } }
	alice := meshtest.NewClaims("https://corp.example", "alice", "watchword-admin")
	past := time.Now().Add(-10 * time.Minute).Unix()
	admin := m.tokenFor(t, "deployer", "watchword-admin")

	list := []*actor{
		{name: "no credential", is: "unauthenticated"},
		{name: "viewer", is: "viewer", cert: m.people.person(t, "viewer.test")},
		{name: "operator", is: "operator", cert: m.people.person(t, "operator.test")},
		{name: "officer", is: "officer", cert: m.people.person(t, "officer.test")},
		{name: "owner of the service", is: "owner", cert: m.people.person(t, "owner.test")},
		{name: "owner of another service, by the certificate of its instance", is: "other", cert: certificateOf(other)},
		{name: "instance with a role", is: "operator", cert: certificateOf(deployer)},
		{name: "instance without a role", is: "norole", cert: certificateOf(plain)},
		{name: "person without a role", is: "norole", cert: m.people.person(t, "nobody.test")},
		{name: "instance by the CA of people", is: "norole", cert: m.people.instance(t, nameOf(t, own, "deployer", key), key)},
		{name: "foreign certificate", is: "no TLS", cert: foreign.person(t, "officer.test")},
		{name: "foreign certificate of an instance", is: "no TLS", cert: foreign.instance(t, nameOf(t, own, "deployer", key), key)},
		{name: "expired certificate", is: "no TLS", cert: issued(t, own, "deployer", time.Now().Add(-2*time.Hour))},
		{name: "certificate of a replica", is: "no TLS", cert: replica(t, own)},
		{name: "revoked instance", is: "unauthenticated", cert: certificateOf(revoked)},
		{name: "instance that never enrolled", is: "unauthenticated", cert: issued(t, own, "deployer", time.Now())},
		{name: "admin token", is: "all", token: func() string { return m.AdminToken(t) }},
		{name: "revoked admin token", is: "unauthenticated", token: text(oldAdmin)},
		{name: "admin token and another's certificate", is: "unauthenticated", cert: m.people.person(t, "officer.test"), token: func() string { return m.AdminToken(t) }},
		{name: "token of a service with a role", is: "operator", token: text(admin)},
		{name: "the same beside its certificate", is: "operator", cert: certificateOf(deployer), token: text(admin)},
		{name: "the same beside another's certificate", is: "unauthenticated", cert: certificateOf(plain), token: text(admin)},
		{name: "token of a service with a role, for another audience", is: "unauthenticated", token: text(m.tokenFor(t, "deployer", "target"))},
		{name: "token of the viewer's issuer", is: "viewer", token: text(corp.Token(t, alice))},
		{name: "the same of another subject", is: "norole", token: text(corp.Token(t, alice.With("sub", "bob")))},
		{name: "the same for another audience", is: "unauthenticated", token: text(corp.Token(t, alice.With("aud", "target")))},
		{name: "the same, expired", is: "unauthenticated", token: text(corp.Token(t, alice.With("exp", past).With("iat", past-300)))},
		{name: "the same without an end", is: "unauthenticated", token: text(corp.Token(t, alice.With("exp", nil)))},
		{name: "the same by another key", is: "unauthenticated", token: text(impostor.Token(t, alice))},
		{name: "the same by HS256 with the public key", is: "unauthenticated", token: text(meshtest.SignHS256([]byte(corp.PEM(t)), corp.KID, alice))},
		{name: "words for a token", is: "unauthenticated", token: text("let-me-in")},
	}
	for _, a := range list {
		a.connect(t, m)
	}
	return list
}

func (a *actor) connect(t *testing.T, m *mesh) {
	t.Helper()
	a.conn = m.dial(t, m.Config.AdminListen, a.cert)
	transport := &http.Transport{TLSClientConfig: clientTLS(m.CA(t), a.cert), ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	a.http = &http.Client{Transport: transport, Timeout: meshtest.Patience}
}

// replaceAdminToken ends the admin token and returns it.
func replaceAdminToken(t *testing.T, m *mesh) string {
	t.Helper()
	old := m.AdminToken(t)
	if _, err := m.root.RevokeAdminToken(t.Context(), &adminv1.RevokeAdminTokenRequest{}); err != nil {
		t.Fatal(err)
	}
	newAdminToken(t, m)
	return old
}

func newAdminToken(t *testing.T, m *mesh) {
	t.Helper()
	if _, err := m.root.CreateAdminToken(t.Context(), &adminv1.CreateAdminTokenRequest{}); err != nil {
		t.Fatal(err)
	}
}

// tokenFor is a token that root gets for a service.
func (m *mesh) tokenFor(t *testing.T, service, audience string) string {
	t.Helper()
	resp, err := m.root.IssueToken(t.Context(), &adminv1.IssueTokenRequest{Service: service, Audience: audience})
	if err != nil {
		t.Fatalf("a token of %s for %s: %v", service, audience, err)
	}
	return resp.GetAccessToken()
}
