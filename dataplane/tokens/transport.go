package tokens

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// Transport attaches tokens to requests: `Authorization: Bearer` (RFC 6750 section
// 2.1). A request that has an Authorization already goes out as it is.
//
// It attaches nothing to a request that a redirect has led to another host: who
// redirects would else decide who gets a token of ours. Where a token would go over
// plain text, and not to a loopback address or localhost, the request fails.
//
// If the callee says that it doesn't accept the token, the request is sent once
// more with a new one, unless its body can't be had again.
type Transport struct {
	// Base makes the requests; nil means http.DefaultTransport.
	Base http.RoundTripper
	// Tokens gives the tokens.
	Tokens Tokens
	// Audience says for whom the token is that a request needs; ok is false if it
	// needs none. It should decide by the host of the URL. It is called
	// concurrently, and doesn't change the request.
	Audience func(*http.Request) (audience string, ok bool)
}

// RoundTrip makes one request, or the same twice.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	audience, ok := "", false
	if _, own := req.Header["Authorization"]; !own && !strayed(req) {
		audience, ok = t.Audience(req)
	}
	if !ok {
		return t.base().RoundTrip(req)
	}
	if err := checkChannel(req.URL); err != nil {
		return nil, refuse(req, err)
	}
	token, err := t.Tokens.Token(req.Context(), audience)
	if err != nil {
		return nil, refuse(req, err)
	}
	resp, err := t.send(req, req.Body, token)
	if err != nil || !refusedToken(resp) {
		return resp, err
	}
	return t.again(req, resp, audience, token)
}

func (t *Transport) base() http.RoundTripper {
	if t.Base != nil {
		return t.Base
	}
	return http.DefaultTransport
}

// send sends a clone. The response names the request that the caller knows: what
// is printed of it shall not show the token.
func (t *Transport) send(req *http.Request, body io.ReadCloser, token Token) (*http.Response, error) {
	clone := req.Clone(req.Context())
	clone.Body = body
	if clone.Header == nil {
		clone.Header = http.Header{}
	}
	clone.Header.Set("Authorization", token.authorization())
	resp, err := t.base().RoundTrip(clone)
	if resp != nil {
		resp.Request = req
	}
	return resp, err
}

// again sends a request once more, if that can help. Else the first response stands.
func (t *Transport) again(req *http.Request, first *http.Response, audience string, refused Token) (*http.Response, error) {
	replayable := req.Body == nil || req.Body == http.NoBody || req.GetBody != nil
	// Who can't send it again drops the token for the next request.
	if !t.Tokens.Refused(audience, refused) || !replayable {
		return first, nil
	}
	token, err := t.Tokens.Token(req.Context(), audience)
	if err != nil {
		return first, nil
	}
	body := req.Body
	if req.GetBody != nil && body != nil && body != http.NoBody {
		if body, err = req.GetBody(); err != nil {
			return first, nil
		}
	}
	discard(first)
	return t.send(req, body, token)
}

// discard makes the connection free for the next request. A long rest isn't worth it.
func discard(resp *http.Response) {
	const most = 64 << 10
	_, _ = io.CopyN(io.Discard, resp.Body, most)
	_ = resp.Body.Close()
}

// refuse is the error of a request that isn't sent; a RoundTripper closes its body.
func refuse(req *http.Request, err error) error {
	if req.Body != nil {
		_ = req.Body.Close()
	}
	return err
}

// checkChannel refuses where others could read the token.
func checkChannel(u *url.URL) error {
	if u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()) {
		return nil
	}
	return fmt.Errorf("no token goes over plain text to %s: use https, or call through a sidecar on a loopback address", u.Host)
}

// strayed tells whether a redirect on the way to this request has left the host
// (scheme, name and port) of the first one.
func strayed(req *http.Request) bool {
	for r := req; r.Response != nil; {
		r = r.Response.Request
		if r == nil || r.URL.Scheme != req.URL.Scheme || r.URL.Host != req.URL.Host {
			return true
		}
	}
	return false
}
