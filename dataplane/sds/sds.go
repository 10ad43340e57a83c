// Package sds hands an Envoy on the same host its certificate: it serves secrets
// over SDS on a Unix socket, from memory, so that the private key of an instance
// need not be on disk.
//
// There are two secrets: [Identity], the certificate chain and its key, and
// [Authorities], what the control plane's certificate must come from. When they
// change, Envoy uses the new ones for its next connection, and leaves those that
// are open as they are.
package sds

import (
	"bytes"
	"context"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"google.golang.org/grpc"
)

// Names of the secrets.
const (
	Identity    = "identity"
	Authorities = "authorities"
)

// Source is where the secrets come from, such as an enrolment.Identity.
type Source interface {
	// Certificate is the chain in DER, the own one first, and the private key. It
	// is empty while there is none.
	Certificate() (chain [][]byte, key crypto.Signer)
	// Authorities are the CAs that the control plane is known by.
	Authorities() []*x509.Certificate
	// Changed returns a channel that has a value, or is closed, when what the other
	// two return may be no longer what they returned before this call. It is for
	// one reader.
	Changed() <-chan struct{}
}

// Serve serves the secrets of a source until ctx ends, and closes the socket.
// Who asks for a secret that is not there yet waits for it.
func Serve(ctx context.Context, socket *Socket, from Source) error {
	// What the server below runs ends with it, whoever ends it.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	secrets := cache.NewLinearCache(resource.SecretType)
	g := grpc.NewServer()
	secretv3.RegisterSecretDiscoveryServiceServer(g, &service{engine: delta.NewServer(ctx, secrets, nil)})
	followed := make(chan error, 1)
	go func() {
		followed <- follow(ctx, secrets, from)
		g.Stop()
	}()
	err := g.Serve(socket)
	cancel()
	if errors.Is(err, grpc.ErrServerStopped) {
		err = nil
	}
	return errors.Join(<-followed, err)
}

// service is delta SDS; Envoy's other ways to ask are not served.
type service struct {
	secretv3.UnimplementedSecretDiscoveryServiceServer
	engine delta.Server
}

func (s *service) DeltaSecrets(stream secretv3.SecretDiscoveryService_DeltaSecretsServer) error {
	return s.engine.DeltaStreamHandler(stream, resource.SecretType)
}

// follow keeps the cache at what the source has, until ctx ends.
func follow(ctx context.Context, secrets *cache.LinearCache, from Source) error {
	for {
		changed := from.Changed() // before it is read, so that no change is missed
		now, err := read(from)
		if err == nil {
			err = secrets.UpdateResources(now, nil)
		}
		if err != nil {
			return fmt.Errorf("serving the certificate: %w", err)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func read(from Source) (map[string]types.Resource, error) {
	out := make(map[string]types.Resource)
	if chain, signer := from.Certificate(); len(chain) > 0 {
		key, err := x509.MarshalPKCS8PrivateKey(signer) // RFC 5958
		if err != nil {
			return nil, err
		}
		out[Identity] = &tlsv3.Secret{Name: Identity, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: inline(encode("CERTIFICATE", chain...)),
			PrivateKey:       inline(encode("PRIVATE KEY", key)),
		}}}
	}
	if all := from.Authorities(); len(all) > 0 {
		out[Authorities] = &tlsv3.Secret{Name: Authorities, Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: inline(encode("CERTIFICATE", raw(all)...)),
		}}}
	}
	return out, nil
}

func raw(certificates []*x509.Certificate) [][]byte {
	var out [][]byte
	for _, c := range certificates {
		out = append(out, c.Raw)
	}
	return out
}

func inline(text []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: text}}
}

// encode writes PEM (RFC 7468).
func encode(kind string, blocks ...[]byte) []byte {
	var out bytes.Buffer
	for _, der := range blocks {
		out.Write(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return out.Bytes()
}
