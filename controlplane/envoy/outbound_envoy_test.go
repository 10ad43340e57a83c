package envoy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/watchword-mesh/watchword/controlplane/xds"
	"github.com/watchword-mesh/watchword/internal/identity"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// tokenBank makes tokens that say for whom they are, and by which key.
type tokenBank struct {
	mu  sync.Mutex
	key string
	no  map[string]bool
}

func (b *tokenBank) Token(_ context.Context, who xds.Identity, audience string) (xds.Token, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.no[audience] {
		return xds.Token{}, xds.ErrNoToken
	}
	return xds.Token{Value: fmt.Sprintf("%s.%s.%s", b.key, who, audience), Expires: time.Now().Add(time.Hour), KeyID: b.key}, nil
}

func (b *tokenBank) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

// outboundMesh is a control plane with the real ADS, and a managed Envoy of the
// service web.
type outboundMesh struct {
	*proxy
	t        *testing.T
	ca       *authority
	xds      *xds.Server
	bank     *tokenBank
	port     uint32 // outbound
	path     string // of the requests
	inbound  []Resource
	revision int64
}

func newOutboundMesh(t *testing.T, inbound *dataplanev1.Inbound, callees ...*dataplanev1.Callee) *outboundMesh {
	t.Helper()
	m := &outboundMesh{t: t, ca: newAuthority(t, "Watchword CA"), bank: &tokenBank{key: "k1", no: map[string]bool{}}, port: freePort(t), path: "/"}
	m.xds = xds.New(xds.Config{VersionKey: []byte("the version key of these tests"), Tokens: m.bank,
		Identify: func(context.Context) (xds.Identity, error) { return xds.Identity{Service: "web", Instance: "one"}, nil }})
	m.xds.RenewTokens([]string{"k1"})
	var err error
	m.inbound, err = Resources(&dataplanev1.Ruleset{Service: "web", Inbound: inbound,
		Routes: []*dataplanev1.Route{{Match: new(dataplanev1.RequestMatch), Authentication: &dataplanev1.Authentication{Mode: dataplanev1.Authentication_OFF}}}})
	if err != nil {
		t.Fatal(err)
	}
	m.publish(callees...)
	socket, source := serveSDS(t)
	source.set(m.ca.leaf("spiffe://"+trustDomain+"/web/one", nil), m.ca)
	m.proxy = launch(t, BootstrapOptions{Service: "web", ADSAddress: m.serve(), AdminAddress: fmt.Sprintf("127.0.0.1:%d", freePort(t)),
		Identity: &BootstrapIdentity{TrustDomain: trustDomain, SDSSocket: socket}})
	m.becomes(t, "/ready", "LIVE")
	return m
}

func (m *outboundMesh) serve() string {
	m.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		m.t.Fatal(err)
	}
	own, cas := m.ca.leaf(identity.ControlPlane(trustDomain), nil), x509.NewCertPool()
	cas.AddCert(m.ca.cert)
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequireAndVerifyClientCert,
		ClientCAs: cas, Certificates: []tls.Certificate{{Certificate: [][]byte{own.cert.Raw}, PrivateKey: own.key}}})))
	m.xds.Register(g)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	m.t.Cleanup(func() { m.xds.Close(); g.Stop(); <-done })
	return l.Addr().String()
}

func (m *outboundMesh) publish(callees ...*dataplanev1.Callee) {
	m.t.Helper()
	out, err := OutboundResources(&dataplanev1.Outbound{Service: "web", Callees: callees,
		Listener: &dataplanev1.OutboundListener{Address: "127.0.0.1", Port: m.port}})
	if err != nil {
		m.t.Fatal(err)
	}
	m.revision++
	u := xds.Update{Revision: m.revision, Services: map[string][]xds.Resource{}}
	for _, r := range append(out, m.inbound...) {
		u.Services["web"] = append(u.Services["web"], xds.Resource(r))
	}
	m.xds.Publish(u)
}

// answered is a response, and what the callee saw if it was its own.
type answered struct {
	status int
	header http.Header
	body   string
	seen   seen
}

// call is a request of the service to a host.
func (m *outboundMesh) call(c *http.Client, host string, header ...string) (answered, error) {
	req, err := http.NewRequest("POST", fmt.Sprintf("http://127.0.0.1:%d%s", m.port, m.path), strings.NewReader("body"))
	if err != nil {
		return answered{}, err
	}
	req.Host = host
	for i := 0; i+1 < len(header); i += 2 {
		req.Header[header[i]] = append(req.Header[header[i]], header[i+1])
	}
	res, err := c.Do(req)
	if err != nil {
		return answered{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	a := answered{status: res.StatusCode, header: res.Header, body: string(body)}
	if err == nil && a.status == http.StatusOK && len(body) > 0 {
		err = json.Unmarshal(body, &a.seen)
	}
	return a, err
}

// becomesAnswer waits for a status and a text in the body.
func (m *outboundMesh) becomesAnswer(c *http.Client, host string, status int, text string) answered {
	m.t.Helper()
	var a answered
	eventually(m.t, 30*time.Second, func() error {
		var err error
		if a, err = m.call(c, host); err == nil && (a.status != status || !strings.Contains(a.body, text)) {
			err = fmt.Errorf("host %s: %d %s, want %d with %q", host, a.status, a.body, status, text)
		}
		return err
	})
	return a
}

// poll sends requests until stop, and returns what was not 200.
func (m *outboundMesh) poll(c *http.Client, host string, stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		if a, err := m.call(c, host); err != nil || a.status != http.StatusOK {
			return fmt.Errorf("%d %s %v", a.status, a.body, err)
		}
	}
}

// client speaks HTTP/1.1 or, with prior knowledge, HTTP/2, over connections of its own.
func client(t *testing.T, h2 bool) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols), MaxConnsPerHost: 1}
	tr.Protocols.SetHTTP1(!h2)
	tr.Protocols.SetUnencryptedHTTP2(h2)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

// calleeServer answers over TLS with what it got.
type calleeServer struct {
	address     string
	requests    atomic.Int64
	connections atomic.Int64
}

func serveCallee(t *testing.T, l leaf) *calleeServer {
	t.Helper()
	s := new(calleeServer)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		r.Header.Set("Host", r.Host)
		_ = json.NewEncoder(w).Encode(seen{r.Method, r.RequestURI, r.Proto, r.Header})
	}))
	srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.connections.Add(1)
		}
	}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that fail, as they should
	srv.EnableHTTP2 = true
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{l.cert.Raw}, PrivateKey: l.key}}}
	srv.StartTLS()
	t.Cleanup(srv.Close)
	s.address = srv.Listener.Addr().String()
	return s
}

func callee(name, endpoint string) *dataplanev1.Callee {
	return &dataplanev1.Callee{Service: name, Audience: "https://" + name, Hosts: []string{name, name + ".example.com"},
		Endpoints: []string{endpoint}, SpiffeId: "spiffe://" + trustDomain + "/" + name}
}

// A request of the service gets to the callee over the TLS of the mesh, in the
// HTTP version that the service speaks, as it is, but with the token of the
// callee's audience in place of what Authorization had, and without the headers
// that tell who calls. What is of no callee, or can't be reached safely, is
// refused here, with the way out.
func TestOutboundToCallees(t *testing.T) {
	m := newOutboundMesh(t, nil)
	orders := serveCallee(t, m.ca.leaf("spiffe://"+trustDomain+"/orders/one", nil))
	plain := fmt.Sprintf("127.0.0.1:%d", serveUpstream(t))
	local, far := callee("local", plain), callee("far", "192.0.2.1:80")
	local.SpiffeId, far.SpiffeId = "", ""
	none := callee("none", plain)
	none.Endpoints = nil
	m.publish(callee("orders", orders.address), local, far, none)

	m.path = "/a%2Fb/../c?q=1"
	for _, h2 := range []bool{false, true} {
		c, proto := client(t, h2), map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[h2]
		for host, token := range map[string]string{
			"orders": "https://orders", "orders:1234": "https://orders", "Orders.example.com": "https://orders",
			"orders.": "https://orders", "local": "https://local",
		} {
			m.becomesAnswer(c, host, 200, "")
			a, err := m.call(c, host, "Authorization", "Bearer of-the-program", "X-Watchword-Caller", "x", "x_watchword_caller", "y",
				"X-Other", "z", "X-Request-Id", "id-1", "X-Forwarded-For", "192.0.2.7", "X-Envoy-Upstream-Rq-Timeout-Ms", "1")
			if err != nil {
				t.Fatal(err)
			}
			got := a.seen
			for name, want := range map[string]string{"Authorization": "Bearer k1.web/one." + token, "X-Other": "z", "X-Request-Id": "id-1",
				"X-Forwarded-For": "192.0.2.7", "X-Watchword-Caller": "", "X_watchword_caller": "", "X-Envoy-Upstream-Rq-Timeout-Ms": ""} {
				if v := strings.Join(got.Header[name], "|"); v != want {
					t.Errorf("%s to %s: header %s is %q, want %q", proto, host, name, v, want)
				}
			}
			if got.URI != m.path || got.Method != "POST" || got.Proto != proto {
				t.Errorf("to %s: got %s %s %s, want the request as it was sent, over %s", host, got.Method, got.URI, got.Proto, proto)
			}
			if seenHost := got.Header.Get("Host"); !strings.EqualFold(strings.TrimSuffix(host, "."), seenHost) && host != "local" {
				t.Errorf("host is %q at the callee, want %q", seenHost, host)
			}
		}
		for _, tt := range []struct {
			host   string
			status int
			text   string
		}{
			{"unknown", 404, `"callee_unknown"`}, {"orders.example", 404, "spec.calls"}, {"xorders", 404, ""},
			{"far", 502, "spec.inbound.tls"}, {"none", 502, "spec.endpoints"},
		} {
			a, err := m.call(c, tt.host)
			if err != nil || a.status != tt.status || !strings.Contains(a.body, tt.text) || a.header.Get("Content-Type") != "application/json" || !json.Valid([]byte(a.body)) {
				t.Errorf("%s to %s: %+v, %v; want %d, JSON with %q", proto, tt.host, a, err, tt.status, tt.text)
			}
		}
	}
	a, err := m.call(client(t, true), "unknown", "Content-Type", "application/grpc", "Te", "trailers")
	if err != nil || a.status != 200 || a.header.Get("Content-Type") != "application/grpc" || a.header.Get("Grpc-Status") != "12" || !strings.Contains(a.header.Get("Grpc-Message"), "callee_unknown") {
		t.Errorf("gRPC to a host that is unknown: %+v, %v; want status 12 with the reason", a, err)
	}
	m.becomes(t, "/stats?filter=cluster.callee/orders.upstream_rq_2xx", "cluster.callee/orders.upstream_rq_2xx: ")
	if _, dump, err := m.get("/config_dump?include_eds"); err != nil || strings.Contains(dump, "k1.web") {
		t.Errorf("the dump shows the token, or %v", err)
	}
	if strings.Contains(m.log.String(), "k1.web") {
		t.Errorf("Envoy logged the token:\n%s", m.log)
	}
}

// Nothing is sent to who is not an instance of the callee by a certificate of the
// mesh.
func TestOutboundVerifiesCallee(t *testing.T) {
	m := newOutboundMesh(t, nil)
	other := newAuthority(t, "Watchword CA")
	id := "spiffe://" + trustDomain + "/orders"
	wrong := map[string]leaf{
		"another-ca":  other.leaf(id+"/one", nil),
		"service":     m.ca.leaf("spiffe://"+trustDomain+"/orders-x/one", nil),
		"prefix":      m.ca.leaf(id+"x/one", nil),
		"service-id":  m.ca.leaf(id, nil),
		"longer":      m.ca.leaf(id+"/one/two", nil),
		"domain":      m.ca.leaf("spiffe://meshxtest/orders/one", nil),
		"self":        m.ca.leaf("spiffe://"+trustDomain+"/web/one", nil),
		"the-control": m.ca.leaf(identity.ControlPlane(trustDomain), nil),
	}
	var callees []*dataplanev1.Callee
	servers := map[string]*calleeServer{}
	for name, l := range wrong {
		servers[name] = serveCallee(t, l)
		c := callee(name, servers[name].address)
		c.SpiffeId = id
		callees = append(callees, c)
	}
	good := serveCallee(t, m.ca.leaf(id+"/two", nil))
	callees = append(callees, callee("orders", good.address))
	m.publish(callees...)
	c := client(t, false)
	m.becomesAnswer(c, "orders", 200, "k1.web/one.https://orders")
	for name, s := range servers {
		m.becomesAnswer(c, name, 503, "")
		m.becomes(t, "/stats?usedonly&filter=cluster.callee/"+name+".ssl.fail_verify_(error|san)", "fail_verify")
		if n := s.requests.Load(); n != 0 {
			t.Errorf("%s: it got %d requests, want none", name, n)
		}
	}
}

// A token that is replaced costs no request and no connection, on either side; one
// that is taken away ends the calls.
func TestOutboundTokenChanges(t *testing.T) {
	m := newOutboundMesh(t, nil)
	orders := serveCallee(t, m.ca.leaf("spiffe://"+trustDomain+"/orders/one", nil))
	m.bank.set(func() { m.bank.no["https://orders"] = true })
	m.publish(callee("orders", orders.address))
	c := client(t, false)
	m.becomesAnswer(c, "orders", 401, "Failed to inject credential")
	m.bank.set(func() { delete(m.bank.no, "https://orders") })
	m.xds.RenewTokens(nil, "web")
	m.becomesAnswer(c, "orders", 200, "k1.web")

	own := client(t, true)
	m.becomesAnswer(own, "orders", 200, "k1.web")
	connections := orders.connections.Load()
	stop, polled := make(chan struct{}), make(chan error)
	go func() { polled <- m.poll(own, "orders", stop) }()
	for _, key := range []string{"k2", "k3", "k4"} {
		m.bank.set(func() { m.bank.key = key })
		m.xds.RenewTokens([]string{key})
		m.becomesAnswer(c, "orders", 200, key+".web")
	}
	close(stop)
	if err := <-polled; err != nil {
		t.Errorf("a request during the changes: %v; want 200 for all", err)
	}
	if n := orders.connections.Load(); n != connections {
		t.Errorf("the callee saw %d more connections during the changes, want none", n-connections)
	}
	m.bank.set(func() { m.bank.no["https://orders"] = true })
	m.xds.RenewTokens([]string{"k5"})
	m.becomesAnswer(c, "orders", 401, "Failed to inject credential")
}

// A change of callees is for the next request, also on a connection that is open.
func TestOutboundCalleesChange(t *testing.T) {
	m := newOutboundMesh(t, nil)
	orders := serveCallee(t, m.ca.leaf("spiffe://"+trustDomain+"/orders/one", nil))
	stock := serveCallee(t, m.ca.leaf("spiffe://"+trustDomain+"/stock/one", nil))
	m.publish(callee("orders", orders.address))
	c := client(t, true) // Envoy closes an HTTP/1.1 connection whose request it refuses before the body came
	m.becomesAnswer(c, "orders", 200, "https://orders")
	m.becomesAnswer(c, "stock", 404, "callee_unknown")
	m.publish(callee("orders", orders.address), callee("stock", stock.address))
	m.becomesAnswer(c, "stock", 200, "https://stock")
	m.publish(callee("stock", stock.address))
	m.becomesAnswer(c, "orders", 404, "callee_unknown")
	m.becomesAnswer(c, "stock", 200, "https://stock")
	if _, stats, err := m.get("/stats?filter=http.outbound.downstream_cx_total"); err != nil || !strings.Contains(stats, "downstream_cx_total: 1\n") {
		t.Errorf("connections of the service: %q, %v; want one", stats, err)
	}
}

// The inbound side shows the certificate of its instance, over TLS 1.3 alone, and
// is what an outbound side verifies: here, of the same Envoy.
func TestInboundTLS(t *testing.T) {
	in := &dataplanev1.Inbound{Address: "127.0.0.1", Port: freePort(t), LocalIp: "127.0.0.1", LocalPort: serveUpstream(t), Tls: true}
	address := fmt.Sprintf("127.0.0.1:%d", in.GetPort())
	m := newOutboundMesh(t, in, callee("web", address))
	for _, h2 := range []bool{false, true} {
		a := m.becomesAnswer(client(t, h2), "web", 200, "k1.web/one.https://web")
		if want := map[bool]string{false: "HTTP/1.1", true: "HTTP/2.0"}[h2]; a.seen.Proto != want {
			t.Errorf("the service saw %s, want %s", a.seen.Proto, want)
		}
	}
	cas := x509.NewCertPool()
	cas.AddCert(m.ca.cert)
	for proto, alpn := range map[string]string{"h2": "h2", "http/1.1": "http/1.1", "": ""} {
		config := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13} // by the SPIFFE ID, below
		if proto != "" {
			config.NextProtos = []string{proto}
		}
		c, err := tls.Dial("tcp", address, config)
		if err != nil {
			t.Fatal(err)
		}
		state := c.ConnectionState()
		c.Close()
		leaf := state.PeerCertificates[0]
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: cas}); err != nil || len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://"+trustDomain+"/web/one" {
			t.Errorf("it shows %v (%v), want the certificate of its instance", leaf.URIs, err)
		}
		if state.NegotiatedProtocol != alpn {
			t.Errorf("ALPN %q: got %q, want %q", proto, state.NegotiatedProtocol, alpn)
		}
	}
	if c, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}); err == nil {
		c.Close()
		t.Error("TLS 1.2 is spoken, want 1.3 alone")
	}
	if res, err := http.Get("http://" + address); err == nil {
		res.Body.Close()
		t.Errorf("plain text is answered with %s, want nothing", res.Status)
	}
}
