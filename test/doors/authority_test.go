package doors

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/internal/identity"
	"github.com/watchword-mesh/watchword/issuer/ca"
)

// authority is a CA that isn't the mesh's own.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	a.certificate = a.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, a.key.Public())
	return a
}

// sign makes a certificate of now. The first one of an authority is its own.
func (a *authority) sign(t *testing.T, template *x509.Certificate, public crypto.PublicKey) *x509.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	parent := a.certificate
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, a.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (a *authority) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw}))
}

// person is a client certificate with a DNS name.
func (a *authority) person(t *testing.T, name string) *tls.Certificate {
	return a.client(t, &x509.Certificate{DNSNames: []string{name}}, newKey(t))
}

// instance is a client certificate that says it is of an instance.
func (a *authority) instance(t *testing.T, id identity.ID, key crypto.Signer) *tls.Certificate {
	t.Helper()
	u, err := url.Parse(id.String())
	if err != nil {
		t.Fatal(err)
	}
	return a.client(t, &x509.Certificate{URIs: []*url.URL{u}}, key)
}

func (a *authority) client(t *testing.T, template *x509.Certificate, key crypto.Signer) *tls.Certificate {
	t.Helper()
	template.KeyUsage, template.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	leaf := a.sign(t, template, key.Public())
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw, a.certificate.Raw}, PrivateKey: key}
}

// server is a certificate for a listener on loopback that names the control plane
// of a trust domain, too.
func (a *authority) server(t *testing.T, trustDomain string) *tls.Certificate {
	t.Helper()
	u, err := url.Parse(identity.ControlPlane(trustDomain))
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	leaf := a.sign(t, &x509.Certificate{
		URIs: []*url.URL{u}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, key.Public())
	return &tls.Certificate{Certificate: [][]byte{leaf.Raw, a.certificate.Raw}, PrivateKey: key}
}

// issued is a certificate of the mesh's own CA for an instance that never enrolled,
// as of a time.
func issued(t *testing.T, own *ca.Authority, service string, at time.Time) *tls.Certificate {
	t.Helper()
	key := newKey(t)
	chain, err := own.IssueInstance(nameOf(t, own, service, key), key.Public(), at, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: key}
}

// nameOf is the instance that a key would be.
func nameOf(t *testing.T, own *ca.Authority, service string, key crypto.Signer) identity.ID {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return identity.ID{TrustDomain: own.TrustDomain(), Service: service, Instance: identity.InstanceOf(spki)}
}

// replica is a certificate of the mesh's own CA for a server.
func replica(t *testing.T, own *ca.Authority) *tls.Certificate {
	t.Helper()
	key := newKey(t)
	chain, err := own.IssueServer(ca.Server{TrustDomain: own.TrustDomain(), DNSNames: []string{"localhost"}}, key.Public(), time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: key}
}

func writeFile(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
