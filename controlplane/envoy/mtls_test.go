package envoy

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	extensionv3 "github.com/envoyproxy/go-control-plane/envoy/service/extension/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/watchword-mesh/watchword/dataplane/sds"
	"github.com/watchword-mesh/watchword/internal/identity"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

const trustDomain = "mesh.test"

// authority is a CA of these tests.
type authority struct {
	t      *testing.T
	key    *ecdsa.PrivateKey
	cert   *x509.Certificate
	serial int64
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	a := &authority{t: t, serial: 100}
	var err error
	if a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	a.cert = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, MaxPathLenZero: true}, nil, &a.key.PublicKey)
	return a
}

func (a *authority) sign(c, parent *x509.Certificate, pub *ecdsa.PublicKey) *x509.Certificate {
	a.t.Helper()
	if parent == nil {
		parent = c
	}
	a.serial++
	c.SerialNumber, c.NotBefore, c.NotAfter = big.NewInt(a.serial), time.Now().Add(-time.Minute), time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, c, parent, pub, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return out
}

// leaf is a certificate for a SPIFFE ID.
type leaf struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (a *authority) leaf(id string, key *ecdsa.PrivateKey) leaf {
	a.t.Helper()
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			a.t.Fatal(err)
		}
	}
	uri, err := url.Parse(id)
	if err != nil {
		a.t.Fatal(err)
	}
	return leaf{key: key, cert: a.sign(&x509.Certificate{URIs: []*url.URL{uri}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}, a.cert, &key.PublicKey)}
}

func (l leaf) pkcs8(t *testing.T) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(l.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// secrets is a source of SDS that a test sets.
type secrets struct {
	mu      sync.Mutex
	chain   [][]byte
	key     crypto.Signer
	cas     []*x509.Certificate
	changed chan struct{}
}

func (s *secrets) Certificate() ([][]byte, crypto.Signer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.chain, s.key
}

func (s *secrets) Authorities() []*x509.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cas
}

func (s *secrets) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

func (s *secrets) set(l leaf, a *authority) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chain, s.key, s.cas = [][]byte{l.cert.Raw}, l.key, []*x509.Certificate{a.cert}
	close(s.changed)
	s.changed = make(chan struct{})
}

// serveSDS returns the path of the socket.
func serveSDS(t *testing.T) (string, *secrets) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "sds")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	socket, err := sds.Listen(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := &secrets{changed: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sds.Serve(ctx, socket, s) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "s"), s
}

// tlsPlane is a control plane with mutual TLS.
type tlsPlane struct {
	adsServer
	address string
	cas     *x509.CertPool
	server  *grpc.Server

	lock    sync.Mutex
	cert    leaf
	callers []string // the serial of each client that opened a stream
}

func (p *tlsPlane) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	if from, ok := peer.FromContext(stream.Context()); ok {
		state := from.AuthInfo.(credentials.TLSInfo).State
		p.lock.Lock()
		p.callers = append(p.callers, state.PeerCertificates[0].SerialNumber.String())
		p.lock.Unlock()
	}
	return p.serve(stream)
}

func (p *tlsPlane) seen() string {
	p.lock.Lock()
	defer p.lock.Unlock()
	return strings.Join(p.callers, " ")
}

func (p *tlsPlane) present(l leaf) {
	p.lock.Lock()
	defer p.lock.Unlock()
	p.cert = l
}

func (p *tlsPlane) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.lock.Lock()
	defer p.lock.Unlock()
	return &tls.Certificate{Certificate: [][]byte{p.cert.cert.Raw}, PrivateKey: p.cert.key}, nil
}

func newPlane(t *testing.T, ca *authority, l leaf, resources []Resource) *tlsPlane {
	t.Helper()
	p := &tlsPlane{adsServer: adsServer{t: t, resources: resources}, cas: x509.NewCertPool(), cert: l, address: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	p.cas.AddCert(ca.cert)
	p.listen()
	t.Cleanup(func() { p.server.Stop() })
	return p
}

// listen serves until p.server is stopped.
func (p *tlsPlane) listen() {
	p.t.Helper()
	l, err := net.Listen("tcp", p.address)
	if err != nil {
		p.t.Fatal(err)
	}
	p.server = grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: p.cas, GetCertificate: p.certificate})))
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(p.server, p)
	extensionv3.RegisterExtensionConfigDiscoveryServiceServer(p.server, &p.adsServer)
	go func() { _ = p.server.Serve(l) }()
}

// launch starts an Envoy and does not wait for it.
func launch(t *testing.T, o BootstrapOptions) *proxy {
	t.Helper()
	config, err := Bootstrap(o)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	p := &proxy{admin: o.AdminAddress, log: new(buffer)}
	cmd := exec.Command(envoyBinary(t), "-c", file, "-l", "warning", "--concurrency", "1", "--disable-hot-restart")
	cmd.Stdout, cmd.Stderr = p.log, p.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("Envoy logged:\n%s", p.log)
		}
	})
	return p
}

func (p *proxy) get(path string) (int, string, error) {
	res, err := http.Get("http://" + p.admin + path)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res.StatusCode, string(body), err
}

// becomes waits until an answer of the admin interface holds a text.
func (p *proxy) becomes(t *testing.T, path, want string) {
	t.Helper()
	eventually(t, 30*time.Second, func() error {
		code, body, err := p.get(path)
		if err == nil && !strings.Contains(body, want) {
			err = fmt.Errorf("%s: %d %.3000s, want %q in it", path, code, body, want)
		}
		return err
	})
}

// guarded are the resources of a service that lets everybody in, and its port.
func guarded(t *testing.T) ([]Resource, uint32) {
	t.Helper()
	port := freePort(t)
	resources, err := Resources(&dataplanev1.Ruleset{
		Service: "orders",
		Routes:  []*dataplanev1.Route{{Match: new(dataplanev1.RequestMatch), Authentication: &dataplanev1.Authentication{Mode: dataplanev1.Authentication_OFF}}},
		Inbound: &dataplanev1.Inbound{Address: "127.0.0.1", Port: port, LocalIp: "127.0.0.1", LocalPort: serveUpstream(t)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return resources, port
}

const instanceID = "spiffe://" + trustDomain + "/orders/one"

// An Envoy asks the control plane for nothing before it has its certificate;
// then it needs no more than that. A certificate that is renewed ends no stream
// and no request, and is the one of the next connection. Its key is shown
// nowhere.
func TestIdentityOverSDS(t *testing.T) {
	ca := newAuthority(t, "Watchword CA")
	resources, port := guarded(t)
	cp := newPlane(t, ca, ca.leaf(identity.ControlPlane(trustDomain), nil), resources)
	socket, source := serveSDS(t)
	p := launch(t, BootstrapOptions{Service: "orders", ADSAddress: cp.address, AdminAddress: fmt.Sprintf("127.0.0.1:%d", freePort(t)),
		Identity: &BootstrapIdentity{TrustDomain: trustDomain, SDSSocket: socket}})
	// It has asked for its certificate, and waits.
	p.becomes(t, "/clusters", "::rq_active::2") // one stream for each secret
	p.becomes(t, "/ready", "INITIALIZING")
	if got := cp.seen(); got != "" {
		t.Errorf("clients %s came before there was a certificate, want none", got)
	}
	first := ca.leaf(instanceID, nil)
	source.set(first, ca)
	p.becomes(t, "/ready", "LIVE")

	requests := make(chan string)
	stop := make(chan struct{})
	go func() { requests <- poll(port, stop) }()
	second := ca.leaf(instanceID, first.key)
	source.set(second, ca)
	p.becomes(t, "/certs", fmt.Sprintf("%x", second.cert.SerialNumber))
	close(stop)
	if got := <-requests; got != "" {
		t.Errorf("a request during the rotation: %s, want 200 for all", got)
	}
	if got, want := cp.seen(), first.cert.SerialNumber.String(); got != want {
		t.Errorf("ADS streams were opened with certificates %s, want one, with %s", got, want)
	}
	hidesKey(t, p, first)

	cp.server.Stop()
	cp.listen()
	want := first.cert.SerialNumber.String() + " " + second.cert.SerialNumber.String()
	eventually(t, 20*time.Second, func() error {
		if got := cp.seen(); got != want {
			return fmt.Errorf("ADS streams were opened with certificates %s, want %s", got, want)
		}
		return nil
	})
}

// poll sends requests until stop, and returns what was not 200.
func poll(port uint32, stop <-chan struct{}) string {
	for {
		select {
		case <-stop:
			return ""
		default:
		}
		res, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
		if err != nil {
			return err.Error()
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return res.Status
		}
	}
}

// hidesKey looks for the private key, in the ways in which it may be written.
func hidesKey(t *testing.T, p *proxy, l leaf) {
	t.Helper()
	der := l.pkcs8(t)
	d, err := l.key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	text := base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	for _, path := range []string{"/config_dump?include_eds", "/certs", "/clusters", "/stats"} {
		_, body, err := p.get(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{base64.StdEncoding.EncodeToString(der)[60:], text[:40], string(d), hex.EncodeToString(d), base64.RawURLEncoding.EncodeToString(d), "BEGIN PRIVATE"} {
			if strings.Contains(body, secret) {
				t.Errorf("%s shows the private key as %q", path, secret)
			}
		}
	}
	p.becomes(t, "/config_dump", `"inline_bytes": "W3JlZGFjdGVkXQ=="`) // [redacted]: so the key is in the dump
}

// Who is not the control plane by its certificate gets no stream: another CA's,
// and what the right CA gave to a workload. The same Envoy works once the right
// one is shown.
func TestControlPlaneIsVerified(t *testing.T) {
	ca, other := newAuthority(t, "Watchword CA"), newAuthority(t, "Watchword CA")
	resources, _ := guarded(t)
	for name, wrong := range map[string]leaf{
		"another CA":          other.leaf(identity.ControlPlane(trustDomain), nil),
		"a workload":          ca.leaf(instanceID, nil),
		"another domain":      ca.leaf(identity.ControlPlane("other.test"), nil),
		"a longer ID":         ca.leaf(identity.ControlPlane(trustDomain)+"/x", nil),
		"the ID of a service": ca.leaf("spiffe://"+trustDomain+"/orders", nil),
	} {
		t.Run(name, func(t *testing.T) {
			cp := newPlane(t, ca, wrong, resources)
			socket, source := serveSDS(t)
			source.set(ca.leaf(instanceID, nil), ca)
			p := launch(t, BootstrapOptions{Service: "orders", ADSAddress: cp.address, AdminAddress: fmt.Sprintf("127.0.0.1:%d", freePort(t)),
				Identity: &BootstrapIdentity{TrustDomain: trustDomain, SDSSocket: socket}})
			eventually(t, 30*time.Second, func() error {
				_, body, err := p.get("/stats?filter=cluster.watchword.ssl.fail_verify_(error|san)&usedonly")
				if err == nil && !strings.Contains(body, "fail_verify") {
					err = fmt.Errorf("no failed verification yet: %s", body)
				}
				return err
			})
			if got := cp.seen(); got != "" {
				t.Errorf("it has opened a stream, with certificate %s; want none", got)
			}
			cp.present(ca.leaf(identity.ControlPlane(trustDomain), nil))
			p.becomes(t, "/ready", "LIVE")
			eventually(t, 20*time.Second, func() error {
				if cp.seen() == "" {
					return fmt.Errorf("no stream came to the right control plane")
				}
				return nil
			})
		})
	}
}

func putFile(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func fillFolder(t *testing.T, dir string) { fillFolderOf(t, dir, newAuthority(t, "Watchword CA")) }

// fillFolderOf does what `watchword enrol` does: behind the key in its file is
// what a restart needs, which is nothing to Envoy.
func fillFolderOf(t *testing.T, dir string, ca *authority) leaf {
	t.Helper()
	files, err := FileSecrets(dir)
	if err != nil {
		t.Fatal(err)
	}
	l := ca.leaf(instanceID, nil)
	files[KeyFile] = slices.Concat(pemOf("PRIVATE KEY", l.pkcs8(t)), pemOf("CERTIFICATE", l.cert.Raw), pemOf("WATCHWORD IDENTITY", []byte("x")), pemOf("CERTIFICATE", ca.cert.Raw))
	files[CertificateFile], files[AuthoritiesFile] = pemOf("CERTIFICATE", l.cert.Raw), pemOf("CERTIFICATE", ca.cert.Raw)
	for name, text := range files {
		putFile(t, filepath.Join(dir, name), text)
	}
	return l
}

// An Envoy that somebody else owns has its certificate from files, and takes the
// next one when that is moved in place.
func TestIdentityFromFolder(t *testing.T) {
	ca := newAuthority(t, "Watchword CA")
	resources, _ := guarded(t)
	cp := newPlane(t, ca, ca.leaf(identity.ControlPlane(trustDomain), nil), resources)
	dir := t.TempDir()
	first := fillFolderOf(t, dir, ca)
	p := launch(t, BootstrapOptions{Service: "orders", ADSAddress: cp.address, AdminAddress: fmt.Sprintf("127.0.0.1:%d", freePort(t)),
		Identity: &BootstrapIdentity{TrustDomain: trustDomain, Folder: dir}})
	p.becomes(t, "/ready", "LIVE")
	second := ca.leaf(instanceID, first.key)
	putFile(t, filepath.Join(dir, CertificateFile), pemOf("CERTIFICATE", second.cert.Raw))
	p.becomes(t, "/certs", fmt.Sprintf("%x", second.cert.SerialNumber))
	if got, want := cp.seen(), first.cert.SerialNumber.String(); got != want {
		t.Errorf("ADS streams were opened with certificates %s, want one, with %s", got, want)
	}
}

// The names under which secrets are asked for are those under which the agent
// serves them.
func TestSecretNames(t *testing.T) {
	if IdentitySecret != sds.Identity || AuthoritiesSecret != sds.Authorities {
		t.Errorf("the bootstrap asks for %s and %s, the agent has %s and %s", IdentitySecret, AuthoritiesSecret, sds.Identity, sds.Authorities)
	}
}
