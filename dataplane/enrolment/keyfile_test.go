package enrolment

import (
	"bytes"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/internal/identity"
	"github.com/watchword-mesh/watchword/issuer/ca"
)

// With a key file a restart gives the same instance: by a renewal while the
// certificate is valid, also while nobody answers, and by the key once it has ended.
// No credential is needed then.
func TestKeyFile(t *testing.T) {
	p := newPlane(t)
	c := p.config()
	c.KeyFile = filepath.Join(t.TempDir(), "key.pem")
	before := enrol(t, c)
	if info, err := os.Stat(c.KeyFile); err != nil || info.Mode() != 0o600 {
		t.Fatalf("key file: %v, %v; want mode 0600", info.Mode(), err)
	}
	if left, err := os.ReadDir(filepath.Dir(c.KeyFile)); err != nil || len(left) != 1 {
		t.Errorf("files beside the key file: %v, %v", left, err)
	}
	p.asked()

	c.Credential = nil
	p.answer(status.Error(codes.Unavailable, "etcd is away"))
	again := enrol(t, c)
	if asked := p.asked(); len(asked) != 0 || len(p.renewals) != 1 || again.Instance() != before.Instance() || !again.renewal().Equal(before.renewal()) || again.Issuer() != before.Issuer() {
		t.Errorf("%d requests, %s until %v; want none, and all as before: %s, %v", len(asked), again, again.renewal(), before, before.renewal())
	}
	if err := dial(t, again, p.address); err != nil {
		t.Errorf("connecting: %v", err)
	}

	p.clock.set(noon.Add(40 * time.Minute))
	again = enrol(t, c)
	if asked := p.asked(); len(asked) != 0 || len(p.renewals) != 2 || !again.Expires().Equal(noon.Add(100*time.Minute)) {
		t.Errorf("%d requests, %d renewals, until %v; want the certificate renewed", len(asked), len(p.renewals), again.Expires())
	}

	p.clock.set(noon.Add(2 * time.Hour))
	again = enrol(t, c)
	asked := p.asked()
	if len(asked) != 1 || asked[0].GetKeyAssertion() == "" || again.Instance() != before.Instance() || !again.Expires().Equal(noon.Add(3*time.Hour)) {
		t.Errorf("requests %v, %s until %v; want one by the key", asked, again, again.Expires())
	}

	p.clock.set(noon.Add(4 * time.Hour))
	p.answer(status.Error(codes.Unauthenticated, "unknown"))
	if _, err := Enrol(t.Context(), c); !errors.Is(err, ErrRefused) {
		t.Errorf("Enrol by a key that is refused, without a credential: %v; want ErrRefused", err)
	}
}

// Who was revoked is told so at the next start, and gets in with a new credential and
// a new key, whether the old certificate is valid still or not.
func TestRevokedKeyFile(t *testing.T) {
	for name, later := range map[string]time.Duration{"valid": time.Minute, "ended": 2 * time.Hour} {
		p := newPlane(t)
		c := p.config()
		c.KeyFile = filepath.Join(t.TempDir(), "key.pem")
		before := enrol(t, c)
		p.asked()
		p.clock.set(noon.Add(later))

		revoked := status.Error(codes.PermissionDenied, "not enrolled")
		without := c
		without.Credential = nil
		p.answer(revoked, revoked)
		if _, err := Enrol(t.Context(), without); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: Enrol without a credential: %v; want ErrRefused", name, err)
		}
		p.asked()
		p.answer(revoked, revoked)
		if name == "ended" {
			p.answer(revoked)
		}
		after := enrol(t, c)
		asked := p.asked()
		if len(asked) != 2 || asked[1].GetJoinToken() == "" || after.Instance() == before.Instance() {
			t.Errorf("%s: requests %v, instance %s; want one by the key, then one by the token for another instance than %s", name, asked, after, before)
		}
		if again := enrol(t, without); again.Instance() != after.Instance() {
			t.Errorf("%s: the key file has %s; want %s", name, again, after)
		}
	}
}

// The key is kept before it is enrolled, so that even an answer that was lost
// with the process costs no second instance.
func TestKeyIsKeptFirst(t *testing.T) {
	p := newPlane(t)
	c := p.config()
	c.KeyFile = filepath.Join(t.TempDir(), "key.pem")
	p.answer(status.Error(codes.Internal, "lost"))
	if _, err := Enrol(t.Context(), c); err == nil {
		t.Fatal("Enrol gave no error")
	}
	i := enrol(t, c)
	for _, req := range p.asked() {
		if _, spki, err := ca.ParseRequest(req.GetCertificateRequest()); err != nil || identity.InstanceOf(spki) != i.Instance() || req.GetJoinToken() == "" {
			t.Errorf("request %v, %v; want one by the token for instance %s", req, err, i.Instance())
		}
	}
	c.Credential, c.KeyFile = nil, filepath.Join(t.TempDir(), "key.pem")
	key, err := newKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	if err := writeKeyFile(c.KeyFile, key, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := Enrol(t.Context(), c); err == nil || !strings.Contains(err.Error(), "was never enrolled") {
		t.Errorf("Enrol by a key that was never enrolled: %v", err)
	}
}

// What is no key file of ours, and whom it is of, is said; no key is shown.
func TestKeyFileRefuses(t *testing.T) {
	p := newPlane(t)
	c := p.config()
	c.KeyFile = filepath.Join(t.TempDir(), "key.pem")
	enrol(t, c)
	good, err := os.ReadFile(c.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	other, err := newKeyPair()
	if err != nil {
		t.Fatal(err)
	}
	_, rest := pem.Decode(good)
	for _, f := range []struct {
		name    string
		service string
		mode    os.FileMode
		text    []byte
		want    string
	}{
		{"others may read it", "orders", 0o640, good, "others may have read the key"},
		{"another service", "shop", 0o600, good, `service "orders"`},
		{"empty", "orders", 0o600, nil, "must begin with a private key"},
		{"no key", "orders", 0o600, rest, "must begin with a private key"},
		{"another key", "orders", 0o600, append(encodePEM(blockKey, other.pkcs8), rest...), "of instance"},
		{"no identity", "orders", 0o600, append(encodePEM(blockKey, other.pkcs8), encodePEM(blockCertificate, []byte{1})...), "damaged"},
		{"cut", "orders", 0o600, good[:len(good)-20], "damaged"},
		{"more", "orders", 0o600, append(bytes.Clone(good), encodePEM("X", nil)...), `block "X"`},
	} {
		if err := os.WriteFile(c.KeyFile, f.text, f.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(c.KeyFile, f.mode); err != nil {
			t.Fatal(err)
		}
		_, _, err := readKeyFile(c.KeyFile, f.service)
		if err == nil || !strings.Contains(err.Error(), f.want) || !strings.Contains(err.Error(), c.KeyFile) || strings.Contains(err.Error(), "BEGIN") {
			t.Errorf("%s: %v, want an error with %q", f.name, err, f.want)
		}
	}
}

// Where the file can't be written, an enrolment isn't begun: it would be lost.
func TestKeyFileCannotBeWritten(t *testing.T) {
	p := newPlane(t)
	c := p.config()
	c.KeyFile = filepath.Join(t.TempDir(), "missing", "key.pem")
	if _, err := Enrol(t.Context(), c); err == nil || !strings.Contains(err.Error(), "writing key file") || len(p.asked()) > 0 {
		t.Errorf("Enrol: %v, want an error about the key file and no request", err)
	}
}

// Whatever a key file holds: what is read can be written and read again, and
// the key fits to the certificate.
func FuzzKeyFile(f *testing.F) {
	p := newPlane(f)
	i := enrol(f, p.config())
	whole, err := keyFileText(i.key, i.current.Load())
	if err != nil {
		f.Fatal(err)
	}
	begun, err := keyFileText(i.key, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(begun)
	f.Add([]byte("-----BEGIN PRIVATE KEY-----"))
	f.Fuzz(func(t *testing.T, text []byte) {
		key, g, err := parseKeyFile(text, "orders")
		if err != nil {
			return
		}
		if key.private.Curve != elliptic.P256() {
			t.Errorf("a key on %v", key.private.Curve)
		}
		again, err := keyFileText(key, g)
		if err != nil {
			t.Fatalf("writing what was read of %q: %v", text, err)
		}
		if _, g2, err := parseKeyFile(again, "orders"); err != nil || (g == nil) != (g2 == nil) {
			t.Errorf("reading again what was read of %q: %v", text, err)
		}
		if g != nil && !bytes.Equal(spkiOf(t, g.leaf), key.spki) {
			t.Errorf("%q has a certificate for another key", text)
		}
	})
}

func spkiOf(t *testing.T, c *x509.Certificate) []byte {
	t.Helper()
	return c.RawSubjectPublicKeyInfo
}

// A key that is enrolled stays in its file while nothing is in its place: it was
// refused for a moment, maybe, or by another server than the control plane.
func TestRefusedKeyIsKept(t *testing.T) {
	refused := status.Error(codes.PermissionDenied, "no")
	for name, tt := range map[string]struct {
		elsewhere bool
		answers   []error
		asked     int
	}{
		"another server":         {elsewhere: true},
		"wrong clock":            {answers: []error{refused, refused}, asked: 2},
		"answer lost on the way": {answers: []error{status.Error(codes.Unavailable, "lost"), refused, refused}, asked: 3},
	} {
		p := newPlane(t)
		c := p.config()
		c.KeyFile = filepath.Join(t.TempDir(), "key.pem")
		before := enrol(t, c)
		p.asked()
		p.clock.set(noon.Add(2 * time.Hour))
		p.answer(tt.answers...)
		c.Addresses = []string{p.address, p.address}
		if tt.elsewhere {
			c.Addresses = []string{newPlane(t).address}
		}
		if _, err := Enrol(t.Context(), c); !errors.Is(err, ErrRefused) || len(p.asked()) != tt.asked {
			t.Errorf("%s: Enrol: %v; want ErrRefused after %d requests", name, err, tt.asked)
		}
		c.Credential, c.Addresses = nil, []string{p.address}
		if after := enrol(t, c); after.Instance() != before.Instance() {
			t.Errorf("%s: the next start is instance %s; want %s", name, after, before)
		}
	}
}
