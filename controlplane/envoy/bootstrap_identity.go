package envoy

import (
	"errors"
	"fmt"
	"path"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/watchword-mesh/watchword/internal/identity"
)

// Secrets that an Envoy gets over SDS.
const (
	// IdentitySecret is the certificate of the instance, with its key.
	IdentitySecret = "identity"
	// AuthoritiesSecret are the certificates of the mesh's CAs.
	AuthoritiesSecret = "authorities"
)

// ControlPlaneName is what an Envoy sends as server name (RFC 6066 section 3).
// It is checked by nobody: the SPIFFE ID of the certificate says who answers.
const ControlPlaneName = "watchword"

// identityCluster is the agent that serves the secrets.
const identityCluster = "watchword_identity"

// maxSocketPath is what fits into sockaddr_un, in bytes (unix(7)).
const maxSocketPath = 107

// BootstrapIdentity says where an Envoy has its certificate from, and whom it
// takes for the control plane. It has a socket or a folder.
type BootstrapIdentity struct {
	// TrustDomain of the mesh, as in the SPIFFE ID of its control plane.
	TrustDomain string
	// SDSSocket is the absolute path of a Unix socket where the secrets are
	// served over delta SDS.
	SDSSocket string
	// Folder is the absolute path of one that holds the files of FileSecrets, and
	// those that they name. Envoy reads them again when a file is moved into it.
	Folder string
}

func (i *BootstrapIdentity) check() error {
	switch {
	case i.TrustDomain == "":
		return errors.New("the trust domain is not named")
	case (i.SDSSocket == "") == (i.Folder == ""):
		return errors.New("the certificate comes from a socket or a folder; name one of them")
	case i.SDSSocket != "":
		return checkSocket(i.SDSSocket)
	case !path.IsAbs(i.Folder):
		return fmt.Errorf("the folder %q is not an absolute path", i.Folder)
	}
	return nil
}

func checkSocket(at string) error {
	if !path.IsAbs(at) || len(at) > maxSocketPath {
		return fmt.Errorf("the socket %q is not an absolute path of at most %d bytes", at, maxSocketPath)
	}
	return nil
}

// transportSocket is mutual TLS with the control plane: both sides have
// certificates of the mesh's own CA, and no name or other CA counts.
func (i *BootstrapIdentity) transportSocket() (*corev3.TransportSocket, error) {
	upstream := i.verifies(matchExact(identity.ControlPlane(i.TrustDomain)))
	upstream.Sni = ControlPlaneName
	upstream.CommonTlsContext.AlpnProtocols = []string{"h2"}
	return tlsSocket(upstream)
}

func (i *BootstrapIdentity) secret(name string) *tlsv3.SdsSecretConfig {
	source := &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3, InitialFetchTimeout: durationpb.New(0)}
	if i.Folder != "" {
		source.ConfigSourceSpecifier = &corev3.ConfigSource_PathConfigSource{PathConfigSource: &corev3.PathConfigSource{
			Path:             secretFile(i.Folder, name),
			WatchedDirectory: &corev3.WatchedDirectory{Path: i.Folder},
		}}
		return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: source}
	}
	source.ConfigSourceSpecifier = &corev3.ConfigSource_ApiConfigSource{ApiConfigSource: &corev3.ApiConfigSource{
		ApiType:             corev3.ApiConfigSource_DELTA_GRPC,
		TransportApiVersion: corev3.ApiVersion_V3,
		GrpcServices:        []*corev3.GrpcService{grpcService(identityCluster)},
	}}
	return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: source}
}

// clusters that the secrets come from.
func (i *BootstrapIdentity) clusters() ([]*clusterv3.Cluster, error) {
	if i == nil || i.SDSSocket == "" {
		return nil, nil
	}
	options, err := http2Options(false)
	if err != nil {
		return nil, err
	}
	return []*clusterv3.Cluster{{
		Name:                          identityCluster,
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:                durationpb.New(connectTimeout),
		LoadAssignment:                endpointAt(identityCluster, pipeAddress(i.SDSSocket)),
		TypedExtensionProtocolOptions: map[string]*anypb.Any{httpProtocolOptions: options},
	}}, nil
}

func adminInterface(address string) (*bootstrapv3.Admin, error) {
	switch {
	case address == "":
		return nil, nil
	case strings.HasPrefix(address, "/"):
		if err := checkSocket(address); err != nil {
			return nil, fmt.Errorf("address of the admin interface: %w", err)
		}
		return &bootstrapv3.Admin{Address: pipeAddress(address)}, nil
	}
	host, port, err := hostPort(address)
	if err != nil {
		return nil, fmt.Errorf("address of the admin interface: %w", err)
	}
	return &bootstrapv3.Admin{Address: socketAddress(host, port)}, nil
}
