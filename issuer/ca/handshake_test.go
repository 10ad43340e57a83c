package ca

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
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

// A certificate of an instance is no server's.
func TestInstanceIsNoServer(t *testing.T) {
	a := authorityOf(t, first(t, "mesh.local", noon))
	_, _, clientErr := handshake(t, a, instanceCertificate(t, a, "orders", noon), instanceCertificate(t, a, "orders", noon))
	if clientErr == nil || !strings.Contains(clientErr.Error(), "incompatible key usage") {
		t.Errorf("a client takes an instance for a server: %v", clientErr)
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
