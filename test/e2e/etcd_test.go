package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"

	"github.com/watchword-mesh/watchword/controlplane"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

const etcdUser, etcdPassword = "watchword", "correct horse battery staple"

// startEtcd starts an etcd that wants TLS with a client certificate, and a
// user, and returns how to reach it.
func startEtcd(t *testing.T) controlplane.Etcd {
	t.Helper()
	dir := t.TempDir()
	caFile, certFile, keyFile := makeCertificates(t, dir)
	listen := url.URL{Scheme: "https", Host: meshtest.FreeAddress(t)}
	c := embed.NewConfig()
	c.Dir = filepath.Join(dir, "etcd")
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{listen}, []url.URL{listen}
	c.ListenPeerUrls = nil
	c.TickMs, c.ElectionMs, c.UnsafeNoFsync = 10, 100, true
	c.ClientTLSInfo.CertFile, c.ClientTLSInfo.KeyFile = certFile, keyFile
	c.ClientTLSInfo.TrustedCAFile, c.ClientTLSInfo.ClientCertAuth = caFile, true
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	e, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	<-e.Server.ReadyNotify()
	addUser(t, e)
	password := filepath.Join(dir, "password")
	write(t, password, etcdPassword+"\n")
	return controlplane.Etcd{
		Endpoints: []string{listen.String()}, CAFile: caFile, CertFile: certFile, KeyFile: keyFile,
		Username: etcdUser, PasswordFile: password,
	}
}

// addUser makes the user, who may use the prefixes of the test and nothing
// else, and switches authentication on.
func addUser(t *testing.T, e *embed.Etcd) {
	t.Helper()
	admin := v3client.New(e.Server)
	ctx := t.Context()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for user, role := range map[string]string{"root": "root", etcdUser: "mesh"} {
		must(admin.RoleAdd(ctx, role))
		must(admin.UserAdd(ctx, user, etcdPassword))
		must(admin.UserGrantRole(ctx, user, role))
	}
	for _, prefix := range []string{"/watchword/", "/other/"} {
		must(admin.RoleGrantPermission(ctx, "mesh", prefix, clientv3.GetPrefixRangeEnd(prefix), clientv3.PermissionType(clientv3.PermReadWrite)))
	}
	must(admin.AuthEnable(ctx))
}

// makeCertificates writes a CA, and one certificate for both sides.
func makeCertificates(t *testing.T, dir string) (caFile, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	// No common name: etcd would take it for the user.
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	caFile, certFile, keyFile = filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, cert := range map[string]*x509.Certificate{caFile: ca, certFile: leaf} {
		signed, err := x509.CreateCertificate(rand.Reader, cert, ca, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		write(t, file, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed})))
	}
	write(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	return caFile, certFile, keyFile
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// An existing etcd, with TLS, client certificate, user and password, does the
// same as the one inside; meshes with prefixes of their own share it, and a stop
// ends a replica's place at once.
func TestExternalEtcd(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	m := &mesh{inbound: map[string]string{}}
	m.echo.Start(t)
	m.Config.Etcd = etcd
	m.Start(t)
	m.Apply(t, shopAndOrders(t, m)+allowOnly("orders", "shop"))
	m.startEnvoy(t, "orders")
	call := meshtest.Call{Token: m.Token(t, "shop", "orders")}
	wantStatus(t, "the right caller", call, m.send(t, "orders", call), 200)

	t.Run("another prefix", func(t *testing.T) {
		other := &meshtest.ControlPlane{Config: controlplane.Config{Etcd: etcd}}
		other.Config.Etcd.Prefix = "/other/"
		other.Start(t)
		other.Apply(t, resource("Service", "orders", "{}")+resource("Service", "shop", "calls: [{service: orders}]"))
		call := meshtest.Call{Token: other.Token(t, "shop", "orders")}
		wantStatus(t, "a token of another mesh on the same etcd", call, m.send(t, "orders", call), 401)
	})
	for _, c := range []struct {
		what   string
		change func(*controlplane.Config)
		words  []string
	}{
		{"wrong password", func(c *controlplane.Config) {
			c.Etcd.PasswordFile = filepath.Join(t.TempDir(), "password")
			write(t, c.Etcd.PasswordFile, "wrong")
		}, []string{etcd.Endpoints[0], "password"}},
		{"a prefix that the user may not use", func(c *controlplane.Config) { c.Etcd.Prefix = "/forbidden/" }, []string{etcd.Endpoints[0], "permission"}},
		{"unknown CA", func(c *controlplane.Config) { c.Etcd.CAFile, _, _ = makeCertificates(t, t.TempDir()) }, []string{etcd.Endpoints[0], "TLS files"}},
		{"no client certificate", func(c *controlplane.Config) { c.Etcd.CertFile, c.Etcd.KeyFile = "", "" }, []string{etcd.Endpoints[0], "TLS files"}},
	} {
		t.Run(c.what, func(t *testing.T) { wantMessage(t, runAside(t, m, c.change), c.words...) })
	}

	m.Stop(t)
	m.Start(t) // at once: an orderly stop gives the place back
	m.WaitConnected(t, "orders", 1)
	call.Token = m.Token(t, "shop", "orders")
	wantStatus(t, "after a restart", call, m.send(t, "orders", call), 200)
}

// runAside runs a second replica on the etcd of m, which must not start.
func runAside(t *testing.T, m *mesh, change func(*controlplane.Config)) error {
	t.Helper()
	c := controlplane.Config{Etcd: m.Config.Etcd, DataDir: meshtest.ShortDir(t), KEKFile: filepath.Join(m.Config.DataDir, "kek")}
	for _, at := range []*string{&c.AdminListen, &c.XDSListen, &c.STSListen, &c.OpsListen} {
		*at = "127.0.0.1:0"
	}
	change(&c)
	return controlplane.Run(t.Context(), c)
}

// wantMessage wants an error of one line that has all the words and no secret.
func wantMessage(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", words)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("got the error %q, want %q in it", err, w)
		}
	}
	if strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), etcdPassword) {
		t.Errorf("got the error %q, want one line without the password", err)
	}
}
