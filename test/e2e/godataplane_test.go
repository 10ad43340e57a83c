package e2e

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/watchword-mesh/watchword/dataplane"
	"github.com/watchword-mesh/watchword/dataplane/enrolment"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// protect serves a program that has the Go library in front of it, with TLS of the mesh,
// and returns its address.
func protect(t *testing.T, d *dataplane.DataPlane) string {
	t.Helper()
	instance, err := d.Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", instance.ServerTLS())
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: d.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := dataplane.FromContext(r.Context())
		_ = json.NewEncoder(w).Encode(map[string]string{"caller": c.Service, "path": r.URL.Path, "authorization": r.Header.Get("Authorization")})
	}))}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close(); <-served })
	return l.Addr().String()
}

func fetch(t *testing.T, client *http.Client, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(body)
}

// Two Go programs call each other: tokens, TLS of the mesh and the verdict all come
// from the library, a policy reaches a connection that is open, and status shows both
// like an Envoy.
func TestGoPrograms(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	port := meshtest.FreeAddress(t)
	m.Apply(t, resource("Service", "orders", "{dataPlanes: [GO], hosts: [orders.mesh], inbound: {port: 1, localAddress: \"127.0.0.1:1\", tls: MESH}, endpoints: [\""+port+"\"]}")+
		resource("Service", "shop", "{dataPlanes: [GO], calls: [{service: orders}]}")+
		resource("Service", "stranger", "{calls: [{service: orders}]}"))
	orders, shop := m.OpenDataPlane(t, "orders"), m.OpenDataPlane(t, "shop")
	relay(t, port, protect(t, orders))
	client := &http.Client{Transport: shop.Transport(nil)}
	t.Cleanup(client.CloseIdleConnections)

	if code, body := fetch(t, client, "https://orders.mesh/a"); code != 200 || body != `{"authorization":"","caller":"shop","path":"/a"}`+"\n" {
		t.Fatalf("shop calls orders: %d %s", code, body)
	}
	m.WaitConnected(t, "orders", 1)
	m.WaitConnected(t, "shop", 1)
	resp, err := m.Admin.ListDataPlanes(t.Context(), &adminv1.ListDataPlanesRequest{Service: "orders"})
	if err != nil || resp.GetDataPlanes()[0].GetKind() != "watchword-go" {
		t.Errorf("status shows %v, %v", resp, err)
	}
	m.ApplyWait(t, allowOnly("orders", "stranger"))
	if code, body := fetch(t, client, "https://orders.mesh/a"); code != 403 || body != `{"reason":"consumer_denied"}` {
		t.Errorf("after apply --wait said that orders is in sync: %d %s", code, body)
	}
	// A host that is no callee gets no token.
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "authorization: "+r.Header.Get("Authorization"))
	}))
	t.Cleanup(plain.Close)
	if code, body := fetch(t, client, plain.URL); code != 200 || body != "authorization: " {
		t.Errorf("a stranger's server got %d %q, want no token", code, body)
	}
}

// relay gives a server another address: that of its endpoint is written down before
// it listens.
func relay(t *testing.T, from, to string) {
	t.Helper()
	l, err := net.Listen("tcp", from)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				up, err := net.Dial("tcp", to)
				if err != nil {
					_ = c.Close()
					return
				}
				go func() { _, _ = io.Copy(up, c); _ = up.Close() }()
				_, _ = io.Copy(c, up)
				_ = c.Close()
			}()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
}

// A Go data plane starts without its control plane and enforces what it had; a service
// that is deleted is refused everything; an instance that was revoked gets no tokens.
func TestGoDataPlaneAlone(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.Apply(t, resource("Service", "orders", "{}")+resource("Service", "shop", "{calls: [{service: orders}]}"))
	token := m.Token(t, "shop", "orders")
	dir := t.TempDir()
	keep := func(c *dataplane.Config) {
		c.File, c.KeyFile = filepath.Join(dir, "last"), filepath.Join(dir, "key")
	}
	first := m.OpenDataPlane(t, "orders", keep)
	ask := func(d *dataplane.DataPlane, token string) int {
		s := httptest.NewServer(d.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
		defer s.Close()
		req, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res.StatusCode
	}
	if got := ask(first, token); got != 200 {
		t.Fatalf("with the control plane: %d", got)
	}
	first.Close()
	m.Stop(t)
	config := dataplane.Config{Addresses: []string{m.Config.XDSListen}, Service: "orders", Credential: enrolment.JoinToken("used")}
	keep(&config)
	second, err := dataplane.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(second.Close)
	if got := [2]int{ask(second, token), ask(second, flip(token))}; got != [2]int{200, 401} {
		t.Errorf("without the control plane: %v, want 200 for the token and 401 for a forged one", got)
	}
	m.Start(t)
	m.WaitConnected(t, "orders", 1)
	m.Apply(t, resource("Service", "shop", "{}"))
	m.Delete(t, "Service", "orders")
	meshtest.Eventually(t, func() error {
		if got := ask(second, token); got != 503 {
			return &unexpected{got}
		}
		return nil
	})
}

type unexpected struct{ status int }

func (u *unexpected) Error() string { return http.StatusText(u.status) }
