package proxy

import (
	"net/http"
)

// connect opens a tunnel to a host that is not of the mesh (RFC 9110 section
// 9.3.6). Only HTTP/1.1 has it here.
func (e *Egress) connect(w http.ResponseWriter, o *outgoing) {
	_, port := splitHost(o.r.Host)
	if port == "" || o.r.ProtoMajor != 1 {
		e.fail(w, o, malformed("CONNECT wants HOST:PORT and HTTP/1.1"))
		return
	}
	addr, err := parseAddress(o.r.Host)
	if err != nil {
		e.fail(w, o, malformed("CONNECT wants HOST:PORT and HTTP/1.1"))
		return
	}
	ctx, cancel := withTimeout(o.r.Context(), e.options.timeouts.Dial)
	defer cancel()
	opts := e.options
	opts.control = e.control(endpointKey{address: addr})
	upstream, err := newEndpoint(addr, opts).dial(ctx)
	if err != nil {
		e.fail(w, o, asFailure(o.r.Context(), err))
		return
	}
	defer upstream.Close()
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		e.fail(w, o, asFailure(o.r.Context(), err))
		return
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("HTTP/1.1 200 Connection established\r\n\r\n")); err != nil {
		return
	}
	splice(o.r.Context(), &hijacked{conn, rw.Reader}, upstream)
}
