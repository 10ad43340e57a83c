package tokens

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/watchword-mesh/watchword/dataplane/reason"
)

// callee is a service behind a data plane, over real TLS.
type callee struct {
	*httptest.Server
	mu sync.Mutex
	// got is the Authorization and the body of each request.
	got    []string
	bodies []string
	// refuse says why a request is refused; empty: it isn't.
	refuse func(n int, token string) reason.Word
}

func newCallee(tb testing.TB) *callee {
	tb.Helper()
	c := &callee{}
	c.Server = httptest.NewTLSServer(c)
	tb.Cleanup(c.Close)
	return c
}

func (c *callee) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, r.Header.Get("Authorization"))
	c.bodies = append(c.bodies, string(body))
	if to := r.URL.Query().Get("to"); to != "" {
		http.Redirect(w, r, to, http.StatusTemporaryRedirect)
		return
	}
	if c.refuse == nil {
		return
	}
	word := c.refuse(len(c.got), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
	if word == "" {
		return
	}
	w.Header().Set(reason.Header, string(word))
	if word.Status() == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q, error=\"invalid_token\", error_description=%q", "orders", word))
	}
	w.WriteHeader(word.Status())
	_, _ = io.WriteString(w, word.Body())
}

// taken gives the requests since the last call.
func (c *callee) taken() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	got := c.got
	c.got, c.bodies = nil, nil
	return got
}

// caller is a client of callees whose certificates it takes.
func caller(tb testing.TB, c *callee, t Tokens, audience func(*http.Request) (string, bool)) *http.Client {
	tb.Helper()
	base := c.Client().Transport.(*http.Transport).Clone()
	base.TLSClientConfig.InsecureSkipVerify = true // the certificates of all callees are the same
	tb.Cleanup(base.CloseIdleConnections)
	return &http.Client{Transport: &Transport{Base: base, Tokens: t, Audience: audience}}
}

func always(*http.Request) (string, bool) { return "orders", true }

// do makes a request and closes the response.
func do(tb testing.TB, client *http.Client, req *http.Request) (*http.Response, error) {
	tb.Helper()
	resp, err := client.Do(req)
	if err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
	return resp, err
}

func request(tb testing.TB, method, to string, body io.Reader) *http.Request {
	tb.Helper()
	req, err := http.NewRequestWithContext(tb.Context(), method, to, body)
	if err != nil {
		tb.Fatal(err)
	}
	return req
}

// A request gets a token; the caller's request and the response don't show it.
func TestTransportAttaches(t *testing.T) {
	s := newSTS(t).source(t)
	defer s.Close()
	orders := newCallee(t)
	client := caller(t, orders, s, always)
	req := request(t, "GET", orders.URL, nil)
	resp, err := do(t, client, req)
	want := mustToken(t, s, "orders").authorization()
	if got := orders.taken(); err != nil || len(got) != 1 || got[0] != want {
		t.Fatalf("%v, callee got %d requests; want one with the token", err, len(got))
	}
	if len(req.Header) != 0 || resp.Request.Header.Get("Authorization") != "" {
		t.Errorf("the request of the caller was changed, or the response shows the token: %v", resp.Request.Header)
	}
	// What the caller has set stays, also if it is empty.
	req.Header["Authorization"] = []string{"Basic x"}
	if _, err := do(t, client, req); err != nil || orders.taken()[0] != "Basic x" {
		t.Errorf("%v; the caller's Authorization was replaced", err)
	}
	req.Header["Authorization"] = nil
	if _, err := do(t, client, req); err != nil || orders.taken()[0] != "" {
		t.Errorf("%v; a request that must have none got one", err)
	}
}

// A host that is none of the mesh gets no token.
func TestTransportAsksForTheAudience(t *testing.T) {
	sts := newSTS(t)
	s := sts.source(t)
	defer s.Close()
	other := newCallee(t)
	client := caller(t, other, s, func(*http.Request) (string, bool) { return "", false })
	if _, err := do(t, client, request(t, "GET", other.URL, nil)); err != nil || other.taken()[0] != "" || sts.count() != 0 {
		t.Errorf("%v; a token was asked for or sent", err)
	}
}

// Plain text that leaves the host: the request fails, and no token is asked for.
func TestTransportRefusesPlainText(t *testing.T) {
	sts := newSTS(t)
	s := sts.source(t)
	defer s.Close()
	sent := 0
	base := roundTripper(func(req *http.Request) (*http.Response, error) {
		sent++
		return &http.Response{StatusCode: 200, Body: http.NoBody, Request: req}, nil
	})
	tr := &Transport{Base: base, Tokens: s, Audience: always}
	for to, ok := range map[string]bool{
		"http://orders.test/": false, "http://10.0.0.1/": false, "http://127.0.0.1.evil.test/": false, "ws://127.0.0.1/": false,
		"http://127.0.0.1:80/": true, "http://[::1]/": true, "http://localhost:8080/": true, "https://orders.test/": true,
	} {
		sent = 0
		body := &closeWatch{Reader: strings.NewReader("x")}
		_, err := tr.RoundTrip(request(t, "POST", to, body))
		if ok != (err == nil) || (sent == 1) != ok {
			t.Errorf("%s: %v, sent %d; want it sent: %v", to, err, sent, ok)
		}
		if !ok && (!strings.Contains(err.Error(), "use https, or call through a sidecar") || !body.closed) {
			t.Errorf("%s: %v, body closed %v; want the way out, and the body closed", to, err, body.closed)
		}
	}
}

type closeWatch struct {
	io.Reader
	closed bool
}

func (c *closeWatch) Close() error { c.closed = true; return nil }

// A redirect to another host takes no token along, whatever the audience function
// says; not back again either. On the same host it does.
func TestTransportRedirects(t *testing.T) {
	s := newSTS(t).source(t)
	defer s.Close()
	orders, other := newCallee(t), newCallee(t)
	client := caller(t, orders, s, always)
	token := mustToken(t, s, "orders").authorization()
	for _, c := range []struct {
		name, to      string
		orders, other []string
	}{
		{"same host", orders.URL + "/next", []string{token, token}, nil},
		{"another port", other.URL, []string{token}, []string{""}},
		{"there and back", other.URL + "/?to=" + url.QueryEscape(orders.URL), []string{token, ""}, []string{""}},
	} {
		_, err := do(t, client, request(t, "GET", orders.URL+"/?to="+url.QueryEscape(c.to), nil))
		if got, gotOther := orders.taken(), other.taken(); err != nil || fmt.Sprint(got) != fmt.Sprint(c.orders) || fmt.Sprint(gotOther) != fmt.Sprint(c.other) {
			t.Errorf("%s: %v; orders got %d (%d tokens), the other %d (%d)", c.name, err, len(got), tokensIn(got), len(gotOther), tokensIn(gotOther))
		}
	}
}

func tokensIn(all []string) (n int) {
	for _, a := range all {
		if a != "" {
			n++
		}
	}
	return n
}

// A token that isn't accepted: once more with a new one, if that can help and the
// body can be had again; never a third time.
func TestTransportTriesAgain(t *testing.T) {
	for _, c := range []struct {
		name   string
		body   io.Reader
		refuse func(n int, token string) reason.Word
		status int
		sent   int
	}{
		{"expired", nil, once(reason.TokenExpired), 200, 2},
		{"revoked, with a body", bytes.NewReader([]byte("body")), once(reason.Revoked), 200, 2},
		{"a body that is gone", io.MultiReader(strings.NewReader("body")), once(reason.KeyUnknown), 401, 1},
		{"always", nil, func(int, string) reason.Word { return reason.SignatureInvalid }, 401, 2},
		{"another token is no help", nil, once(reason.TypeNotAllowed), 401, 1},
		{"denied", nil, once(reason.ConsumerDenied), 403, 1},
		{"not ours to know", nil, once("other_reason"), 403, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSTS(t).source(t)
			defer s.Close()
			orders := newCallee(t)
			orders.refuse = c.refuse
			resp, err := do(t, caller(t, orders, s, always), request(t, "POST", orders.URL, c.body))
			if err != nil {
				t.Fatal(err)
			}
			bodies := orders.bodies
			got := orders.taken()
			if resp.StatusCode != c.status || len(got) != c.sent || len(got) == 2 && got[0] == got[1] {
				t.Errorf("status %d after %d requests; want %d after %d, each with another token", resp.StatusCode, len(got), c.status, c.sent)
			}
			if c.body != nil && c.sent == 2 && (bodies[0] != "body" || bodies[1] != "body") {
				t.Errorf("bodies %q", bodies)
			}
		})
	}
}

// once refuses the first request.
func once(word reason.Word) func(int, string) reason.Word {
	return func(n int, _ string) reason.Word {
		if n == 1 {
			return word
		}
		return ""
	}
}

// If there is no other token, the caller gets the callee's answer, whole.
func TestTransportKeepsTheFirstAnswer(t *testing.T) {
	sts := newSTS(t)
	s := sts.source(t)
	defer s.Close()
	orders := newCallee(t)
	orders.refuse = func(int, string) reason.Word {
		sts.set(func(f *fakeSTS) { f.away = true })
		return reason.Revoked
	}
	resp, err := caller(t, orders, s, always).Do(request(t, "GET", orders.URL, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 401 || string(body) != reason.Revoked.Body() {
		t.Errorf("%d %q, %v; want the refusal", resp.StatusCode, body, err)
	}
}

// Without a token nothing is sent, and the caller learns why.
func TestTransportWithoutToken(t *testing.T) {
	sts := newSTS(t)
	sts.answer = func(string) (int, http.Header, string) { return 400, nil, `{"error":"invalid_target"}` }
	s := sts.source(t)
	defer s.Close()
	orders := newCallee(t)
	_, err := do(t, caller(t, orders, s, always), request(t, "GET", orders.URL, nil))
	var e *Error
	if !errors.As(err, &e) || e.Code != "invalid_target" || len(orders.taken()) != 0 {
		t.Errorf("%v; want invalid_target, and nothing sent", err)
	}
}

// Challenges as servers write them (RFC 9110 section 11.6.1).
func TestInvalidToken(t *testing.T) {
	for challenge, want := range map[string]bool{
		`Bearer realm="orders", error="invalid_token", error_description="x"`: true,
		`bearer error=invalid_token`:                                          true,
		`Bearer error = "invalid_token"`:                                      true,
		`Basic realm="a, b", Bearer error="invalid_token"`:                    true,
		`Negotiate, Bearer realm="x",error="invalid_token"`:                   true,
		`Bearer`:                            false,
		`Bearer realm="orders"`:             false,
		`Bearer error="insufficient_scope"`: false,
		`Basic error="invalid_token"`:       false,
		`Bearer realm="x", Basic realm="y", error="invalid_token"`: false,
		`Bearer realm="\", error=\"invalid_token"`:                 false,
		`Bearer error_description="error=invalid_token"`:           false,
		``:                false,
		`"`:               false,
		`Bearer realm="x`: false,
	} {
		if got := invalidToken([]string{challenge}); got != want {
			t.Errorf("%s: %v, want %v", challenge, got, want)
		}
	}
}

// Whatever a callee writes there, reading it ends.
func FuzzInvalidToken(f *testing.F) {
	f.Add(`Bearer realm="orders", error="invalid_token"`)
	f.Add(`Basic realm="\"`)
	f.Add(`=,= "\`)
	f.Fuzz(func(t *testing.T, challenge string) {
		if invalidToken([]string{challenge}) && !strings.Contains(challenge, "invalid_token") {
			t.Errorf("%q", challenge)
		}
	})
}
