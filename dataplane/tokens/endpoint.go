package tokens

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// assertionType is RFC 7523 section 2.2.
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
	// askTimeout is how long one request may take.
	askTimeout = 10 * time.Second
	// maxAnswer is the largest body that is read, in bytes.
	maxAnswer = 64 << 10
)

// endpoint is the token endpoint of an STS.
type endpoint struct {
	config   Config
	client   *http.Client
	own      *http.Transport // nil: the client is the caller's
	metadata discovery
}

func newEndpoint(c Config) *endpoint {
	e := &endpoint{config: c, client: &http.Client{}}
	if c.HTTPClient != nil {
		*e.client = *c.HTTPClient
	} else {
		e.own = newTransport(c.Authorities)
		e.client.Transport = e.own
	}
	// What is sent proves who we are, so it goes where it was meant to go alone.
	e.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	e.metadata = discovery{issuer: c.Issuer, fetch: e.fetch}
	return e
}

func (e *endpoint) close() {
	if e.own != nil {
		e.own.CloseIdleConnections()
	}
}

// newTransport verifies the host name as crypto/tls does, by the authorities of the
// moment.
func newTransport(authorities func() []*x509.Certificate) *http.Transport {
	t := &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: askTimeout}
	t.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		d := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots(authorities)}}
		return d.DialContext(ctx, network, address)
	}
	return t
}

// roots are those of the system and the authorities; nil is those of the system.
func roots(authorities func() []*x509.Certificate) *x509.CertPool {
	if authorities == nil {
		return nil
	}
	pool, err := x509.SystemCertPool()
	if err != nil { // a system without; the authorities may do
		pool = x509.NewCertPool()
	}
	for _, c := range authorities() {
		pool.AddCert(c)
	}
	return pool
}

// ask makes one request for a token.
func (e *endpoint) ask(ctx context.Context, audience string) (*held, *Error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	to, err := e.tokenURL(ctx)
	if err != nil {
		return nil, &Error{Audience: audience, Err: err}
	}
	began := e.config.Now() // the life of the token counts from here, to be on the safe side
	got, err := e.request(ctx, to, audience)
	if err != nil {
		refusal := &Error{}
		if !errors.As(err, &refusal) {
			refusal = &Error{Err: err}
		}
		refusal.Audience = audience
		if !refusal.final() {
			e.metadata.forget()
		}
		return nil, refusal
	}
	return got.hold(began, e.config.MaxAge), nil
}

func (e *endpoint) tokenURL(ctx context.Context) (string, error) {
	if e.config.TokenURL != "" {
		return e.config.TokenURL, nil
	}
	return e.metadata.tokenURL(ctx)
}

func (e *endpoint) request(ctx context.Context, to, audience string) (answer, error) {
	// An assertion is good once, so each request has its own.
	assertion, err := e.config.Assertion(e.config.Now())
	if err != nil {
		return answer{}, fmt.Errorf("making the client assertion: %w", err)
	}
	form := url.Values{
		"grant_type":            {"client_credentials"},
		"client_assertion_type": {assertionType},
		"client_assertion":      {assertion},
		"audience":              {audience},
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	resp, body, err := e.do(req)
	if err != nil {
		return answer{}, err
	}
	if resp.StatusCode == http.StatusOK {
		return parseAnswer(body)
	}
	return answer{}, refusal(resp, body)
}

// fetch reads a document.
func (e *endpoint) fetch(ctx context.Context, from string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, body, err := e.do(req)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers with status %d", from, resp.StatusCode)
	}
	return body, err
}

// do reads the whole answer, if it isn't too large.
func (e *endpoint) do(req *http.Request) (*http.Response, []byte, error) {
	resp, err := e.client.Do(req)
	if err != nil {
		return nil, nil, fmt.Errorf("asking the STS: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = errors.New("it is larger than 64 KiB")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("reading the answer of %s: %w", req.URL, err)
	}
	return resp, body, nil
}

// refusal reads what isn't a token. Who can't be told from a proxy in between has
// refused nothing.
func refusal(resp *http.Response, body []byte) *Error {
	e := &Error{Err: fmt.Errorf("%s answers with status %d, and not as a token endpoint does", resp.Request.URL, resp.StatusCode)}
	if code, ok := parseRefusal(body); ok {
		e.Code, e.Err = code, nil
	}
	if resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500 {
		if e.Code != "" {
			e.Code = codeUnavailable
		}
		if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 && n < 3600 {
			e.after = time.Duration(n) * time.Second
		}
	}
	return e
}
