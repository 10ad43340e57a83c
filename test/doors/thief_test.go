package doors

import (
	"bytes"
	"encoding/base64"
	"net/http"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	xdsresource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/watchword-mesh/watchword/controlplane/envoy"
	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// loot is what only data planes of `victim` may see, by what it is.
var loot = map[string]string{
	"its shared secret": base64.RawURLEncoding.EncodeToString([]byte("the-shared-secret-of-32-bytes-it-is!")), "its path": "/vault/door", "its audience": "victim-audience", "its consumer": "vaultkeeper",
}

func thievesWorld(path string) string {
	return resource("Service", "thief", "inbound: {port: 20001, localAddress: \"127.0.0.1:20002\"}") +
		resource("Service", "victim", "audiences: [victim-audience]", "routes: [{name: vaultroute, paths: [/vault/door, "+path+"]}]",
			"inbound: {port: 20003, localAddress: \"127.0.0.1:20004\"}") +
		resource("Consumer", "vaultkeeper", "username: vaultkeeper", "credentials: [{key: keeper, keySet: {secret: {keys: [{secret: the-shared-secret-of-32-bytes-it-is!}]}}}]") +
		resource("AuthenticationPolicy", "victims", "target: {services: [victim], routes: [vaultroute]}", "jwtRules: [{consumers: {names: [vaultkeeper]}, audiences: [victim-audience]}]") +
		resource("AuthorizationPolicy", "victims", "target: {services: [victim], routes: [vaultroute]}", "action: ALLOW", "rules: [{from: {consumers: [vaultkeeper]}}]")
}

// types are all that a data plane may ask for.
var types = []string{
	filterType, xdsresource.ListenerType, xdsresource.ClusterType, xdsresource.RouteType, xdsresource.EndpointType,
	xdsresource.SecretType, xdsresource.RuntimeType, xdsresource.ScopedRouteType, xdsresource.VirtualHostType,
}

// victimsNames are its resources, and names that might be taken for all.
var victimsNames = []string{
	envoy.InboundName("victim"), envoy.RevokedName("victim"), envoy.ListenerName("victim"), envoy.ClusterName("victim"),
	"victim", "mesh.inbound/*", "mesh.inbound/", "mesh.inbound/thief/../victim", "*",
}

// tricks are ways to ask for what is another's, by what they try.
var tricks = map[string]struct {
	node     *core.Node
	requests func(typeURL string) *discovery.DeltaDiscoveryRequest
}{
	"names":       {&core.Node{Id: "t"}, byNames},
	"cluster":     {&core.Node{Id: "t", Cluster: "victim"}, byNames},
	"metadata":    {&core.Node{Id: "t", Metadata: belongs("victim")}, byNames},
	"node's name": {&core.Node{Id: "victim-node", Cluster: "victim", Metadata: belongs("victim")}, byNames},
	"wildcard": {&core.Node{Id: "t", Cluster: "victim"}, func(typeURL string) *discovery.DeltaDiscoveryRequest {
		return &discovery.DeltaDiscoveryRequest{TypeUrl: typeURL} // no names: all that there are
	}},
	"versions that it claims to hold": {&core.Node{Id: "t", Metadata: belongs("victim")}, func(typeURL string) *discovery.DeltaDiscoveryRequest {
		r := byNames(typeURL)
		r.InitialResourceVersions = map[string]string{}
		for _, n := range victimsNames {
			r.InitialResourceVersions[n] = "an old one"
		}
		return r
	}},
	"locators": {&core.Node{Id: "t"}, func(typeURL string) *discovery.DeltaDiscoveryRequest {
		r := byNames(typeURL)
		for _, n := range victimsNames {
			r.ResourceLocatorsSubscribe = append(r.ResourceLocatorsSubscribe, &discovery.ResourceLocator{Name: n, DynamicParameters: map[string]string{"watchword.service": "victim"}})
		}
		return r
	}},
}

func byNames(typeURL string) *discovery.DeltaDiscoveryRequest {
	return &discovery.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: victimsNames}
}

func belongs(service string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{envoy.ServiceMetadata: structpb.NewStringValue(service)}}
}

// A stolen certificate of one service is of no use against another: whatever it
// says of itself and asks for, nothing that is the other's comes over its streams,
// neither at once nor when that changes.
func TestStolenCertificate(t *testing.T) {
	t.Parallel()
	m := startMesh(t, thievesWorld("/first"))
	victim, thief := m.enrol(t, "victim"), m.enrol(t, "thief")
	own := openStream(t, m.dial(t, m.Config.XDSListen, certificateOf(victim)), "victim-node")
	version := own.get(t, "victim")
	conn := m.dial(t, m.Config.XDSListen, certificateOf(thief))
	streams := map[string]*stream{"nothing, beside the others": openStream(t, conn, "thief-node")}
	for what, trick := range tricks {
		streams[what+", ADS"] = openStreamAs(t, conn, trick.node)
		streams[what+", ECDS"] = openECDS(t, conn, &core.Node{Id: trick.node.GetId(), Cluster: trick.node.GetCluster(), Metadata: trick.node.GetMetadata()})
		for _, typeURL := range types {
			streams[what+", ADS"].send(trick.requests(typeURL))
		}
		streams[what+", ECDS"].send(trick.requests(filterType))
	}
	versions := map[string]string{}
	for what, s := range streams {
		versions[what] = s.get(t, "thief") // what was asked before is answered
	}
	m.Apply(t, thievesWorld("/second")+resource("AuthorizationPolicy", "thiefs", "target: {services: [thief]}", "action: DENY", "rules: [{to: {paths: [/no]}}]"))
	own.waitOther(t, envoy.InboundName("victim"), version)
	for what, s := range streams {
		s.waitOther(t, envoy.InboundName("thief"), versions[what])
		for name, text := range loot {
			if bytes.Contains(s.received(), []byte(text)) {
				t.Errorf("asking by %s: it got %s", what, name)
			}
		}
	}
	for name, text := range loot {
		if !bytes.Contains(own.received(), []byte(text)) {
			t.Errorf("%s does not come over the victim's own stream either: this test looks for the wrong thing", name)
		}
	}
	wantNoWords(t, m, thief)
}

// wantNoWords: its key does not sign for the other service either.
func wantNoWords(t *testing.T, m *mesh, thief credentialOf) {
	t.Helper()
	key := signerOf(thief)
	claims := meshtest.NewClaims("victim", "victim", m.IssuerURL()).With("jti", m.name("jti"))
	if code, body := m.askToken(t, key.Token(t, claims), "thief"); code != http.StatusUnauthorized {
		t.Errorf("a client assertion for another service: got %d %s, want 401", code, body)
	}
	conn := m.dial(t, m.Config.XDSListen, nil)
	for _, service := range []string{"victim", "thief"} {
		req := &enrolmentv1.EnrolRequest{Service: service, CertificateRequest: request(t, newKey(t)),
			Credential: &enrolmentv1.EnrolRequest_KeyAssertion{KeyAssertion: key.Token(t, claims.With("jti", m.name("jti")))}}
		if _, err := enrolmentv1.NewEnrolmentServiceClient(conn).Enrol(patient(t), req); status.Code(err) != codes.PermissionDenied {
			t.Errorf("enrolling %s by an assertion for another service: %v, want PermissionDenied", service, err)
		}
	}
}
