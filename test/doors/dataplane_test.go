package doors

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	extension "github.com/envoyproxy/go-control-plane/envoy/service/extension/v3"
	logsv1 "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	otlplogs "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcev1 "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/envoy"
	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// planeTable says what comes of each call at the door of data planes, about the
// service `target`, by the certificate that it comes with.
const planeTable = `
call      | none            | foreign | of people | of a replica | expired | revoked         | never enrolled  | own            | another's
Enrol     | allowed         | no TLS  | no TLS    | no TLS       | no TLS  | allowed         | allowed         | allowed        | allowed
Guess     | denied          | no TLS  | no TLS    | no TLS       | no TLS  | denied          | denied          | denied         | denied
Renew     | unauthenticated | no TLS  | no TLS    | no TLS       | no TLS  | denied          | denied          | renewed target | renewed other
ADS       | unauthenticated | no TLS  | no TLS    | no TLS       | no TLS  | denied          | denied          | gets target    | gets other
ECDS      | unauthenticated | no TLS  | no TLS    | no TLS       | no TLS  | denied          | denied          | gets target    | gets other
OTLP logs | unauthenticated | no TLS  | no TLS    | no TLS       | no TLS  | denied          | denied          | allowed        | denied
old ADS   | unauthenticated | no TLS  | no TLS    | no TLS       | no TLS  | denied          | denied          | not served     | not served
old ECDS  | unauthenticated | no TLS  | no TLS    | no TLS       | no TLS  | denied          | denied          | not served     | not served
one ECDS  | unauthenticated | no TLS  | no TLS    | no TLS       | no TLS  | denied          | denied          | not served     | not served
admin API | not served      | no TLS  | no TLS    | no TLS       | no TLS  | not served      | not served      | not served     | not served
`

// planeCalls are its rows. What one returns is the outcome if there is no error.
var planeCalls = map[string]func(*testing.T, *mesh, context.Context, *grpc.ClientConn) (string, error){
	"Enrol": enrolsTarget, // the join token is what counts, and the certificate nothing
	"Guess": enrolsWrongly,
	"Renew": renews, "ADS": deltaADS, "ECDS": deltaECDS, "OTLP logs": reports,
	"old ADS": oldADS, "old ECDS": oldECDS, "one ECDS": unaryECDS, "admin API": adminAtPlanes,
}

// cells splits a line of the table.
func cells(line string) []string {
	var out []string
	for c := range strings.SplitSeq(line, "|") {
		out = append(out, strings.TrimSpace(c))
	}
	return out
}

// Every call at the door of data planes by everybody who may come to it.
func TestDataPlaneDoors(t *testing.T) {
	t.Parallel()
	m := startMesh(t, resource("Service", "target", "{}")+resource("Service", "other", "{}"))
	own := m.openVault(t).authority(t)
	revoked, key := m.enrol(t, "target"), newKey(t)
	m.revoke(t, revoked)
	certificates := map[string]*tls.Certificate{
		"none": nil, "foreign": newAuthority(t, "foreign").instance(t, nameOf(t, own, "target", key), key),
		"of people": m.people.instance(t, nameOf(t, own, "target", key), key), "of a replica": replica(t, own),
		"expired": issued(t, own, "target", time.Now().Add(-2*time.Hour)), "revoked": certificateOf(revoked),
		"never enrolled": issued(t, own, "target", time.Now()), "own": certificateOf(m.enrol(t, "target")), "another's": certificateOf(m.enrol(t, "other")),
	}
	lines := strings.Split(strings.TrimSpace(planeTable), "\n")
	if len(lines)-1 != len(planeCalls) {
		t.Errorf("the table has %d rows, there are %d calls", len(lines)-1, len(planeCalls))
	}
	for i, who := range cells(lines[0]) {
		if i == 0 {
			continue
		}
		cert, there := certificates[who]
		if !there {
			t.Fatalf("there is no certificate for the column %q", who)
		}
		conn := m.dial(t, m.Config.XDSListen, cert)
		for _, line := range lines[1:] {
			row := cells(line)
			got, err := planeOutcome(planeCalls[row[0]](t, m, patient(t), conn))
			if got != row[i] {
				t.Errorf("%s with the certificate %q: got %s, want %s\n%v", row[0], who, got, row[i], err)
			}
		}
		wantHandshake(t, m, who, cert, cells(lines[1])[i] != "no TLS")
	}
}

func planeOutcome(got string, err error) (string, error) {
	switch code := status.Code(err); code {
	case codes.OK:
		return got, nil
	case codes.Unimplemented, codes.FailedPrecondition: // the latter says what is served instead
		return "not served", err
	default:
		if named := outcomes[code]; named != "" {
			return named, err
		}
		return code.String(), err
	}
}

// wantHandshake looks at TLS alone, where a client that is refused sees why.
func wantHandshake(t *testing.T, m *mesh, who string, cert *tls.Certificate, taken bool) {
	t.Helper()
	for _, address := range []string{m.Config.XDSListen, m.Config.AdminListen} {
		if who == "of people" && address == m.Config.AdminListen {
			continue // that is the door for them
		}
		c := clientTLS(m.CA(t), cert)
		c.NextProtos = []string{"h2"}
		conn, err := tls.Dial("tcp", address, c)
		if err == nil {
			_ = conn.SetReadDeadline(time.Now().Add(meshtest.Patience))
			_, err = conn.Read(make([]byte, 1)) // TLS 1.3: the server's verdict comes after the client's last word
			_ = conn.Close()
		}
		if refused := err != nil && strings.Contains(err.Error(), "remote error: tls: "); refused == taken {
			t.Errorf("a handshake at %s with the certificate %q: %v; want it taken: %v", address, who, err, taken)
		}
	}
}

// request is that of a certificate for a key.
func request(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// enrolRequest is what `watchword envoy` would send, with any text for a token.
func enrolRequest(t *testing.T, service, token string, key crypto.Signer) *enrolmentv1.EnrolRequest {
	t.Helper()
	return &enrolmentv1.EnrolRequest{Service: service, CertificateRequest: request(t, key), Credential: &enrolmentv1.EnrolRequest_JoinToken{JoinToken: token}}
}

func enrolsTarget(t *testing.T, m *mesh, ctx context.Context, conn *grpc.ClientConn) (string, error) {
	_, err := enrolmentv1.NewEnrolmentServiceClient(conn).Enrol(ctx, enrolRequest(t, "target", m.newJoinToken(t, "target"), newKey(t)))
	return "allowed", err
}

func enrolsWrongly(t *testing.T, m *mesh, ctx context.Context, conn *grpc.ClientConn) (string, error) {
	_, err := enrolmentv1.NewEnrolmentServiceClient(conn).Enrol(ctx, enrolRequest(t, "target", wrongSecret(m.newJoinToken(t, "target")), newKey(t)))
	return "allowed", err
}

// wrongSecret is a join token with another secret.
func wrongSecret(token string) string {
	parts := strings.Split(token, ".")
	swapped := []byte(parts[1])
	slices.Reverse(swapped)
	parts[1] = string(swapped)
	return strings.Join(parts, ".")
}

func renews(_ *testing.T, _ *mesh, ctx context.Context, conn *grpc.ClientConn) (string, error) {
	resp, err := enrolmentv1.NewEnrolmentServiceClient(conn).Renew(ctx, &enrolmentv1.RenewRequest{})
	return "renewed " + resp.GetIdentity().GetService(), err
}

// asks for the filters of some services, and says whose it gets: the answer has all
// that the stream may have.
func asks(g grpc.BidiStreamingClient[discovery.DeltaDiscoveryRequest, discovery.DeltaDiscoveryResponse], err error, services ...string) (string, error) {
	if err != nil {
		return "", err
	}
	req := &discovery.DeltaDiscoveryRequest{TypeUrl: filterType}
	for _, s := range services {
		req.ResourceNamesSubscribe = append(req.ResourceNamesSubscribe, envoy.InboundName(s))
	}
	_ = g.Send(req) // what became of it, Recv says
	r, err := g.Recv()
	got := "gets"
	for _, one := range r.GetResources() {
		got += " " + strings.TrimPrefix(one.GetName(), envoy.InboundName(""))
	}
	return got, err
}

func deltaADS(_ *testing.T, _ *mesh, ctx context.Context, conn *grpc.ClientConn) (string, error) {
	g, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	return asks(g, err, "target", "other")
}

func deltaECDS(_ *testing.T, _ *mesh, ctx context.Context, conn *grpc.ClientConn) (string, error) {
	g, err := extension.NewExtensionConfigDiscoveryServiceClient(conn).DeltaExtensionConfigs(ctx)
	return asks(g, err, "target", "other")
}

// reports is a report of refusals that names the service.
func reports(_ *testing.T, _ *mesh, ctx context.Context, conn *grpc.ClientConn) (string, error) {
	attribute := func(name, value string) *commonv1.KeyValue {
		return &commonv1.KeyValue{Key: name, Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: value}}}
	}
	_, err := logsv1.NewLogsServiceClient(conn).Export(ctx, &logsv1.ExportLogsServiceRequest{ResourceLogs: []*otlplogs.ResourceLogs{{
		Resource: &resourcev1.Resource{Attributes: []*commonv1.KeyValue{attribute(envoy.SenderLog, envoy.RefusalLog), attribute(envoy.SenderService, "target")}},
	}}})
	return "allowed", err
}

func oldADS(_ *testing.T, _ *mesh, ctx context.Context, conn *grpc.ClientConn) (string, error) {
	g, err := discovery.NewAggregatedDiscoveryServiceClient(conn).StreamAggregatedResources(ctx)
	if err == nil {
		_, err = g.Recv()
	}
	return "allowed", err
}

func oldECDS(_ *testing.T, _ *mesh, ctx context.Context, conn *grpc.ClientConn) (string, error) {
	g, err := extension.NewExtensionConfigDiscoveryServiceClient(conn).StreamExtensionConfigs(ctx)
	if err == nil {
		_, err = g.Recv()
	}
	return "allowed", err
}

func unaryECDS(_ *testing.T, _ *mesh, ctx context.Context, conn *grpc.ClientConn) (string, error) {
	_, err := extension.NewExtensionConfigDiscoveryServiceClient(conn).FetchExtensionConfigs(ctx, &discovery.DiscoveryRequest{TypeUrl: filterType})
	return "allowed", err
}

// adminAtPlanes: the admin API is not at this door.
func adminAtPlanes(_ *testing.T, _ *mesh, ctx context.Context, conn *grpc.ClientConn) (string, error) {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/watchword.admin.v1.AdminService/List")
	if err == nil {
		if err = stream.CloseSend(); err == nil {
			err = stream.RecvMsg(&discovery.DiscoveryResponse{})
		}
	}
	if err == io.EOF {
		err = nil
	}
	return "allowed", err
}
