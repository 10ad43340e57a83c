package ca

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/internal/identity"
)

// No certificate makes Instance panic, and whatever it returns is the name of the
// certificate's own key, in our trust domain, written there once. A certificate that
// we have not signed is not verified, so that Instance is never asked about it.
func FuzzCertificate(f *testing.F) {
	a := authorityOf(f, first(f, "mesh.local", time.Now()))
	key := newKey(f)
	chain, err := a.IssueInstance(instanceOf(f, "mesh.local", "orders", key), key.Public(), time.Now(), time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(chain[0])
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		f.Fatal(err)
	}
	issued := string(leaf.RawTBSCertificate)
	server, err := a.IssueServer(Server{TrustDomain: "mesh.local", DNSNames: []string{"localhost"}}, key.Public(), time.Now(), time.Hour)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(server[0])
	f.Add(a.Certificates()[0].Raw)
	f.Fuzz(func(t *testing.T, der []byte) {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		if id, err := a.Instance(c); err == nil {
			own := identity.InstanceOf(c.RawSubjectPublicKeyInfo)
			if id.Instance != own || id.TrustDomain != "mesh.local" || len(c.URIs) != 1 || c.URIs[0].String() != id.String() {
				t.Errorf("%x is taken for %+v, its key is that of %s, its names are %v", der, id, own, c.URIs)
			}
		}
		verify := x509.VerifyOptions{Roots: a.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
		if _, err := c.Verify(verify); err == nil && string(c.RawTBSCertificate) != issued && !c.Equal(a.Certificates()[0]) {
			t.Errorf("%x verifies, and was not issued", der)
		}
	})
}
