package proxy

import (
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// identityPrefix is of the headers that tell a service who calls.
const identityPrefix = "X-Watchword-"

// outgoing is a request as it is sent on: one that a server has read, with what
// differs from it. The request itself is not changed.
type outgoing struct {
	r      *http.Request
	upload *upload
	http2  bool

	target    string // origin-form (RFC 9112 section 3.2.1), or *
	websocket bool

	// Inbound: set if not empty.
	forwardedFor, forwardedProto string
	// Outbound: Authorization is set if not empty, and identity headers are removed.
	authorization string
	outbound      bool

	// informational gets what comes before the response (RFC 9110 section 15.2).
	informational func(status int, h http.Header)
}

// check looks at what a server does not, or not for all versions of HTTP: bytes
// that end a line or a word of HTTP/1.1, and names for two hosts.
func (o *outgoing) check() *failure {
	r := o.r
	if bad := confused(r); bad != nil {
		return bad
	}
	o.target = requestTarget(r.URL)
	switch {
	case !httpguts.ValidHeaderFieldName(r.Method): // a token
		return malformed("the method is not valid")
	case o.target == "" || strings.ContainsFunc(o.target, notInTarget):
		return malformed("the request target is not valid")
	case !httpguts.ValidHostHeader(r.Host):
		return malformed("the host is not valid")
	}
	for name, values := range r.Header {
		if !httpguts.ValidHeaderFieldName(name) || slices.ContainsFunc(values, notFieldValue) {
			return malformed("a header is not valid")
		}
	}
	return o.checkUpgrade()
}

// confused finds what names two hosts or two versions of HTTP, and is let through
// by the server.
func confused(r *http.Request) *failure {
	for _, host := range r.Header["Host"] { // beside :authority, RFC 9113 section 8.3.1
		if host != r.Host {
			return malformed("host and :authority differ")
		}
	}
	switch {
	case r.URL.Host != "" && r.URL.Host != r.Host: // in :path
		return malformed("the path names another host")
	case r.Method == "PRI": // RFC 9113 section 3.4
		return malformed("a preface of HTTP/2 is not a request")
	}
	return nil
}

func (o *outgoing) checkUpgrade() *failure {
	h := o.r.Header
	if len(h["Upgrade"]) == 0 || o.r.ProtoMajor != 1 || !httpguts.HeaderValuesContainsToken(h["Connection"], "upgrade") {
		return nil
	}
	o.websocket = len(h["Upgrade"]) == 1 && strings.EqualFold(h["Upgrade"][0], "websocket")
	if o.websocket && (o.r.Method != http.MethodGet || !o.r.ProtoAtLeast(1, 1) || o.r.ContentLength != 0) {
		return malformed("a WebSocket begins with GET, HTTP/1.1 and no body")
	}
	return nil
}

// requestTarget is what a URL is as origin-form. It is empty for one that has
// none, such as mailto:x.
func requestTarget(u *url.URL) string {
	switch {
	case u.Opaque != "":
		return ""
	case u.Path == "*":
		return "*"
	}
	t := u.RequestURI()
	if strings.HasPrefix(t, "/") {
		return t
	}
	return ""
}

func notInTarget(c rune) bool     { return c <= ' ' || c == 0x7f || c == '#' }
func notFieldValue(s string) bool { return !httpguts.ValidHeaderFieldValue(s) }

// sent says whether a header of the request is handed on as it is.
func (o *outgoing) sent(name string) bool {
	switch name {
	case "Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authorization", "Proxy-Authenticate", "Te", "Trailer",
		"Transfer-Encoding", "Upgrade", "Http2-Settings", "Expect", "Content-Length", "Host":
		return false
	case "X-Forwarded-For":
		return o.forwardedFor == ""
	case "X-Forwarded-Proto":
		return o.forwardedProto == ""
	case "Authorization":
		return o.authorization == ""
	}
	return !o.outbound || !isIdentity(name)
}

// isIdentity says whether a service may take a header for one of ours: to many
// servers, _ and - are the same (RFC 3875 section 4.1.18).
func isIdentity(name string) bool {
	return len(name) >= len(identityPrefix) && strings.EqualFold(strings.ReplaceAll(name[:len(identityPrefix)], "_", "-"), identityPrefix)
}

// appendHead writes the request line and the header section of HTTP/1.1.
func (o *outgoing) appendHead(b []byte) []byte {
	b = append(b, o.r.Method...)
	b = append(b, ' ')
	b = append(b, o.target...)
	b = append(b, " HTTP/1.1\r\n"...)
	b = appendField(b, "Host", o.r.Host)
	for name, values := range o.r.Header {
		if !o.sent(name) {
			continue
		}
		for _, v := range values {
			b = appendField(b, name, v)
		}
	}
	b = o.appendForwarded(b)
	if o.authorization != "" {
		b = appendField(b, "Authorization", o.authorization)
	}
	if o.websocket {
		b = append(b, "Connection: Upgrade\r\nUpgrade: websocket\r\n"...)
	}
	b = o.appendFraming(b)
	return append(b, "\r\n"...)
}

func (o *outgoing) appendForwarded(b []byte) []byte {
	if o.forwardedFor != "" {
		b = append(b, "X-Forwarded-For: "...)
		for _, v := range o.r.Header["X-Forwarded-For"] {
			b = append(b, v...)
			b = append(b, ", "...)
		}
		b = append(b, o.forwardedFor...)
		b = append(b, "\r\n"...)
	}
	if o.forwardedProto != "" {
		b = appendField(b, "X-Forwarded-Proto", o.forwardedProto)
	}
	return b
}

// appendFraming says how long the body is, in one of the two ways (RFC 9112
// section 6).
func (o *outgoing) appendFraming(b []byte) []byte {
	switch n := o.upload.length; {
	case n < 0:
		if names := o.trailerNames(); len(names) > 0 {
			b = appendField(b, "Trailer", strings.Join(names, ", "))
		}
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case n > 0 || hasContent(o.r.Method):
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, n, 10)
		b = append(b, "\r\n"...)
	}
	return b
}

// hasContent says for which methods an empty body is said to be empty (RFC 9110
// section 8.6).
func hasContent(method string) bool {
	return method == http.MethodPost || method == http.MethodPut || method == http.MethodPatch
}

func (o *outgoing) trailerNames() []string {
	var names []string
	for name := range o.r.Trailer {
		if o.trailerSent(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// trailerSent keeps from trailers what some servers would put among the headers:
// what the service is told of its caller, and what the header section has already
// (RFC 9110 section 6.5.1).
func (o *outgoing) trailerSent(name string) bool {
	_, twice := o.r.Header[name]
	return !twice && !isIdentity(name) && httpguts.ValidTrailerHeader(name) && o.sent(name) &&
		name != "Authorization" && httpguts.ValidHeaderFieldName(name)
}

// trailer is what of the trailer section is sent; it is known when the body has
// been read.
func (o *outgoing) trailer() http.Header {
	out := http.Header{}
	for name, values := range o.r.Trailer {
		if o.trailerSent(name) && len(values) > 0 && !slices.ContainsFunc(values, notFieldValue) {
			out[name] = values
		}
	}
	return out
}

func appendField(b []byte, name, value string) []byte {
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	return append(b, "\r\n"...)
}

// header is the header section for net/http's Transport.
func (o *outgoing) header() http.Header {
	h := make(http.Header, len(o.r.Header)+3)
	for name, values := range o.r.Header {
		if o.sent(name) {
			h[textproto.CanonicalMIMEHeaderKey(name)] = values
		}
	}
	if o.forwardedFor != "" {
		all := append(slices.Clone(o.r.Header["X-Forwarded-For"]), o.forwardedFor)
		h["X-Forwarded-For"] = []string{strings.Join(all, ", ")}
	}
	if o.forwardedProto != "" {
		h["X-Forwarded-Proto"] = []string{o.forwardedProto}
	}
	if o.authorization != "" {
		h["Authorization"] = []string{o.authorization}
	}
	if httpguts.HeaderValuesContainsToken(o.r.Header["Te"], "trailers") { // gRPC asks for it
		h["Te"] = []string{"trailers"}
	}
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = nil // Transport would name itself
	}
	return h
}
