package attack

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// times runs f in so many goroutines, again and again until ctx ends.
func times(ctx context.Context, goroutines int, f func()) (calls int) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for range goroutines {
		all.Go(func() {
			for ctx.Err() == nil {
				f()
				mu.Lock()
				calls++
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return calls
}

// status sends a request, and returns 0 if the connection was cut.
func status(h *http.Client, method, at string, header http.Header, body io.Reader) int {
	req, err := http.NewRequest(method, at, body)
	if err != nil {
		return -1
	}
	if header != nil {
		req.Header = header
	}
	res, err := h.Do(req)
	if err != nil {
		return 0
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.StatusCode
}

// Headers and bodies beyond the limits are refused, and not kept.
func large(c *castle) func(context.Context, *testing.T) {
	return func(ctx context.Context, t *testing.T) {
		h := c.HTTP(t)
		const one = "application/x-www-form-urlencoded"
		big := strings.Repeat("x", 1<<20)
		header := http.Header{"X-Large": {big[:200<<10]}}
		n := times(ctx, 4, func() {
			for _, at := range []string{c.IssuerURL() + "/jwks", "https://" + c.Config.AdminListen + "/v1/self"} {
				if got := status(h, "GET", at, header.Clone(), nil); got != 0 && got != http.StatusRequestHeaderFieldsTooLarge {
					t.Errorf("200 KiB of header to %s: %d", at, got)
				}
			}
			if got := status(h, "POST", c.TokenURL(), http.Header{"Content-Type": {one}}, strings.NewReader(big)); got != 0 && got != http.StatusRequestEntityTooLarge && got != http.StatusTooManyRequests {
				t.Errorf("1 MiB of body to the token endpoint: %d", got)
			}
			if got := status(h, "POST", "https://"+c.Config.AdminListen+"/v1/apply", nil, io.LimitReader(rand.Reader, 64<<20)); got != 0 && got != http.StatusUnauthorized {
				t.Errorf("64 MiB of body of a stranger to the admin API: %d", got)
			}
		})
		t.Logf("%d rounds", n)
		h.CloseIdleConnections()
	}
}

// Streams that are opened and reset at once (CVE-2023-44487), and streams that are
// never ended, at each door that speaks HTTP/2.
func rapidReset(c *castle) func(context.Context, *testing.T) {
	return func(ctx context.Context, t *testing.T) {
		var all sync.WaitGroup
		for _, address := range []string{c.Config.STSListen, c.Config.XDSListen, c.Config.AdminListen} {
			for _, reset := range []bool{true, false} {
				all.Go(func() {
					n := 0
					for ctx.Err() == nil {
						got, err := streams(ctx, address, reset)
						if n += got; err != nil && !errors.Is(err, errCut) {
							t.Errorf("%s: %v", address, err)
							return
						}
					}
					t.Logf("%s: %d streams, reset %t", address, n, reset)
				})
			}
		}
		all.Wait()
	}
}

var errCut = errors.New("the connection was cut")

// streams opens up to 20,000 streams on one connection.
func streams(ctx context.Context, address string, reset bool) (n int, err error) {
	conn, err := tls.DialWithDialer(&net.Dialer{}, "tcp", address, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	go func() { _, _ = io.Copy(io.Discard, conn) }()
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return 0, errCut
	}
	f := http2.NewFramer(conn, nil)
	if err := f.WriteSettings(); err != nil {
		return 0, errCut
	}
	block := headers()
	for ; n < 20_000; n++ {
		id := uint32(2*n + 1)
		err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true})
		if err == nil && reset {
			err = f.WriteRSTStream(id, http2.ErrCodeCancel)
		}
		if err != nil {
			return n, errCut
		}
	}
	return n, nil
}

// headers fit each of the servers. Nothing of them gets into hpack's table.
func headers() []byte {
	var b strings.Builder
	e := hpack.NewEncoder(&b)
	for _, h := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":authority", "x"},
		{":path", "/watchword.enrolment.v1.EnrolmentService/Enrol"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
		_ = e.WriteField(hpack.HeaderField{Name: h[0], Value: h[1], Sensitive: true}) // a Builder takes all
	}
	return []byte(b.String())
}

// Wrong secrets and assertions hear no, and the right client, from the same
// address, gets its tokens.
func wrongClients(c *castle) func(context.Context, *testing.T) {
	return func(ctx context.Context, t *testing.T) {
		h := c.HTTP(t)
		forms := []url.Values{
			{"grant_type": {"client_credentials"}, "audience": {"orders"}, "client_id": {"shop"}, "client_secret": {"wwcs_wrong"}},
			{"grant_type": {"client_credentials"}, "audience": {"orders"}, "client_assertion": {wrongAssertion},
				"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}},
		}
		n := times(ctx, 16, func() {
			for _, form := range forms {
				res, err := h.PostForm(c.TokenURL(), form)
				if err != nil {
					continue
				}
				_ = res.Body.Close()
				switch res.StatusCode {
				case http.StatusUnauthorized, http.StatusTooManyRequests, http.StatusServiceUnavailable:
				default:
					t.Errorf("a wrong client: %s", res.Status)
				}
			}
		})
		t.Logf("%d wrong requests", 2*n)
		h.CloseIdleConnections()
	}
}

// wrongAssertion is well-formed, so that its signature has to be verified.
var wrongAssertion = "eyJhbGciOiJFUzI1NiIsImtpZCI6Im5vYm9keSJ9.eyJpc3MiOiJzaG9wIiwic3ViIjoic2hvcCJ9." + strings.Repeat("AQEB", 21) + "AQ"
