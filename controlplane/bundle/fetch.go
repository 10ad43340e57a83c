package bundle

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	maxRedirects   = 3
	maxHeaderBytes = 32 << 10
	maxETagBytes   = 1 << 10
)

// response is what a source said.
type response struct {
	// notModified: the set is that of the entity tag which was sent.
	notModified bool
	body        []byte
	etag        string
	// maxAge is for how long the source wants its answer used; 0 if it does
	// not say.
	maxAge time.Duration
}

// fetch gets a key set. The error never holds what the server said, but for
// its status, and never the URI, which may hold a secret in its query.
func fetch(ctx context.Context, s Source, etag string) (response, error) {
	target, err := parseURI(s.JWKSURI.GetUri())
	if err != nil {
		return response{}, fmt.Errorf("uri: %w", err)
	}
	transport, err := s.transport(ctx, target)
	if err != nil {
		return response{}, err
	}
	for range maxRedirects + 1 {
		resp, err := get(ctx, transport, target, etag)
		if err != nil {
			return response{}, s.explain(ctx, err)
		}
		next, err := redirect(target, resp)
		if err != nil || next == nil {
			return s.answer(ctx, resp, etag, err)
		}
		_ = resp.Body.Close()
		target = next
	}
	return response{}, fmt.Errorf("the server redirects more than %d times", maxRedirects)
}

// parseURI refuses what a key set can't be at. policy.Check refuses the same
// where it is written.
func parseURI(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Opaque != "" || u.Hostname() == "":
		return nil, errors.New("is not a URL such as https://idp.example.com/jwks.json")
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, errors.New("begins with neither https:// nor http://")
	case u.User != nil:
		return nil, errors.New("holds a user or password; they would be shown wherever the URI is")
	}
	u.Fragment = ""
	return u, nil
}

// transport is made anew for each fetch and keeps no connection: names are
// resolved and addresses checked each time.
func (s Source) transport(ctx context.Context, target *url.URL) (*http.Transport, error) {
	nets, err := parseNetworks(s.JWKSURI.GetAllowNetworks(), target.Scheme == "http")
	if err != nil {
		return nil, err
	}
	tlsConfig, err := s.tls()
	if err != nil {
		return nil, err
	}
	t := &http.Transport{
		TLSClientConfig:        tlsConfig,
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeaderBytes,
		// Proxy is nil: what the environment says is not looked at.
	}
	control := nets.control
	if text := s.JWKSURI.GetProxy(); text != "" {
		proxy, err := parseProxy(text)
		if err != nil {
			return nil, err
		}
		if err := nets.behindProxy(ctx, target.Hostname()); err != nil {
			return nil, err
		}
		t.Proxy = http.ProxyURL(proxy)
		t.OnProxyConnectResponse = connected
		// Only the way to the proxy is dialled here, and it is plain http
		// always.
		control = networks{allowed: nets.allowed}.control
	}
	// A dialer without a resolver of its own uses the host's.
	t.DialContext = (&net.Dialer{Control: control}).DialContext
	return t, nil
}

func parseProxy(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" || u.Host == "" || u.Opaque != "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		return nil, errors.New("proxy: is not of the form http://HOST:PORT")
	}
	return u, nil
}

// behindProxy checks a target that a proxy will connect to. Whom the proxy
// really reaches is the proxy's to say: it resolves the name itself. So all
// addresses that the name has here must be allowed, and a name that has none
// here is refused, unless every address is allowed.
func (n networks) behindProxy(ctx context.Context, host string) error {
	if a, err := netip.ParseAddr(host); err == nil {
		return n.check(a)
	}
	if n.everything() {
		return nil
	}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(addrs) == 0 {
		return fmt.Errorf("%s does not resolve here, so that where the proxy would connect to can't be checked; if the proxy may decide that, set keySet.jwksUri.allowNetworks to 0.0.0.0/0 and ::/0", clip(host))
	}
	for _, a := range addrs {
		if err := n.check(a); err != nil {
			return err
		}
	}
	return nil
}

func connected(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode != http.StatusOK {
		return proxyError(resp.StatusCode)
	}
	return nil
}

// proxyError is the status that a proxy refuses with.
type proxyError int

func (e proxyError) Error() string {
	return fmt.Sprintf("the proxy answers CONNECT with status %d", int(e))
}

func (s Source) tls() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if text := s.JWKSURI.GetCa(); text != "" {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM([]byte(text)) {
			return nil, errors.New("ca: holds no certificate in PEM")
		}
	}
	certificate, key := s.JWKSURI.GetClientCertificate(), s.JWKSURI.GetClientKey()
	if certificate == "" && key == "" {
		return c, nil
	}
	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	if err != nil {
		// The error of crypto/tls may tell of the key.
		return nil, errors.New("clientCertificate and clientKey: are not a certificate in PEM and its private key")
	}
	c.Certificates = []tls.Certificate{pair}
	return c, nil
}

// get makes one request. There is no http.Client around the transport: its
// redirects and errors are not ours.
func get(ctx context.Context, t *http.Transport, target *url.URL, etag string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	req.Header.Set("User-Agent", "watchword")
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	return t.RoundTrip(req)
}

// redirect returns where a response points to, nil if nowhere. To another
// server it would move the trust in the keys, so it is an error.
func redirect(from *url.URL, resp *http.Response) (*url.URL, error) {
	switch resp.StatusCode {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
	default:
		return nil, nil
	}
	to, err := from.Parse(resp.Header.Get("Location"))
	if err != nil || resp.Header.Get("Location") == "" || to.User != nil {
		return nil, fmt.Errorf("the server redirects (status %d) without a usable place", resp.StatusCode)
	}
	if to.Scheme != from.Scheme || !strings.EqualFold(to.Hostname(), from.Hostname()) || port(to) != port(from) {
		return nil, fmt.Errorf("the server redirects to another place, %s, which is not followed; if the keys are meant to come from there, write its URI", clip(printable(to.Scheme+"://"+to.Host)))
	}
	to.Fragment = ""
	return to, nil
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return map[string]string{"http": "80", "https": "443"}[u.Scheme]
}

// answer reads a response that is the last one, and closes it.
func (s Source) answer(ctx context.Context, resp *http.Response, etag string, err error) (response, error) {
	defer resp.Body.Close()
	out := response{maxAge: maxAge(resp.Header.Values("Cache-Control")), etag: tag(resp.Header)}
	switch {
	case err != nil:
		return response{}, err
	case resp.StatusCode == http.StatusNotModified && etag != "":
		out.notModified, out.etag = true, etag
		return out, nil
	case resp.StatusCode != http.StatusOK:
		return response{}, fmt.Errorf("the server answers with status %d, not 200", resp.StatusCode)
	}
	out.body, err = io.ReadAll(io.LimitReader(resp.Body, MaxBytes+1))
	if err == nil {
		// A server that sees us hang up may end its half answer in good order,
		// and be faster than the end of our connection.
		err = ctx.Err()
	}
	if err != nil {
		return response{}, s.explain(ctx, err)
	}
	return out, nil
}

// tag is the entity tag (RFC 9110 section 8.8.3), if it can be sent back.
func tag(h http.Header) string {
	if t := h.Get("ETag"); len(t) <= maxETagBytes {
		return t
	}
	return ""
}

// maxAge reads Cache-Control (RFC 9111 section 5.2.2). Who forbids to store an
// answer says nothing about how long it holds: that counts as silence.
func maxAge(values []string) time.Duration {
	age := time.Duration(0)
	for _, directive := range strings.Split(strings.Join(values, ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "no-store", "no-cache":
			return 0
		case "max-age":
			seconds, err := strconv.ParseUint(strings.Trim(strings.TrimSpace(value), `"`), 10, 31)
			if err == nil && age == 0 {
				// At once is as soon as it gets.
				age = max(time.Duration(seconds)*time.Second, MinInterval)
			}
		}
	}
	return age
}

// explain says what went wrong, in words of ours and of those packages whose
// errors are about the connection. Others quote what the server sent.
func (s Source) explain(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	if errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return fmt.Errorf("no whole answer within %s (keySet.jwksUri.timeout)", s.timeout())
	}
	var (
		address     *AddressError
		proxy       proxyError
		connection  *net.OpError
		certificate *tls.CertificateVerificationError
		record      tls.RecordHeaderError
	)
	switch {
	case errors.As(err, &address):
		return address
	case errors.As(err, &proxy):
		return proxy
	case errors.As(err, &certificate):
		return said(certificate)
	case errors.As(err, &connection):
		return said(connection)
	case errors.As(err, &record) && string(record.RecordHeader[:]) == "HTTP/":
		return errors.New("the server answers in HTTP without TLS")
	case errors.As(err, &record):
		return said(record)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("the connection ended before the answer did")
	}
	return errors.New("the server's answer is not HTTP, or its header is too large")
}

// said bounds a text that may hold names from elsewhere.
func said(err error) error { return errors.New(clipError(printable(err.Error()))) }

func clipError(s string) string {
	const most = 300
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

// printable takes control characters out of what may come from elsewhere.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}
