// Package doors proves that every door of a mesh has a lock: whoever comes without
// the right credential, to whichever call, by whichever way, gets nothing; what is
// taken back ends at once; what is secret is found nowhere in clear; and none of it
// costs those who have the right credential a single call.
//
// The control plane is a real one, and everything goes over the wire and through
// TLS.
package doors

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/dataplane/enrolment"
	"github.com/watchword-mesh/watchword/issuer/ca"
	"github.com/watchword-mesh/watchword/issuer/keyset"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// mesh is a control plane, and the CA of the people that it was told of.
type mesh struct {
	meshtest.ControlPlane
	people *authority
	// root is the admin API over the admin socket: all roles, without a token.
	root adminv1.AdminServiceClient
	made atomic.Int32
}

func startMesh(t *testing.T, yaml ...string) *mesh {
	t.Helper()
	m := &mesh{}
	m.start(t, yaml...)
	return m
}

// start is startMesh with a configuration that was begun.
func (m *mesh) start(t *testing.T, yaml ...string) {
	t.Helper()
	m.people = newAuthority(t, "people")
	m.Config.AdminClientCAFile = filepath.Join(t.TempDir(), "people.pem")
	writeFile(t, m.Config.AdminClientCAFile, m.people.pem())
	m.ControlPlane.Start(t)
	m.dialRoot(t)
	m.Apply(t, strings.Join(yaml, ""))
}

func (m *mesh) dialRoot(t *testing.T) {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+filepath.Join(m.Config.DataDir, "admin.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	m.root = adminv1.NewAdminServiceClient(conn)
	m.Admin = m.root // the admin token may be revoked
}

// name is one that was not used before.
func (m *mesh) name(prefix string) string { return fmt.Sprintf("%s-%d", prefix, m.made.Add(1)) }

// vault is what the control plane keeps sealed.
type vault struct {
	pepper []byte
	cas    []ca.Record
	keys   []keyset.Record
}

// authority is the mesh's own CA, which can sign.
func (v vault) authority(t *testing.T) *ca.Authority {
	t.Helper()
	a, err := ca.NewAuthority(v.cas)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// openVault reads it as who has the data folder can, while the control plane is
// stopped.
func (m *mesh) openVault(t *testing.T) vault {
	t.Helper()
	var v vault
	m.atRest(t, func(s *store.Store, pepper []byte) {
		v.pepper = pepper
		snap, err := s.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		v.cas, v.keys = slices.Collect(maps.Values(snap.CAs)), slices.Collect(maps.Values(snap.Keys))
	})
	return v
}

// atRest does something with the store while the control plane is stopped.
func (m *mesh) atRest(t *testing.T, do func(s *store.Store, pepper []byte)) {
	t.Helper()
	m.Stop(t)
	c := store.Config{DataDir: m.Config.DataDir}
	if e := m.Config.Etcd; len(e.Endpoints) > 0 {
		c = store.Config{Endpoints: e.Endpoints, Username: e.Username, Password: etcdPassword}
	}
	s, err := store.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := store.KEKFile(filepath.Join(m.Config.DataDir, "kek"), false)
	if err != nil {
		t.Fatal(err)
	}
	s.UseKeyring(ring)
	pepper, _, err := s.Init(t.Context(), store.Setup{Issuer: &policyv1.Resource{Metadata: &policyv1.Metadata{Name: "watchword"}}})
	if err != nil {
		t.Fatal(err)
	}
	do(s, pepper)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	m.Start(t)
}

// enrol makes an instance of a service.
func (m *mesh) enrol(t *testing.T, service string) *enrolment.Identity {
	t.Helper()
	return meshtest.Enrol(t, m.Config.XDSListen, service, m.newJoinToken(t, service))
}

func (m *mesh) newJoinToken(t *testing.T, service string) string {
	t.Helper()
	resp, err := m.root.CreateJoinToken(t.Context(), &adminv1.CreateJoinTokenRequest{Service: service})
	if err != nil {
		t.Fatalf("a join token of %s: %v", service, err)
	}
	return resp.GetToken()
}

func (m *mesh) revoke(t *testing.T, id *enrolment.Identity) {
	t.Helper()
	if _, err := m.root.RevokeInstances(t.Context(), &adminv1.RevokeInstancesRequest{Service: id.Service(), Instances: []string{id.Instance()}}); err != nil {
		t.Fatalf("revoking %s: %v", id, err)
	}
}

// certificateOf is what an instance shows.
func certificateOf(id *enrolment.Identity) *tls.Certificate {
	chain, key := id.Certificate()
	return &tls.Certificate{Certificate: chain, PrivateKey: key}
}

// clientTLS trusts the CA, and shows a certificate if there is one, whatever
// authorities the server asks for.
func clientTLS(roots *x509.CertPool, cert *tls.Certificate) *tls.Config {
	c := &tls.Config{RootCAs: roots}
	if cert != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	}
	return c
}

// dial connects to a door with a certificate, or with none.
func (m *mesh) dial(t *testing.T, address string, cert *tls.Certificate) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(clientTLS(m.CA(t), cert))), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// patient bounds what a test waits for.
func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), meshtest.Patience)
	t.Cleanup(cancel)
	return ctx
}

// resource is one YAML document with the lines of its spec.
func resource(kind, name string, spec ...string) string {
	return fmt.Sprintf("---\napiVersion: watchword.dev/v1\nkind: %s\nmetadata: {name: %s}\nspec:\n  %s\n", kind, name, strings.Join(spec, "\n  "))
}
