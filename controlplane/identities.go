package controlplane

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/transport"
	"github.com/watchword-mesh/watchword/controlplane/xds"
	"github.com/watchword-mesh/watchword/internal/identity"
	"github.com/watchword-mesh/watchword/issuer/ca"
)

// identities says who is at the other end of a connection, by its certificate: an
// instance that is enrolled now, whatever it was when the certificate was made.
type identities struct {
	loop *loop
}

// ofCall is the instance that a gRPC call comes from, and its key.
func (i identities) ofCall(ctx context.Context) (identity.ID, crypto.PublicKey, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return identity.ID{}, nil, xds.ErrUnknown
	}
	conn, ok := p.AuthInfo.(transport.Connection)
	if !ok {
		return identity.ID{}, nil, xds.ErrUnknown
	}
	id, key, err := i.ofPeer(conn.State)
	if err != nil && key != nil {
		// Who has enrolled anew shows it on a new connection only. Until then there
		// is time for the answer.
		time.AfterFunc(time.Second, conn.Close)
	}
	return id, key, err
}

// ofPeer is the instance at the other end of a TLS connection. There is a key, too,
// of one that is not enrolled any more.
func (i identities) ofPeer(state tls.ConnectionState) (identity.ID, crypto.PublicKey, error) {
	leaf, ours := verifiedBy(state.VerifiedChains, i.loop.authority())
	if leaf == nil || !ours {
		return identity.ID{}, nil, xds.ErrUnknown
	}
	id, err := i.ofLeaf(leaf)
	return id, leaf.PublicKey, err
}

// ofLeaf is the instance of a certificate that our own CA has signed.
func (i identities) ofLeaf(leaf *x509.Certificate) (identity.ID, error) {
	id, err := i.loop.authority().Instance(leaf)
	if err != nil {
		return identity.ID{}, status.Error(codes.Unauthenticated, "the certificate is not that of an instance")
	}
	if _, ok := i.loop.instance(id.Service, id.Instance); !ok {
		return identity.ID{}, status.Error(codes.PermissionDenied, "this instance is not enrolled any more; enrol with a new key")
	}
	return id, nil
}

// ofStream and ofReport are ofCall in the words of others.
func (i identities) ofStream(ctx context.Context) (xds.Identity, error) {
	id, _, err := i.ofCall(ctx)
	return xds.Identity{Service: id.Service, Instance: id.Instance}, err
}

func (i identities) ofReport(ctx context.Context) (string, error) {
	id, _, err := i.ofCall(ctx)
	return id.Service, err
}

// verifiedBy is the certificate of a client that TLS has verified, and whether it
// was our own CA that signed it: the CA of people could sign what looks like one
// of an instance.
func verifiedBy(chains [][]*x509.Certificate, own *ca.Authority) (leaf *x509.Certificate, ours bool) {
	for _, chain := range chains {
		leaf = chain[0]
		if slices.ContainsFunc(own.Certificates(), chain[len(chain)-1].Equal) {
			return leaf, true
		}
	}
	return leaf, false
}

// errRevoked is for tokens of an instance that is not enrolled any more.
var errRevoked = errors.New("the token is of an instance that is not enrolled any more")

// ofToken is the service that a verified token of the built-in issuer is of, if it
// was made by this mesh's own rules.
func (i identities) ofToken(claims map[string]any) (string, error) {
	service, _ := claims["client_id"].(string)
	if i.loop.current.Load().Config.Service(service) == nil {
		return "", fmt.Errorf("the token is of %.100q, which is not a service", service)
	}
	instance, has := claims["instance"]
	if !has {
		return service, nil
	}
	id, _ := instance.(string)
	if _, ok := i.loop.instance(service, id); !ok {
		return "", errRevoked
	}
	return service, nil
}
