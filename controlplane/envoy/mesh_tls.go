package envoy

import (
	"net/netip"
	"regexp"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/watchword-mesh/watchword/internal/identity"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// The TLS of the mesh: both sides are known by certificates of the mesh's CA,
// which their agents hold. A callee shows its own; it asks for none, since its
// callers are known by their tokens.

// calleeTLS is the caller's side.
func calleeTLS(c *dataplanev1.Callee) (*corev3.TransportSocket, error) {
	agent := new(BootstrapIdentity) // not in a folder
	upstream := agent.verifies(dataPlanesOf(c.GetSpiffeId()))
	// No server name for an address (RFC 6066 section 3).
	if host := c.GetHosts()[0]; !isAddress(host) {
		upstream.Sni = host
	}
	return tlsSocket(upstream)
}

// serviceTLS is the callee's side.
func serviceTLS() (*corev3.TransportSocket, error) {
	agent := new(BootstrapIdentity)
	return tlsSocket(&tlsv3.DownstreamTlsContext{
		RequireClientCertificate: wrapperspb.Bool(false),
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams:                      tls13(),
			AlpnProtocols:                  []string{"h2", "http/1.1"},
			TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{agent.secret(IdentitySecret)},
		},
	})
}

// dataPlanesOf matches the SPIFFE IDs of the instances of a service, which are in
// their certificates and have one segment more than the ID of the service. The ID
// of an instance stands for that one.
func dataPlanesOf(spiffeID string) *matcherv3.StringMatcher {
	if id, err := identity.Parse(spiffeID); err == nil && id.Instance != "" {
		return matchExact(spiffeID)
	}
	return matchRegex(regexp.QuoteMeta(spiffeID) + "/[a-z0-9-]+") // Envoy matches the whole
}

// verifies is TLS with who has such a SPIFFE ID in a certificate of the mesh; no
// name and no other CA counts.
func (i *BootstrapIdentity) verifies(spiffeID *matcherv3.StringMatcher) *tlsv3.UpstreamTlsContext {
	return &tlsv3.UpstreamTlsContext{
		// A session that is taken up again has its certificates not looked at.
		MaxSessionKeys: wrapperspb.UInt32(0),
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams:                      tls13(),
			TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{i.secret(IdentitySecret)},
			ValidationContextType: &tlsv3.CommonTlsContext_CombinedValidationContext{CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext: &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{
					SanType: tlsv3.SubjectAltNameMatcher_URI, Matcher: spiffeID,
				}}},
				ValidationContextSdsSecretConfig: i.secret(AuthoritiesSecret),
			}},
		},
	}
}

func tls13() *tlsv3.TlsParameters {
	return &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3}
}

func tlsSocket(m proto.Message) (*corev3.TransportSocket, error) {
	packed, err := pack(m)
	if err != nil {
		return nil, err
	}
	return &corev3.TransportSocket{Name: "envoy.transport_sockets.tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed}}, nil
}

func isAddress(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}
