package dataplane

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// A ruleset that goes between the decision on a request and the moment from which it is
// watched ends it all the same.
func TestRevokedWhileAdmitted(t *testing.T) {
	var calls atomic.Int64
	var armed atomic.Bool
	var d *DataPlane
	d = plane(t, func(c *Config) {
		c.Now = func() time.Time {
			if armed.Load() && calls.Add(1) == 2 { // 1: decide; 2: argument of watch
				armed.Store(false)
				if err := d.resources.Remove(rulesetType, "orders"); err != nil {
					t.Error(err)
				}
			}
			return time.Now()
		}
	})
	enforce(t, d, rulesetWith(strict(`,"endStreams":true`)))
	ended := make(chan bool, 1)
	s := httptest.NewServer(d.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
			ended <- true
		case <-time.After(3 * time.Second):
			ended <- false
		}
	})))
	defer s.Close()
	armed.Store(true)
	req, _ := http.NewRequest("GET", s.URL, nil)
	req.Header.Set("Authorization", "Bearer "+jwt())
	res, err := http.DefaultTransport.RoundTrip(req)
	if err == nil {
		res.Body.Close()
	}
	if !<-ended {
		t.Error("stream that the ruleset in force would not let in goes on; want it ended")
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

// A ruleset that goes while a request with trailers is on its way costs no answer.
func TestRemovedWhileAdmitted(t *testing.T) {
	var calls atomic.Int64
	var armed atomic.Bool
	var d *DataPlane
	d = plane(t, func(c *Config) {
		c.Now = func() time.Time {
			if armed.Load() && calls.Add(1) == 2 {
				armed.Store(false)
				_ = d.resources.Remove(rulesetType, "orders")
			}
			return time.Now()
		}
	})
	enforce(t, d, rulesetWith(strict("")))
	address := serve(t, d)
	armed.Store(true)
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nAuthorization: Bearer "+jwt()+
		"\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n")
	b, _ := io.ReadAll(c)
	if len(b) == 0 {
		t.Error("nil dereference in onward (see the log)")
	}
}

// Streams of HTTP/2 that end behind a handler that swallows panics, as those of web
// frameworks do: nothing of a response is touched that is over.
func TestEndedBehindRecovery(t *testing.T) {
	d := plane(t, nil)
	text := rulesetWith(strict(`,"endStreams":true`))
	enforce(t, d, text)
	h := d.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { _ = recover() }()
		h.ServeHTTP(w, r)
	}))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	defer s.Close()
	client := &http.Transport{Protocols: new(http.Protocols)}
	client.Protocols.SetUnencryptedHTTP2(true)
	defer client.CloseIdleConnections()
	token := jwt()
	for range 20 {
		enforce(t, d, text)
		done := make(chan struct{})
		const n = 20
		for range n {
			go func() {
				defer func() { done <- struct{}{} }()
				req, _ := http.NewRequest("GET", s.URL, nil)
				req.Header.Set("Authorization", "Bearer "+token)
				if res, err := client.RoundTrip(req); err == nil {
					_, _ = io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
			}()
		}
		for {
			d.guard.live.mu.Lock()
			k := len(d.guard.live.all)
			d.guard.live.mu.Unlock()
			if k == n {
				break
			}
			runtime.Gosched()
		}
		_ = d.resources.Remove(rulesetType, "orders")
		for range n {
			<-done
		}
	}
}

type panics struct {
	grpc_testing.UnimplementedTestServiceServer
}

func (panics) FullDuplexCall(stream grpc_testing.TestService_FullDuplexCallServer) error {
	panic("a bug of the handler")
}

// A handler of a stream that panics does so where an interceptor outside can see it.
func TestStreamPanics(t *testing.T) {
	d := plane(t, nil)
	enforce(t, d, rulesetWith(strict(`,"endStreams":true`)))
	recovery := func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("recovered: %v", p)
			}
		}()
		return h(srv, ss)
	}
	g := grpc.NewServer(grpc.ChainStreamInterceptor(recovery, d.StreamInterceptor()))
	grpc_testing.RegisterTestServiceServer(g, panics{})
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	go g.Serve(l)
	defer g.Stop()
	conn, _ := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	defer conn.Close()
	st, err := grpc_testing.NewTestServiceClient(conn).FullDuplexCall(bearing(t.Context(), jwt()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err = st.Recv(); err == nil || !strings.Contains(err.Error(), "recovered: a bug of the handler") {
		t.Errorf("the stream ended with %v, want what the recovery made of the panic", err)
	}
}

// What somebody in front of the middleware has parsed is not what the handler gets.
func TestParsedBefore(t *testing.T) {
	d := plane(t, nil)
	enforce(t, d, rulesetWith(`{"match":{},"authentication":{"mode":"STRICT","rules":[`+rule(`,"outputClaims":[{"claimPath":["sub"],"query":"user"},{"claimPath":["sub"],"form":"who"}]`)+`]}}`))
	var user, who string
	h := d.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { user, who = r.FormValue("user"), r.FormValue("who") }))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.FormValue("_method") // as a method override, or a log of a parameter
		h.ServeHTTP(w, r)
	}))
	defer s.Close()
	req, _ := http.NewRequest("GET", s.URL+"/?user=admin", nil)
	req.Header.Set("Authorization", "Bearer "+jwt())
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	if user != "spiffe://mesh.local/frontend" {
		t.Errorf("query: got %d user %q, want the claim", res.StatusCode, user)
	}
	_ = who
}

// Closing the body brings trailers, too.
func TestTrailerAfterClose(t *testing.T) {
	d := plane(t, nil)
	enforce(t, d, rulesetWith(strict("")))
	var got http.Header
	s := httptest.NewServer(d.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body.Close()
		got = r.Trailer.Clone()
	})))
	defer s.Close()
	send(t, s.Listener.Addr().String(), "POST / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-Watchword-Caller\r\nAuthorization: Bearer "+jwt()+
		"\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\nX-Watchword-Caller: evil\r\n\r\n")
	if got.Get("X-Watchword-Caller") != "" {
		t.Errorf("trailer of the handler: %v, want none of ours", got)
	}
}

// A caller can not have the headers that say who it is removed by a proxy behind.
func TestConnectionNamesOurs(t *testing.T) {
	d := plane(t, nil)
	enforce(t, d, rulesetWith(strict("")))
	var got http.Header
	back := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Clone() }))
	defer back.Close()
	u, _ := url.Parse(back.URL)
	s := httptest.NewServer(d.Middleware(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(u) }}))
	defer s.Close()
	send(t, s.Listener.Addr().String(), "GET / HTTP/1.1\r\nHost: orders\r\nConnection: close, X-Watchword-Caller, X-Watchword-Issuer\r\nAuthorization: Bearer "+jwt()+"\r\n\r\n")
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
	if got.Get("X-Watchword-Caller") == "" {
		t.Errorf("service got %v, want X-Watchword-Caller", got)
	}
}

// A remembered token keeps nothing of the request that it came in.
func TestMemoIsBounded(t *testing.T) {
	d := plane(t, func(c *Config) { c.MemoBytes = 1 << 20 })
	enforce(t, d, rulesetWith(`{"match":{},"authentication":{"mode":"STRICT","rules":[`+rule(`,"fromParams":[{"name":"jwt"}]`)+`]}}`))
	pad := strings.Repeat("x", 900<<10)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	h := d.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	for i := range 300 {
		r := httptest.NewRequest("GET", "/?jwt="+jwt("n", i)+"&pad="+pad, nil)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 200 {
			t.Fatal(w.Code, w.Body)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	got := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	if got > 8<<20 {
		t.Errorf("memo of 1 MiB holds %d MiB", got>>20)
	}
	runtime.KeepAlive(d)
}

// A lease that goes ends streams like a ruleset that goes.
func TestLeaseEndsStreams(t *testing.T) {
	d := plane(t, nil)
	text := strings.Replace(rulesetWith(strict(`,"endStreams":true`)), `{"service":"orders"`, `{"service":"orders","leased":true`, 1)
	enforce(t, d, text)
	lease(t, d, time.Now().Add(time.Hour))
	started, ended := make(chan bool), make(chan bool, 1)
	s := httptest.NewServer(d.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(started)
		select {
		case <-r.Context().Done():
			ended <- true
		case <-time.After(2 * time.Second):
			ended <- false
		}
	})))
	defer s.Close()
	go func() {
		req, _ := http.NewRequest("GET", s.URL, nil)
		req.Header.Set("Authorization", "Bearer "+jwt())
		if res, err := http.DefaultTransport.RoundTrip(req); err == nil {
			res.Body.Close()
		}
	}()
	<-started
	if err := d.resources.Remove(leaseType, leaseName); err != nil {
		t.Fatal(err)
	}
	if d.Serving() {
		t.Error("serving")
	}
	if !<-ended {
		t.Error("the lease is gone, new requests get 503, and the stream goes on")
	}
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

// A callee that is known by its SPIFFE ID is not called through a proxy.
func TestNoProxyToCallees(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("HTTPS_PROXY", "http://"+l.Addr().String())
	seen := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b := make([]byte, 200)
		n, _ := c.Read(b)
		seen <- string(b[:n])
	}()
	d := plane(t, nil)
	d.outbound.put(&dataplanev1.Outbound{Service: "frontend", Callees: []*dataplanev1.Callee{{
		Service: "orders", Audience: "orders", Hosts: []string{"orders"}, Endpoints: []string{"127.0.0.1:1"}, SpiffeId: "spiffe://mesh.local/orders",
	}}})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, "GET", "https://orders/", nil)
	_, err = d.meshTransport().RoundTrip(req)
	if err == nil {
		t.Error("there is an answer, and nobody to give it")
	}
	select {
	case s := <-seen:
		t.Errorf("went to the proxy: %q; TLS there is by TLSClientConfig (host names), not by the SPIFFE ID", s)
	case <-time.After(100 * time.Millisecond):
	}
}

// A connection that a handler has taken ends with its token, also when the handler has
// returned and left it to a goroutine.
func TestTakenConnectionEnds(t *testing.T) {
	d := plane(t, nil)
	enforce(t, d, rulesetWith(strict(`,"endStreams":true`)))
	over := make(chan error, 1)
	s := httptest.NewServer(d.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		go func() {
			_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\n\r\n")
			_ = rw.Flush()
			_, err := rw.ReadByte()
			_ = c.Close()
			over <- err
		}()
	})))
	defer s.Close()
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: orders\r\nAuthorization: Bearer "+jwt()+"\r\n\r\n")
	if _, err := c.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if err := d.resources.Remove(rulesetType, "orders"); err != nil {
		t.Fatal(err)
	}
	if err := <-over; err == nil {
		t.Error("the connection goes on after its ruleset is gone")
	}
	d.guard.live.mu.Lock()
	defer d.guard.live.mu.Unlock()
	if n := len(d.guard.live.all); n != 0 {
		t.Errorf("%d streams are still watched", n)
	}
}
