package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/internal/identity"
)

var noon = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

func first(tb testing.TB, trustDomain string, now time.Time) Record {
	tb.Helper()
	r, err := First(trustDomain, now)
	if err != nil {
		tb.Fatalf("First(%q): %v", trustDomain, err)
	}
	return r
}

func authorityOf(tb testing.TB, records ...Record) *Authority {
	tb.Helper()
	a, err := NewAuthority(records)
	if err != nil {
		tb.Fatalf("NewAuthority(%v): %v", records, err)
	}
	return a
}

func newKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func spkiOf(tb testing.TB, public crypto.PublicKey) []byte {
	tb.Helper()
	spki, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		tb.Fatal(err)
	}
	return spki
}

func instanceOf(tb testing.TB, trustDomain, service string, key crypto.Signer) identity.ID {
	tb.Helper()
	return identity.ID{TrustDomain: trustDomain, Service: service, Instance: identity.InstanceOf(spkiOf(tb, key.Public()))}
}

// The certificate of a CA is what RFC 5280 and X509-SVID ask of one, and its
// record shows no key.
func TestFirst(t *testing.T) {
	r := first(t, "mesh.local", noon)
	a := authorityOf(t, r)
	c := a.Certificates()[0]
	got := fmt.Sprintln(c.Subject, c.IsCA, c.MaxPathLen, c.MaxPathLenZero, c.KeyUsage == x509.KeyUsageCertSign, c.URIs, c.NotBefore, c.NotAfter)
	want := fmt.Sprintln("CN=Watchword CA mesh.local", true, 0, true, true, "[spiffe://mesh.local]", noon.Add(-time.Minute), noon.AddDate(10, 0, 0))
	if got != want {
		t.Errorf("certificate\n got %s\nwant %s", got, want)
	}
	if a.TrustDomain() != "mesh.local" || !r.Created.Equal(noon) || r.State != Active {
		t.Errorf("trust domain %q, created %v, state %q", a.TrustDomain(), r.Created, r.State)
	}
	if pin, err := base64.RawURLEncoding.DecodeString(a.Pin()); err != nil || len(pin) != 32 {
		t.Errorf("Pin() = %q, %v; want 32 bytes", a.Pin(), err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(verb, r); text != "CA "+r.ID+" (active)" {
			t.Errorf("Sprintf(%q) = %s", verb, text)
		}
	}
	for _, bad := range []string{"", "Mesh.local", "mesh/local", "mesh local", "mesh..local"} {
		if _, err := First(bad, noon); err == nil || !strings.Contains(err.Error(), "trust domain") {
			t.Errorf("First(%q): %v, want an error about the trust domain", bad, err)
		}
	}
}

// All are trusted, and the newest signs, in whatever order they come.
func TestNewAuthorityOfSeveral(t *testing.T) {
	older, newer := first(t, "mesh.local", noon), first(t, "mesh.local", noon.Add(time.Hour))
	for _, records := range [][]Record{{older, newer}, {newer, older}} {
		a := authorityOf(t, records...)
		if a.Pin() != authorityOf(t, newer).Pin() || len(a.Certificates()) != 2 {
			t.Errorf("pin %s with %d certificates; want that of the newest, and both", a.Pin(), len(a.Certificates()))
		}
		key := newKey(t)
		id := instanceOf(t, "mesh.local", "orders", key)
		for _, signs := range []*Authority{a, authorityOf(t, older)} {
			chain, err := signs.IssueInstance(id, key.Public(), noon.Add(time.Hour), time.Hour)
			if err != nil {
				t.Fatalf("IssueInstance: %v", err)
			}
			leaf, err := x509.ParseCertificate(chain[0])
			if err != nil {
				t.Fatal(err)
			}
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: a.Pool(), CurrentTime: noon.Add(time.Hour), KeyUsages: leaf.ExtKeyUsage}); err != nil {
				t.Errorf("a certificate of one of the CAs doesn't verify: %v", err)
			}
		}
	}
}

// A record that doesn't agree with itself signs nothing.
func TestNewAuthorityRefuses(t *testing.T) {
	good, other, elsewhere := first(t, "mesh.local", noon), first(t, "mesh.local", noon), first(t, "other.local", noon)
	change := func(f func(*Record)) []Record {
		r := good
		f(&r)
		return []Record{r}
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	otherCurve, err := x509.MarshalPKCS8PrivateKey(p384)
	if err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	leaf, err := authorityOf(t, good).IssueInstance(instanceOf(t, "mesh.local", "orders", key), key.Public(), noon, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		records []Record
		want    string
	}{
		{"none", nil, "there is no CA"},
		{"twice", []Record{good, good}, "is there twice"},
		{"another state", change(func(r *Record) { r.State = "gone" }), "newer version"},
		{"no certificate", change(func(r *Record) { r.Certificate = nil }), "reading the certificate"},
		{"a leaf", change(func(r *Record) { r.Certificate = leaf[0] }), "not signed by itself"},
		{"another ID", change(func(r *Record) { r.ID = other.ID }), "another key than its ID says"},
		{"another key", change(func(r *Record) { r.PrivatePKCS8 = other.PrivatePKCS8 }), "not for its private key"},
		{"another curve", change(func(r *Record) { r.PrivatePKCS8 = otherCurve }), "not a P-256 key"},
		{"no key", change(func(r *Record) { r.PrivatePKCS8 = []byte("SECRET") }), "not a PKCS #8 key"},
		{"two trust domains", []Record{good, elsewhere}, "a mesh has one"},
	} {
		_, err := NewAuthority(c.records)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: NewAuthority = %v, want an error with %q", c.name, err, c.want)
		}
	}
}

// What is in the certificates of instances and servers.
func TestIssue(t *testing.T) {
	a := authorityOf(t, first(t, "mesh.local", noon))
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serials := map[string]bool{}
	for _, key := range []crypto.Signer{newKey(t), ed} {
		id := instanceOf(t, "mesh.local", "orders", key)
		instance, err := a.IssueInstance(id, key.Public(), noon, time.Hour)
		if err != nil {
			t.Fatalf("IssueInstance: %v", err)
		}
		server, err := a.IssueServer(Server{TrustDomain: "mesh.local", DNSNames: []string{"localhost"}, IPs: []net.IP{{127, 0, 0, 1}}}, key.Public(), noon, 24*time.Hour)
		if err != nil {
			t.Fatalf("IssueServer: %v", err)
		}
		if len(server) != 2 || !bytes.Equal(server[1], a.Certificates()[0].Raw) {
			t.Errorf("the chain of a server has %d certificates; want two, the last the CA", len(server))
		}
		for _, c := range []struct {
			der  []byte
			want string
		}{
			{instance[0], fmt.Sprint(id, " [] [] client+server ", noon.Add(-time.Minute), noon.Add(time.Hour))},
			{server[0], fmt.Sprint("spiffe://mesh.local/_control-plane [localhost] [127.0.0.1] server ", noon.Add(-time.Minute), noon.Add(24*time.Hour))},
		} {
			leaf, err := x509.ParseCertificate(c.der)
			if err != nil {
				t.Fatal(err)
			}
			var uses []string
			for _, u := range leaf.ExtKeyUsage {
				uses = append(uses, map[x509.ExtKeyUsage]string{x509.ExtKeyUsageClientAuth: "client", x509.ExtKeyUsageServerAuth: "server"}[u])
			}
			use := strings.Join(uses, "+")
			got := fmt.Sprint(leaf.URIs[0], " ", leaf.DNSNames, " ", leaf.IPAddresses, " ", use, " ", leaf.NotBefore, leaf.NotAfter)
			if got != c.want || len(leaf.URIs) != 1 || leaf.KeyUsage != x509.KeyUsageDigitalSignature || leaf.IsCA {
				t.Errorf("leaf\n got %s\nwant %s", got, c.want)
			}
			if bits := leaf.SerialNumber.BitLen(); bits < 64 || bits > 128 || serials[leaf.SerialNumber.String()] {
				t.Errorf("serial number %v of %d bits; want a new one of 128", leaf.SerialNumber, bits)
			}
			serials[leaf.SerialNumber.String()] = true
		}
	}
}

// No certificate outlives its CA, and none is for whom the CA isn't.
func TestIssueRefuses(t *testing.T) {
	a := authorityOf(t, first(t, "mesh.local", noon))
	key := newKey(t)
	id := instanceOf(t, "mesh.local", "orders", key)
	last, err := a.IssueInstance(id, key.Public(), noon.AddDate(10, 0, 0).Add(-time.Minute), time.Hour)
	if err != nil {
		t.Fatalf("IssueInstance a minute before the end of the CA: %v", err)
	}
	if leaf, err := x509.ParseCertificate(last[0]); err != nil || !leaf.NotAfter.Equal(noon.AddDate(10, 0, 0)) {
		t.Errorf("a certificate ends at %v, %v; want the end of the CA", leaf.NotAfter, err)
	}
	change := func(f func(*identity.ID)) identity.ID { c := id; f(&c); return c }
	for _, c := range []struct {
		id       identity.ID
		now      time.Time
		lifetime time.Duration
		want     string
	}{
		{id, noon.AddDate(10, 0, 0), time.Hour, "the CA ended on 2037-03-01"},
		{id, noon, 0, "valid for 0s"},
		{change(func(id *identity.ID) { id.Instance = "" }), noon, time.Hour, "not the instance with this key"},
		{change(func(id *identity.ID) { id.Instance = identity.InstanceOf(nil) }), noon, time.Hour, "not the instance with this key"},
		{change(func(id *identity.ID) { id.Service = "../x" }), noon, time.Hour, "not the instance with this key"},
		{change(func(id *identity.ID) { id.TrustDomain = "other.local" }), noon, time.Hour, "trust domain"},
	} {
		if _, err := a.IssueInstance(c.id, key.Public(), c.now, c.lifetime); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("IssueInstance(%s, %v, %v): %v, want an error with %q", c.id, c.now, c.lifetime, err, c.want)
		}
	}
	if _, err := a.IssueServer(Server{TrustDomain: "other.local"}, key.Public(), noon, time.Hour); err == nil {
		t.Error("IssueServer for another trust domain gave no error")
	}
}

// Certificates are sorted by what signs, and callers can't change them.
func TestAuthorityIsNotChanged(t *testing.T) {
	a := authorityOf(t, first(t, "mesh.local", noon))
	a.Certificates()[0] = nil
	a.Pool().AddCert(authorityOf(t, first(t, "mesh.local", noon)).Certificates()[0])
	if slices.Contains(a.Certificates(), nil) || !a.Pool().Equal(authorityPool(a)) {
		t.Error("a caller changed the Authority")
	}
}

func authorityPool(a *Authority) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range a.Certificates() {
		p.AddCert(c)
	}
	return p
}
