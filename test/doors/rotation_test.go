package doors

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/watchword-mesh/watchword/controlplane/envoy"
	"github.com/watchword-mesh/watchword/dataplane/enrolment"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

const (
	// certificateLife is short enough for each instance to renew twice.
	certificateLife = 12 * time.Second
	loadFor         = 14 * time.Second
)

// load is calls that go on side by side, and what became of them.
type load struct {
	until  time.Time
	all    sync.WaitGroup
	mu     sync.Mutex
	done   map[string]int
	failed map[string][]string
}

// keep makes calls one after the other, with a pause between them.
func (l *load) keep(what string, pause time.Duration, call func() error) {
	l.all.Go(func() {
		for time.Now().Before(l.until) {
			err := call()
			l.mu.Lock()
			l.done[what]++
			if err != nil {
				l.failed[what] = append(l.failed[what], err.Error())
			}
			l.mu.Unlock()
			time.Sleep(pause) // the load, not a wait for something
		}
	})
}

// rotating is the mesh under load.
type rotating struct {
	*mesh
	*load
	files  *authority // of the certificates in files
	orders string
	client *http.Client // makes a connection for each call
	seen   map[string]bool
	secret string
}

// While certificates of instances are renewed, the key-encryption key is replaced,
// and TLS files change, tokens are issued, policies applied, streams fed and requests
// let through, without one that fails.
func TestRotationUnderLoad(t *testing.T) {
	t.Parallel()
	r := &rotating{mesh: &mesh{}, files: newAuthority(t, "files"), seen: map[string]bool{}}
	r.prepare(t)
	orders, shop := r.enrol(t, "orders"), r.enrol(t, "shop")
	ctx, cancel := context.WithCancel(context.Background())
	var renewing sync.WaitGroup
	t.Cleanup(func() { cancel(); renewing.Wait() })
	renewals := map[string]*int{}
	for _, id := range []*enrolment.Identity{orders, shop} {
		n := new(int)
		renewals[id.String()] = n
		renewing.Go(func() { _ = id.Run(ctx) })
		renewing.Go(func() { countRenewals(ctx, id, n) })
	}
	stream := openStream(t, r.dialAs(t, orders), "orders-node")
	version := stream.get(t, "orders")
	r.load = &load{until: time.Now().Add(loadFor), done: map[string]int{}, failed: map[string][]string{}}
	r.rotate(t)
	r.use(orders, shop, stream, version)
	r.all.Wait()
	cancel()
	renewing.Wait()
	r.judge(t, stream, renewals)
}

func countRenewals(ctx context.Context, id *enrolment.Identity, n *int) {
	for {
		select {
		case <-id.Changed():
			*n++
		case <-ctx.Done():
			return
		}
	}
}

func (r *rotating) prepare(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	r.Config.CertificateLifetime = certificateLife
	r.Config.TLSCertFile, r.Config.TLSKeyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	if err := r.replaceFiles(t); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(r.files.certificate)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, VerifyConnection: r.note}, DisableKeepAlives: true}
	r.client = &http.Client{Transport: transport, Timeout: meshtest.Patience}
	var echo meshtest.Echo
	echo.Start(t)
	r.orders = meshtest.FreeAddress(t)
	_, port, _ := strings.Cut(r.orders, ":")
	r.begin(t)
	r.Apply(t, resource("Service", "orders", "inbound: {port: "+port+", localAddress: \""+echo.Address+"\"}")+
		resource("Service", "shop", "calls: [{service: orders}]")+resource("RoleBinding", "shops", "role: VIEWER", "subjects: [{service: shop}]"))
	resp, err := r.root.CreateClientSecret(t.Context(), &adminv1.CreateClientSecretRequest{Service: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	r.secret = resp.GetClientSecret()
	e := &meshtest.Envoy{Service: "orders", Node: "envoy", ADS: r.Config.XDSListen, Concurrency: 1, Join: func() string { return r.newJoinToken(t, "orders") }}
	e.Start(t)
	r.WaitConnected(t, "orders", 1)
}

// begin starts it; its own files are no concern of the admin socket.
func (r *rotating) begin(t *testing.T) {
	t.Helper()
	r.ControlPlane.Start(t)
	r.dialRoot(t)
}

// note keeps which certificates were shown.
func (r *rotating) note(state tls.ConnectionState) error {
	if r.load != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.seen[state.PeerCertificates[0].SerialNumber.String()] = true
	}
	return nil
}

// replaceFiles puts a new certificate and its key in place, one after the other, as
// programs that renew certificates do.
func (r *rotating) replaceFiles(t *testing.T) error {
	cert := r.files.server(t, "mesh.local")
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return err
	}
	for file, block := range map[string]*pem.Block{
		r.Config.TLSCertFile: {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, r.Config.TLSKeyFile: {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(file+".new", pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
		if err := os.Rename(file+".new", file); err != nil {
			return err
		}
	}
	return nil
}

func (r *rotating) rotate(t *testing.T) {
	r.keep("kek rotate", time.Second, func() error {
		return drain(r.root.RotateKEK(context.Background(), &adminv1.RotateKEKRequest{}))
	})
	r.keep("TLS files replaced", 1500*time.Millisecond, func() error { return r.replaceFiles(t) })
}

func (r *rotating) use(orders, shop *enrolment.Identity, s *stream, version string) {
	token := func(form url.Values) error { _, err := r.fetchToken(form); return err }
	r.keep("tokens by a client secret", 5*time.Millisecond, func() error {
		return token(url.Values{"grant_type": {"client_credentials"}, "audience": {"orders"}, "client_id": {"shop"}, "client_secret": {r.secret}})
	})
	r.keep("tokens by private_key_jwt, and requests with them", 5*time.Millisecond, func() error { return r.request(shop) })
	r.keep("the admin API by certificate", 20*time.Millisecond, func() error { return r.askSelf(shop) })
	n := 0
	r.keep("policies, until they are pushed", 20*time.Millisecond, func() error {
		n++
		_, err := r.root.Apply(context.Background(), meshtest.Documents(resource("AuthorizationPolicy", "p", "target: {services: [orders]}", "action: DENY", fmt.Sprintf("rules: [{to: {paths: [/no/%d]}}]", n))))
		if err != nil {
			return err
		}
		version, err = s.other(envoy.InboundName("orders"), version)
		return err
	})
	r.keep("new streams", 200*time.Millisecond, func() error {
		conn, err := dialTLS(r.Config.XDSListen, orders.TLSConfig())
		if err != nil {
			return err
		}
		defer conn.Close()
		ctx, cancel := context.WithTimeout(context.Background(), meshtest.Patience)
		defer cancel()
		g, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
		got, err := asks(g, err, "orders")
		if err == nil && got != "gets orders" {
			err = errors.New("a new stream " + got)
		}
		return err
	})
}

func dialTLS(address string, config *tls.Config) (*grpc.ClientConn, error) {
	return grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithNoProxy())
}

func (r *rotating) dialAs(t *testing.T, id *enrolment.Identity) *grpc.ClientConn {
	t.Helper()
	conn, err := dialTLS(r.Config.XDSListen, id.TLSConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (s *stream) other(name, version string) (string, error) {
	timeout := time.After(meshtest.Patience)
	for {
		select {
		case resp := <-s.in:
			for _, got := range resp.GetResources() {
				if got.GetName() == name && got.GetVersion() != version {
					return got.GetVersion(), nil
				}
			}
		case <-s.ended:
			return version, s.err
		case <-timeout:
			return version, errors.New("nothing was pushed")
		}
	}
}

// fetchToken asks the token endpoint over a new connection.
func (r *rotating) fetchToken(form url.Values) (string, error) {
	res, err := r.client.PostForm(r.TokenURL(), form)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || answer.Token == "" {
		return "", fmt.Errorf("the token endpoint: %s, %w", res.Status, err)
	}
	return answer.Token, nil
}

// request gets a token as an instance does, and calls a service with it.
func (r *rotating) request(id *enrolment.Identity) error {
	assertion, err := id.Assertion(time.Now())
	if err != nil {
		return err
	}
	token, err := r.fetchToken(url.Values{"grant_type": {"client_credentials"}, "audience": {"orders"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion}})
	if err != nil {
		return err
	}
	req, err := http.NewRequest(http.MethodGet, "http://"+r.orders+"/x", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
		return fmt.Errorf("the service: %s (%v)", res.Status, err)
	}
	return nil
}

// askSelf asks the admin API over a new connection, with the certificate of now.
func (r *rotating) askSelf(id *enrolment.Identity) error {
	roots := x509.NewCertPool()
	roots.AddCert(r.files.certificate)
	conn, err := dialTLS(r.Config.AdminListen, clientTLS(roots, certificateOf(id)))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), meshtest.Patience)
	defer cancel()
	_, err = adminv1.NewAdminServiceClient(conn).GetSelf(ctx, &adminv1.GetSelfRequest{})
	return err
}

// judge wants no call to have failed, and all to have been there that was to be.
func (r *rotating) judge(t *testing.T, s *stream, renewals map[string]*int) {
	t.Helper()
	for what, n := range r.done {
		failed := r.failed[what]
		t.Logf("%s: %d, %d of them failed", what, n, len(failed))
		if len(failed) > 0 {
			t.Errorf("%s: %d of %d failed, the first with: %s", what, len(failed), n, failed[0])
		}
	}
	for id, n := range renewals {
		t.Logf("%s renewed %d times", id, *n)
		if *n < 2 {
			t.Errorf("%s renewed %d times, want 2 at least", id, *n)
		}
	}
	t.Logf("%d certificates from files were shown", len(r.seen))
	if len(r.seen) < 3 {
		t.Errorf("%d certificates from files were shown, want 3 at least", len(r.seen))
	}
	select {
	case <-s.ended:
		t.Errorf("the first stream has ended: %v", s.err)
	default:
	}
}
