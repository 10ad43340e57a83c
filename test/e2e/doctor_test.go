package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// ownCertificate writes a certificate for localhost that ends so soon.
func ownCertificate(t *testing.T, left time.Duration) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(left)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: pkcs8}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// findings are what the doctor says of each subject, as SEVERITY and message.
func findings(t *testing.T, admin adminv1.AdminServiceClient) map[string]string {
	t.Helper()
	resp, err := admin.Diagnose(t.Context(), &adminv1.DiagnoseRequest{})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, f := range resp.GetFindings() {
		if f.GetSeverity() != adminv1.Finding_OK && f.GetHint() == "" {
			t.Errorf("%v has no way out", f)
		}
		out[f.GetSubject()] += f.GetSeverity().String() + ": " + f.GetMessage() + "\n"
	}
	return out
}

// The doctor names what a new control plane has of the first start, and sees it
// when it is put in order; and it names doors that are wider than they need be and
// certificates that end.
func TestDoctor(t *testing.T) {
	t.Parallel()
	want := func(t *testing.T, got map[string]string, subject, text string) {
		t.Helper()
		if !strings.Contains(got[subject], text) {
			t.Errorf("%s: %q; want %q; all: %v", subject, got[subject], text, got)
		}
	}
	p := newProcess(t, meshtest.ShortDir(t))
	admin := p.serving(t)
	got := findings(t, admin)
	want(t, got, "admin token", "WARNING: it is valid")
	want(t, got, "roles", "WARNING: no RoleBinding")
	want(t, got, "key-encryption key", "WARNING: it lies beside the data")
	want(t, got, "admin API", "OK: https://127.0.0.1")
	want(t, got, "CA of the mesh", "OK: good until")
	want(t, got, "etcd", "OK: inside")
	if _, err := admin.Apply(t.Context(), meshtest.Documents(resource("Service", "orders", "{}")+
		resource("RoleBinding", "officer", "role: SECURITY_OFFICER", "subjects: [{unixUser: root}]"))); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.RevokeAdminToken(t.Context(), &adminv1.RevokeAdminTokenRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := admin.CreateJoinToken(t.Context(), &adminv1.CreateJoinTokenRequest{Service: "orders", Uses: 500}); err != nil {
		t.Fatal(err)
	}
	got = findings(t, admin)
	want(t, got, "admin token", "OK: revoked")
	want(t, got, "roles", "OK: 1 RoleBinding")
	want(t, got, "join tokens", "WARNING: these let in many")
	p.stop(t)

	cert, key := ownCertificate(t, 2*24*time.Hour)
	kek := filepath.Join(t.TempDir(), "kek")
	text, err := os.ReadFile(filepath.Join(p.dir, "kek"))
	if err == nil {
		err = os.WriteFile(kek, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	p.extra = []string{"--tls-cert-file", cert, "--tls-key-file", key, "--kek-file", kek, "--admin-listen", "0.0.0.0:0"}
	got = findings(t, p.serving(t))
	want(t, got, "TLS certificate", "WARNING: "+cert+" expires")
	want(t, got, "admin API", "WARNING: it listens on all addresses")
	want(t, got, "key-encryption key", "OK: in "+kek)
}
