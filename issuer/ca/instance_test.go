package ca

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/internal/identity"
)

// What a CA of ours would never sign, and that is refused if it was.
func TestInstanceRefuses(t *testing.T) {
	a := authorityOf(t, first(t, "mesh.local", noon))
	key := newKey(t)
	id := instanceOf(t, "mesh.local", "orders", key)
	other := id
	other.TrustDomain = "other.local"
	foreign := id
	foreign.Instance = identity.InstanceOf([]byte("another key"))
	for _, c := range []struct {
		name string
		uris []string
		dns  []string
		want string
	}{
		{"right", []string{id.String()}, nil, ""},
		{"no name", nil, nil, "one URI"},
		{"two names", []string{id.String(), id.String()}, nil, "one URI"},
		{"a DNS name too", []string{id.String()}, []string{"orders"}, "one URI"},
		{"a service", []string{"spiffe://mesh.local/orders"}, nil, "must be of an instance"},
		{"the control plane", []string{identity.ControlPlane("mesh.local")}, nil, "not of an instance"},
		{"another trust domain", []string{other.String()}, nil, "trust domain mesh.local"},
		{"another instance", []string{foreign.String()}, nil, "not the key of that instance"},
		{"another spelling", []string{id.String() + "/"}, nil, "not of an instance"},
		{"a query", []string{id.String() + "?x"}, nil, "not of an instance"},
	} {
		template := &x509.Certificate{DNSNames: c.dns}
		for _, text := range c.uris {
			u, err := url.Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			template.URIs = append(template.URIs, u)
		}
		der, err := a.issue(template, key.Public(), noon, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		got, err := a.Instance(leaf)
		if c.want == "" && (err != nil || got != id) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: Instance(%v) = %s, %v; want %q", c.name, c.uris, got, err, c.want)
		}
	}
}

func request(tb testing.TB, key any) []byte {
	tb.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "x"}}, key)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

// P-256 and Ed25519 keys are taken, whatever else the request says.
func TestParseRequest(t *testing.T) {
	p256 := newKey(t)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for want, der := range map[string][]byte{"ES256": request(t, p256), "EdDSA": request(t, ed)} {
		public, spki, err := ParseRequest(der)
		if err != nil {
			t.Fatalf("%s: ParseRequest: %v", want, err)
		}
		if string(spki) != string(spkiOf(t, public)) {
			t.Errorf("%s: the SPKI is not that of the key", want)
		}
		key, err := InstanceKey(spki)
		if err != nil || key.Algorithm() != want || key.ID() != identity.InstanceOf(spki) {
			t.Errorf("InstanceKey = %v, %v; want one for %s, named %s", key, err, want, identity.InstanceOf(spki))
		}
	}
}

func TestParseRequestRefuses(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good := request(t, newKey(t))
	forged := append([]byte(nil), good...)
	forged[len(forged)-1] ^= 1
	sha1, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{SignatureAlgorithm: x509.ECDSAWithSHA1}, newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		der  []byte
		want string
	}{
		{"nothing", nil, "not PKCS #10"},
		{"too large", make([]byte, 5000), "at most 4096"},
		{"more behind it", append(append([]byte(nil), good...), 0), "not PKCS #10"},
		{"P-384", request(t, p384), "use P-256"},
		{"RSA", request(t, rsaKey), "use P-256 or Ed25519"},
		{"SHA-1", sha1, "signed with SHA-1"},
		{"changed", forged, "not signed with its own key"},
	} {
		if _, _, err := ParseRequest(c.der); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: ParseRequest: %v, want an error with %q", c.name, err, c.want)
		}
	}
	if _, err := InstanceKey(spkiOf(t, &rsaKey.PublicKey)); err == nil {
		t.Error("InstanceKey takes an RSA key")
	}
}

// Whatever strangers send: what is taken is a key that a certificate can be
// made for, and an instance that its assertions can be verified with.
func FuzzParseRequest(f *testing.F) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	a := authorityOf(f, first(f, "mesh.local", noon))
	f.Add(request(f, newKey(f)))
	f.Add(request(f, ed))
	f.Add([]byte{0x30, 0x00})
	f.Fuzz(func(t *testing.T, der []byte) {
		public, spki, err := ParseRequest(der)
		if err != nil {
			return
		}
		id := identity.ID{TrustDomain: "mesh.local", Service: "orders", Instance: identity.InstanceOf(spki)}
		if _, err := a.IssueInstance(id, public, noon, time.Hour); err != nil {
			t.Errorf("IssueInstance for the request %x: %v", der, err)
		}
		if _, err := InstanceKey(spki); err != nil {
			t.Errorf("InstanceKey for the request %x: %v", der, err)
		}
	})
}
