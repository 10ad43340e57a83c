package doors

import (
	"net/http"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/envoy"
	"github.com/watchword-mesh/watchword/dataplane/enrolment"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// soon is how long the end of a stream may take, on a busy machine.
const soon = 5 * time.Second

// plane is an instance with all that it has open.
type plane struct {
	id          *enrolment.Identity
	joined      string // the join token that it has used
	ads, admin  *grpc.ClientConn
	stream, own *stream // ADS and ECDS
	version     string
	accessToken string
}

func openPlane(t *testing.T, m *mesh, service string) *plane {
	t.Helper()
	p := &plane{joined: m.newJoinToken(t, service)}
	p.id = meshtest.Enrol(t, m.Config.XDSListen, service, p.joined)
	p.ads, p.admin = m.dial(t, m.Config.XDSListen, certificateOf(p.id)), m.dial(t, m.Config.AdminListen, certificateOf(p.id))
	p.stream = openStream(t, p.ads, service+"-node")
	p.own = openECDS(t, p.ads, &core.Node{Id: service + "-node"})
	p.version = p.stream.get(t, service)
	p.own.get(t, service)
	p.accessToken = m.ownToken(t, p.id, "watchword-admin")
	return p
}

// self asks the admin API who one is.
func self(t *testing.T, conn *grpc.ClientConn, token string) codes.Code {
	t.Helper()
	ctx := patient(t)
	if token != "" {
		ctx = meshtest.BearerToken(token).Context(ctx)
	}
	_, err := adminv1.NewAdminServiceClient(conn).GetSelf(ctx, &adminv1.GetSelfRequest{})
	return status.Code(err)
}

// An instance that is revoked loses all at once: its streams, its certificate at
// every door, also on connections that are open, its tokens and the way to new ones.
// Others, of the same service too, notice nothing.
func TestRevocationEndsStreams(t *testing.T) {
	t.Parallel()
	m := startMesh(t, resource("Service", "target", "{}")+resource("Service", "other", "{}")+
		resource("RoleBinding", "viewers", "role: VIEWER", "subjects: [{service: target}, {service: other}]"))
	revoked, neighbour, other := openPlane(t, m, "target"), openPlane(t, m, "target"), openPlane(t, m, "other")
	stranger := m.dial(t, m.Config.AdminListen, nil)
	wantAll(t, m, stranger, codes.OK, revoked, neighbour, other)

	began := time.Now()
	m.revoke(t, revoked.id)
	took := time.Since(began)
	for what, s := range map[string]*stream{"ADS": revoked.stream, "ECDS": revoked.own} {
		wantEnd(t, what, s)
	}
	t.Logf("RevokeInstances took %s; all streams had ended %s after it was called", took, time.Since(began))
	wantShutOut(t, m, stranger, revoked)
	wantAll(t, m, stranger, codes.OK, neighbour, other)

	m.Apply(t, resource("AuthorizationPolicy", "p", "target: {services: [target, other]}", "action: DENY", "rules: [{to: {paths: [/no]}}]"))
	for _, p := range []*plane{neighbour, other} {
		p.version = p.stream.waitOther(t, envoy.InboundName(p.id.Service()), p.version) // over the same stream
	}
	renewed := certificateOf(neighbour.id)
	if _, err := enrolmentv1.NewEnrolmentServiceClient(m.dial(t, m.Config.XDSListen, renewed)).Renew(patient(t), &enrolmentv1.RenewRequest{}); err != nil {
		t.Errorf("the neighbour can't renew: %v", err)
	}
	wantAllRevoked(t, m, stranger, neighbour, other)
}

// wantAllRevoked revokes a whole service, and its join tokens with it.
func wantAllRevoked(t *testing.T, m *mesh, stranger *grpc.ClientConn, last, other *plane) {
	t.Helper()
	unused := m.newJoinToken(t, "target")
	if _, err := m.root.RevokeInstances(t.Context(), &adminv1.RevokeInstancesRequest{Service: "target"}); err != nil {
		t.Fatal(err)
	}
	wantEnd(t, "ADS of the last one", last.stream)
	wantShutOut(t, m, stranger, last)
	conn := m.dial(t, m.Config.XDSListen, nil)
	if _, err := enrolmentv1.NewEnrolmentServiceClient(conn).Enrol(patient(t), enrolRequest(t, "target", unused, newKey(t))); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a join token from before all were revoked: %v, want PermissionDenied", err)
	}
	wantAll(t, m, stranger, codes.OK, other)
	m.enrol(t, "target") // the service itself is not locked out
}

// wantAll wants the certificate on the open connection, and the token, to count or
// not to count at the admin API.
func wantAll(t *testing.T, m *mesh, stranger *grpc.ClientConn, want codes.Code, planes ...*plane) {
	t.Helper()
	for _, p := range planes {
		if got := self(t, p.admin, ""); got != want {
			t.Errorf("%s at the admin API by its certificate: got %s, want %s", p.id, got, want)
		}
		if got := self(t, stranger, p.accessToken); got != want {
			t.Errorf("%s at the admin API by its token: got %s, want %s", p.id, got, want)
		}
	}
}

func wantEnd(t *testing.T, what string, s *stream) {
	t.Helper()
	select {
	case <-s.ended:
		if status.Code(s.err) != codes.PermissionDenied {
			t.Errorf("%s ended with %v, want PermissionDenied", what, s.err)
		}
	case <-time.After(soon):
		t.Errorf("%s goes on %s after the instance was revoked", what, soon)
	}
}

// wantShutOut tries all ways back in, over open connections and new ones.
func wantShutOut(t *testing.T, m *mesh, stranger *grpc.ClientConn, p *plane) {
	t.Helper()
	wantAll(t, m, stranger, codes.Unauthenticated, p)
	for what, conn := range map[string]*grpc.ClientConn{"the open connection": p.ads, "a new connection": m.dial(t, m.Config.XDSListen, certificateOf(p.id))} {
		if _, err := enrolmentv1.NewEnrolmentServiceClient(conn).Renew(patient(t), &enrolmentv1.RenewRequest{}); status.Code(err) != codes.PermissionDenied {
			t.Errorf("renewing over %s: %v, want PermissionDenied", what, err)
		}
		s := openStream(t, conn, "again")
		s.subscribe(filterType, envoy.InboundName(p.id.Service()))
		wantEnd(t, "a stream over "+what, s)
		if len(s.received()) > 0 {
			t.Errorf("a stream over %s got something", what)
		}
	}
	if code, body := m.askToken(t, m.assertion(t, p.id), "watchword-admin"); code != http.StatusUnauthorized {
		t.Errorf("a token by private_key_jwt: got %d %s, want 401", code, body)
	}
	_, key := p.id.Certificate()
	again := enrolRequest(t, p.id.Service(), p.joined, key)
	byKey := enrolRequest(t, p.id.Service(), "", key)
	byKey.Credential = &enrolmentv1.EnrolRequest_KeyAssertion{KeyAssertion: m.assertion(t, p.id)}
	for what, req := range map[string]*enrolmentv1.EnrolRequest{"its join token": again, "its key": byKey} {
		if _, err := enrolmentv1.NewEnrolmentServiceClient(p.ads).Enrol(patient(t), req); status.Code(err) != codes.PermissionDenied {
			t.Errorf("enrolling again by %s: %v, want PermissionDenied", what, err)
		}
	}
}
