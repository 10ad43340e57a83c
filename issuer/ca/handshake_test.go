package ca

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/internal/identity"
)

// certified is a key with its chain, as crypto/tls wants it.
func certified(tb testing.TB, key *ecdsa.PrivateKey, chain [][]byte, err error) tls.Certificate {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
	return tls.Certificate{Certificate: chain, PrivateKey: key}
}

func instanceCertificate(tb testing.TB, a *Authority, service string, now time.Time) tls.Certificate {
	tb.Helper()
	key := newKey(tb)
	chain, err := a.IssueInstance(instanceOf(tb, a.TrustDomain(), service, key), key.Public(), now, time.Hour)
	return certified(tb, key, chain, err)
}

func serverCertificate(tb testing.TB, a *Authority, now time.Time) tls.Certificate {
	tb.Helper()
	key := newKey(tb)
	chain, err := a.IssueServer(Server{TrustDomain: a.TrustDomain()}, key.Public(), now, 24*time.Hour)
	return certified(tb, key, chain, err)
}

// handshake is one between a server of a and a client with this certificate;
// it gives what the server learns.
func handshake(tb testing.TB, a *Authority, server, client tls.Certificate) (id identity.ID, serverErr, clientErr error) {
	tb.Helper()
	s, c := net.Pipe()
	defer s.Close()
	defer c.Close()
	now := func() time.Time { return noon }
	serving := tls.Server(s, &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{server}, Time: now,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.Pool(),
		VerifyConnection: func(state tls.ConnectionState) (err error) {
			id, err = a.Instance(state.PeerCertificates[0])
			return err
		},
	})
	asking := tls.Client(c, &tls.Config{
		MinVersion: tls.VersionTLS13, Time: now,
		// Always this one: Go would not offer one of a CA that the server doesn't name.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &client, nil },
		InsecureSkipVerify:   true, // below, as one that goes by the SPIFFE ID
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: a.Pool(), CurrentTime: noon})
			return err
		},
	})
	done := make(chan error, 1)
	go func() {
		err := asking.Handshake()
		if err == nil {
			// In TLS 1.3 the client learns by its first read that it was refused.
			_, err = asking.Read(make([]byte, 1))
		}
		c.Close()
		done <- err
	}()
	if serverErr = serving.Handshake(); serverErr == nil {
		_, serverErr = serving.Write([]byte{1})
	}
	s.Close()
	return id, serverErr, <-done
}

// Real handshakes: who has a certificate of an instance gets in, under its
// name, and nobody else.
func TestHandshake(t *testing.T) {
	old := authorityOf(t, first(t, "mesh.local", noon.AddDate(-11, 0, 0)))
	record, next := first(t, "mesh.local", noon.Add(-time.Hour)), first(t, "mesh.local", noon)
	a, both := authorityOf(t, record), authorityOf(t, record, next)
	server := serverCertificate(t, a, noon)

	good := instanceCertificate(t, a, "orders", noon)
	want := instanceOf(t, "mesh.local", "orders", good.PrivateKey.(*ecdsa.PrivateKey))
	for _, trusting := range []*Authority{a, both} {
		if id, serverErr, clientErr := handshake(t, trusting, server, good); id != want || serverErr != nil || clientErr != nil {
			t.Errorf("handshake = %s, %v, %v; want %s", id, serverErr, clientErr, want)
		}
	}
	if _, serverErr, clientErr := handshake(t, both, serverCertificate(t, both, noon), instanceCertificate(t, both, "orders", noon)); serverErr != nil || clientErr != nil {
		t.Errorf("handshake with the next CA: %v, %v", serverErr, clientErr)
	}

	for _, c := range []struct {
		name   string
		client tls.Certificate
		want   string
	}{
		{"none", tls.Certificate{}, "client didn't provide a certificate"},
		{"of another CA", instanceCertificate(t, authorityOf(t, next), "orders", noon), "signed by unknown authority"},
		{"of a CA of the same name that ended", instanceCertificate(t, old, "orders", noon.AddDate(-11, 0, 0)), "failed to verify certificate"},
		{"of another trust domain and its CA", instanceCertificate(t, authorityOf(t, first(t, "other.local", noon)), "orders", noon), "signed by unknown authority"},
		{"expired", instanceCertificate(t, a, "orders", noon.Add(-time.Hour-time.Second)), "certificate has expired"},
		{"from the future", instanceCertificate(t, a, "orders", noon.Add(time.Minute+time.Second)), "not yet valid"},
		{"of a server", serverCertificate(t, a, noon), "incompatible key usage"},
	} {
		id, serverErr, clientErr := handshake(t, a, server, c.client)
		if serverErr == nil || !strings.Contains(serverErr.Error(), c.want) || clientErr == nil || id != (identity.ID{}) {
			t.Errorf("%s: handshake = %s, %v, client %v; want an error with %q", c.name, id, serverErr, clientErr, c.want)
		}
	}
}

// connect is a handshake of a client with a server that shows this certificate.
func connect(tb testing.TB, server tls.Certificate, client *tls.Config) error {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	now := func() time.Time { return noon }
	done := make(chan struct{})
	go func() {
		defer close(done)
		if s, err := l.Accept(); err == nil {
			_ = tls.Server(s, &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{server}, Time: now}).Handshake()
			_ = s.Close()
		}
	}()
	defer func() { _ = l.Close(); <-done }()
	client.Time, client.MinVersion = now, tls.VersionTLS13
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		tb.Fatal(err)
	}
	defer c.Close()
	return tls.Client(c, client).Handshake()
}

// byID is a client that knows a server by its SPIFFE ID.
func byID(a *Authority, id string) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(state tls.ConnectionState) error {
		leaf := state.PeerCertificates[0]
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: a.Pool(), CurrentTime: noon}); err != nil {
			return err
		}
		if len(leaf.URIs) != 1 || leaf.URIs[0].String() != id {
			return fmt.Errorf("it is %v, not %s", leaf.URIs, id)
		}
		return nil
	}}
}

// A certificate of an instance is that of a server of the mesh, and passes neither
// for the control plane, by its SPIFFE ID, nor for the host of the admin API and the
// token endpoint, by whatever name a client knows it: also not in a trust domain that
// could be a host, and not for a service with the name of one.
func TestInstanceIsNotTheControlPlane(t *testing.T) {
	hosts := []string{"localhost", "127.0.0.1", "::1", "mesh.local", "10.0.0.1", "orders", "orders.mesh.local", "localhost.mesh.local", "_control-plane", "*"}
	for _, trustDomain := range []string{"mesh.local", "localhost", "10.0.0.1"} {
		a := authorityOf(t, first(t, trustDomain, noon))
		for _, service := range []string{"orders", "localhost", "control-plane"} {
			shown := instanceCertificate(t, a, service, noon)
			own := instanceOf(t, trustDomain, service, shown.PrivateKey.(*ecdsa.PrivateKey)).String()
			if err := connect(t, shown, byID(a, own)); err != nil {
				t.Errorf("who knows %s by its SPIFFE ID refuses it: %v", own, err)
			}
			if err := connect(t, shown, byID(a, identity.ControlPlane(trustDomain))); err == nil || !strings.Contains(err.Error(), "not "+identity.ControlPlane(trustDomain)) {
				t.Errorf("%s as the control plane: %v, want a refusal of its name", own, err)
			}
			for _, host := range append(hosts, own) {
				if err := connect(t, shown, &tls.Config{RootCAs: a.Pool(), ServerName: host}); err == nil {
					t.Errorf("%s passes for the host %s", own, host)
				}
			}
			leaf, err := x509.ParseCertificate(shown.Certificate[0])
			if err != nil {
				t.Fatal(err)
			}
			// Some clients go by the subject where there is no other name.
			if name := leaf.Subject.String(); name != "" || len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses) > 0 {
				t.Errorf("%s has the subject %q, hosts %v, %v and %v; want none", own, name, leaf.DNSNames, leaf.IPAddresses, leaf.EmailAddresses)
			}
		}
		// The proof of the proof: with the certificate of a replica all of this works.
		key := newKey(t)
		chain, err := a.IssueServer(Server{TrustDomain: trustDomain, DNSNames: []string{"localhost"}}, key.Public(), noon, time.Hour)
		replica := certified(t, key, chain, err)
		for _, client := range []*tls.Config{byID(a, identity.ControlPlane(trustDomain)), {RootCAs: a.Pool(), ServerName: "localhost"}} {
			if err := connect(t, replica, client); err != nil {
				t.Errorf("a replica in %s is refused: %v", trustDomain, err)
			}
		}
	}
}

// No instance can have the name of the control plane, whatever key it has.
func TestNoInstanceOfTheControlPlane(t *testing.T) {
	a := authorityOf(t, first(t, "mesh.local", noon))
	key := newKey(t)
	for _, id := range []identity.ID{
		{TrustDomain: "mesh.local", Service: "_control-plane", Instance: identity.InstanceOf(spkiOf(t, key.Public()))},
		{TrustDomain: "mesh.local", Service: "_control-plane"},
	} {
		if _, err := a.IssueInstance(id, key.Public(), noon, time.Hour); err == nil {
			t.Errorf("there is a certificate for %s", id)
		}
	}
}

// A trust domain that is no host name works as well.
func TestHandshakeInOddTrustDomains(t *testing.T) {
	for _, trustDomain := range []string{"mesh", "10.0.0.1", "my_mesh", "1.2.3", "a--b.c-"} {
		a := authorityOf(t, first(t, trustDomain, noon))
		if _, serverErr, clientErr := handshake(t, a, serverCertificate(t, a, noon), instanceCertificate(t, a, "orders", noon)); serverErr != nil || clientErr != nil {
			t.Errorf("trust domain %q: %v, %v", trustDomain, serverErr, clientErr)
		}
	}
}

// The CA vouches for no other trust domain, whatever it signs.
func TestNameConstraint(t *testing.T) {
	a := authorityOf(t, first(t, "mesh.local", noon))
	for host, want := range map[string]bool{"mesh.local": true, "other.local": false} {
		template := &x509.Certificate{URIs: []*url.URL{{Scheme: "spiffe", Host: host, Path: "/orders/x"}}}
		der, err := a.issue(template, newKey(t).Public(), noon, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		_, err = leaf.Verify(x509.VerifyOptions{Roots: a.Pool(), CurrentTime: noon, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
		if got := err == nil; got != want {
			t.Errorf("a certificate of %s verifies: %v (%v), want %v", host, got, err, want)
		}
	}
}
