package enrolment

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/internal/identity"
	"github.com/watchword-mesh/watchword/internal/jointoken"
	"github.com/watchword-mesh/watchword/internal/jose"
	"github.com/watchword-mesh/watchword/issuer/ca"
	"github.com/watchword-mesh/watchword/issuer/clientauth"
	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
)

// A join token becomes an identity: what is asked, and what there is then.
func TestEnrol(t *testing.T) {
	p := newPlane(t)
	i := enrol(t, p.config())
	asked := p.asked()
	if len(asked) != 1 || asked[0].GetService() != "orders" || asked[0].GetNode() != "pod-1" || asked[0].GetJoinToken() != p.token.Text() {
		t.Fatalf("requests %v; want one of orders, pod-1, with the token", asked)
	}
	chain, key := i.Certificate()
	_, spki, err := ca.ParseRequest(asked[0].GetCertificateRequest())
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintln(i, i.Service(), i.Instance(), i.Issuer(), i.TrustDomain(), i.Expires(), len(chain), key != nil, len(i.Authorities()), len(i.Changed()))
	instance := identity.InstanceOf(spki)
	want := fmt.Sprintln("orders/"+instance, "orders", instance, "https://sts.mesh.local", "mesh.local", noon.Add(time.Hour), 1, true, 1, 0)
	if got != want {
		t.Errorf("identity\n got %swant %s", got, want)
	}
	if err := i.renew(t.Context(), 0); err != nil || len(p.renewals) != 1 || p.renewals[0] != "spiffe://mesh.local/orders/"+instance {
		t.Errorf("renew: %v by %v; want one by the instance", err, p.renewals)
	}
}

// A client assertion is what RFC 7523 section 3 asks for, signed by the key
// under the name of the instance, and never twice the same.
func TestAssertion(t *testing.T) {
	p := newPlane(t)
	i := enrol(t, p.config())
	_, spki, err := ca.ParseRequest(p.asked()[0].GetCertificateRequest())
	if err != nil {
		t.Fatal(err)
	}
	key, err := ca.InstanceKey(spki)
	if err != nil {
		t.Fatal(err)
	}
	issuer := clientauth.Authenticator{Directory: oneKey{key}, Audience: i.Issuer(), Replays: clientauth.NewReplays(), Now: p.clock.Now}
	seen := map[any]bool{}
	for range 2 {
		text, err := i.Assertion(noon)
		if err != nil {
			t.Fatalf("Assertion: %v", err)
		}
		token, err := jose.Verify(text, []jose.Key{key}, jose.VerifyOptions{Types: []string{"JWT"}})
		if err != nil || token.Header.KeyID != i.Instance() {
			t.Fatalf("Verify: %v, kid %q; want that of the instance", err, token.Header.KeyID)
		}
		if who, err := issuer.VerifyAssertion(text); err != nil || who.Service != "orders" || who.Instance != i.Instance() {
			t.Errorf("the issuer takes it for %+v, %v", who, err)
		}
		var claims map[string]any
		if err := json.Unmarshal(token.Claims, &claims); err != nil {
			t.Fatal(err)
		}
		jti := claims["jti"]
		delete(claims, "jti")
		want := map[string]any{"iss": "orders", "sub": "orders", "aud": "https://sts.mesh.local", "iat": float64(noon.Unix()), "exp": float64(noon.Unix() + 60)}
		if fmt.Sprint(claims) != fmt.Sprint(want) || seen[jti] || len(fmt.Sprint(jti)) < 26 {
			t.Errorf("claims %v with jti %v; want %v with a new one", claims, jti, want)
		}
		seen[jti] = true
	}
}

// oneKey is the directory of an issuer that knows one instance, of orders.
type oneKey struct{ key jose.Key }

func (oneKey) ClientSecrets(string) []clientauth.Secret { return nil }

func (k oneKey) InstanceKey(service, instance string) (jose.Key, bool) {
	return k.key, service == "orders" && instance == k.key.ID()
}

// An address that doesn't answer is passed over. An answer that was lost is
// asked for again with the same key.
func TestEnrolTriesAgain(t *testing.T) {
	p := newPlane(t)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	c := p.config()
	c.Addresses = []string{closed.Addr().String(), p.address}
	log, text := logged()
	c.Logger = log
	p.answer(status.Error(codes.Unavailable, "lost"), nil)
	i := enrol(t, c)
	asked := p.asked()
	if len(asked) != 2 {
		t.Fatalf("%d requests, want 2", len(asked))
	}
	for _, req := range asked {
		if _, spki, err := ca.ParseRequest(req.GetCertificateRequest()); err != nil || identity.InstanceOf(spki) != i.Instance() {
			t.Errorf("a request for another key: %v", err)
		}
	}
	if !strings.Contains(text.String(), "trying again") || strings.Contains(text.String(), p.token.Secret()) {
		t.Errorf("log: %s", text)
	}
}

// Each no ends it, says whose it is, and shows no secret.
func TestEnrolIsRefused(t *testing.T) {
	p, other := newPlane(t), newPlane(t)
	missing := filepath.Join(t.TempDir(), "missing")
	for _, c := range []struct {
		name    string
		change  func(*Config)
		answer  error
		want    string
		reached bool
	}{
		{"used token", func(*Config) {}, status.Error(codes.PermissionDenied, "the join token was used"), "refused: the join token was used (PermissionDenied)", true},
		{"no such service there", func(*Config) {}, status.Error(codes.Unimplemented, "x"), "refused: x (Unimplemented)", true},
		{"pin of another mesh", func(c *Config) { c.Credential = JoinToken(other.token.Text()) }, nil, "not shown the CA that the pin is of", false},
		{"damaged token", func(c *Config) { c.Credential = JoinToken(p.token.Text()[:30]) }, nil, "join token is damaged", false},
		{"no token file", func(c *Config) { c.Credential = JoinTokenFile(missing) }, nil, "reading the join token", false},
		{"no address", func(c *Config) { c.Addresses = nil }, nil, "no address", false},
		{"no service", func(c *Config) { c.Service = "" }, nil, "no name of a service", false},
		{"no credential", func(c *Config) { c.Credential = nil }, nil, "neither a credential nor a key file", false},
		{"no credential and no key file yet", func(c *Config) { c.Credential, c.KeyFile = nil, missing }, nil, "no key file " + missing, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := p.config()
			c.change(&config)
			p.answer(c.answer)
			_, err := Enrol(t.Context(), config)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), p.token.Secret()) {
				t.Errorf("Enrol: %v, want an error with %q and no secret", err, c.want)
			}
			if got := len(p.asked()) > 0; got != c.reached {
				t.Errorf("the control plane was asked: %v, want %v", got, c.reached)
			}
			if c.reached && !errors.Is(err, ErrRefused) {
				t.Errorf("Enrol: %v, want ErrRefused", err)
			}
		})
	}
}

// Answers that don't fit to what was asked are not taken.
func TestEnrolChecksTheAnswer(t *testing.T) {
	other := newPlane(t)
	for name, change := range map[string]func(*enrolmentv1.Identity){
		"of another service":      func(m *enrolmentv1.Identity) { m.Service = "shop" },
		"of another instance":     func(m *enrolmentv1.Identity) { m.Instance = "x" },
		"without certificate":     func(m *enrolmentv1.Identity) { m.Certificates = nil },
		"without CA":              func(m *enrolmentv1.Identity) { m.Authorities = nil },
		"damaged":                 func(m *enrolmentv1.Identity) { m.Certificates = [][]byte{{1}} },
		"damaged CA":              func(m *enrolmentv1.Identity) { m.Authorities = [][]byte{{1}} },
		"of another trust domain": func(m *enrolmentv1.Identity) { m.TrustDomain = "other.local" },
		"of another CA":           func(m *enrolmentv1.Identity) { m.Authorities = [][]byte{other.authority.Certificates()[0].Raw} },
		"the CA as certificate":   func(m *enrolmentv1.Identity) { m.Certificates = m.Authorities },
	} {
		p := newPlane(t)
		p.change = change
		if i, err := Enrol(t.Context(), p.config()); !errors.Is(err, ErrRefused) {
			t.Errorf("%s: Enrol = %v, %v; want ErrRefused", name, i, err)
		}
	}
	// A time to renew at that makes no sense is no reason to go without.
	p := newPlane(t)
	p.change = func(m *enrolmentv1.Identity) { m.Renew = nil }
	i := enrol(t, p.config())
	if want := noon.Add(-time.Minute).Add(61 * time.Minute / 2); !i.renewal().Equal(want) {
		t.Errorf("renewal at %v, want %v", i.renewal(), want)
	}
}

// A server that isn't the control plane is told nothing.
func TestServerIsVerified(t *testing.T) {
	p := newPlane(t)
	i := enrol(t, p.config())
	p.asked()
	chain, key := i.Certificate()
	asServer := tls.Certificate{Certificate: append(chain, p.authority.Certificates()[0].Raw), PrivateKey: key}
	config := p.config()
	config.Addresses = []string{p.listen(t, asServer)}
	if _, err := Enrol(t.Context(), config); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "not the control plane") || len(p.asked()) > 0 {
		t.Errorf("Enrol at an instance: %v; want ErrRefused", err)
	}
	old := p.serverCertificate(t)
	p.clock.set(noon.AddDate(0, 0, 11))
	config.Addresses = []string{p.listen(t, old)}
	if _, err := Enrol(t.Context(), config); !errors.Is(err, ErrRefused) || len(p.asked()) > 0 {
		t.Errorf("Enrol at a server with an expired certificate: %v; want ErrRefused", err)
	}
}

// Enrol ends with ctx.
func TestEnrolEnds(t *testing.T) {
	p := newPlane(t)
	ctx, cancel := context.WithCancel(t.Context())
	log, _ := logged()
	c := p.config()
	c.Logger = log
	p.change = func(*enrolmentv1.Identity) {}
	p.answer(status.Error(codes.Unavailable, "a"), status.Error(codes.Unavailable, "b"), status.Error(codes.Unavailable, "c"))
	done := make(chan error, 1)
	go func() {
		_, err := Enrol(ctx, c)
		done <- err
	}()
	cancel()
	if err := <-done; err == nil {
		t.Error("Enrol gave no error after its end")
	}
}

// By Kubernetes the mesh is known by a CA file or a pin, and by one of them.
func TestEnrolByKubernetes(t *testing.T) {
	p, other := newPlane(t), newPlane(t)
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	token, empty := write("token", []byte("a.b.c\n")), write("empty", nil)
	caFile := write("ca.pem", pemOf(t, p.authority.Certificates()))
	otherCA := write("other.pem", pemOf(t, other.authority.Certificates()))
	key := write("key.pem", encodePEM(blockKey, []byte{1}))
	for _, c := range []struct {
		credential KubernetesTokenFile
		want       string
	}{
		{KubernetesTokenFile{File: token, CAFile: caFile}, ""},
		{KubernetesTokenFile{File: token, Pin: p.authority.Pin()}, ""},
		{KubernetesTokenFile{File: token}, "needs the CA of the mesh"},
		{KubernetesTokenFile{File: token, CAFile: caFile, Pin: p.authority.Pin()}, "give one of them"},
		{KubernetesTokenFile{File: token, CAFile: otherCA}, "not the control plane"},
		{KubernetesTokenFile{File: token, Pin: other.authority.Pin()}, "not shown the CA"},
		{KubernetesTokenFile{File: token, Pin: "x"}, "43 characters"},
		{KubernetesTokenFile{File: token, CAFile: empty}, "no certificate in it"},
		{KubernetesTokenFile{File: token, CAFile: key}, "CERTIFICATE alone"},
		{KubernetesTokenFile{File: empty, CAFile: caFile}, "no token in it"},
		{KubernetesTokenFile{File: dir, CAFile: caFile}, "no file of at most"},
	} {
		config := p.config()
		config.Credential = c.credential
		_, err := Enrol(t.Context(), config)
		asked := p.asked()
		if c.want == "" && (err != nil || len(asked) != 1 || asked[0].GetKubernetesToken() != "a.b.c") {
			t.Errorf("Enrol(%+v): %v, requests %v; want one with the token", c.credential, err, asked)
		}
		if c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || len(asked) > 0) {
			t.Errorf("Enrol(%+v): %v, %d requests; want an error with %q and none", c.credential, err, len(asked), c.want)
		}
	}
}

// A join token from a file, with the line break that files have.
func TestEnrolByJoinTokenFile(t *testing.T) {
	p := newPlane(t)
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(p.token.Text()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := p.config()
	c.Credential = JoinTokenFile(path)
	enrol(t, c)
	if asked := p.asked(); len(asked) != 1 || asked[0].GetJoinToken() != p.token.Text() {
		t.Errorf("requests %v, want one with the token", asked)
	}
}

// A Config may be printed.
func TestConfigHidesTheToken(t *testing.T) {
	token := jointoken.New(strings.Repeat("A", 43))
	c := Config{Credential: JoinToken(token.Text())}
	encoded, err := json.Marshal(c.Credential)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprintf("%v", c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c), fmt.Sprintf("%d %x", c.Credential, c.Credential), string(encoded)} {
		if strings.Contains(text, token.Secret()) || strings.Contains(text, fmt.Sprintf("%x", token.Secret())) {
			t.Errorf("printed as %s", text)
		}
	}
}
