package dataplane

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	"github.com/watchword-mesh/watchword/dataplane/ruleset"
)

// fields are header sections while they are looked at.
var fields = sync.Pool{New: func() any { return new([]ruleset.Field) }}

// Middleware lets through what the ruleset allows, and answers the rest as Envoy
// would. next gets the request without headers that only the data plane may set,
// with those that it has set, without the token, and with the Caller in its context.
//
// Until there is a ruleset it refuses everything with 503 and the reason not_ready.
//
// Put it around the whole of a server, http.ServeMux included: what is matched here
// and what is matched there has to be the same path. Dot segments and repeated
// slashes are gone when next is called, and a path with an escaped slash is refused,
// as a managed Envoy does; see Config.KeepPaths.
func (d *DataPlane) Middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { d.serve(w, r, next) })
}

func (d *DataPlane) serve(w http.ResponseWriter, r *http.Request, next http.Handler) {
	out, stream := d.admitRequest(w, r)
	if out == nil {
		return
	}
	if stream != nil {
		w = &takenWriter{w, stream}
	}
	defer endAborted(stream)
	defer abort(out.Context(), w, r)()
	next.ServeHTTP(w, out)
}

// admitRequest gives the request for the service, and its stream if it ends with its
// token; or it answers and gives nil.
func (d *DataPlane) admitRequest(w http.ResponseWriter, r *http.Request) (out *http.Request, stream *liveStream) {
	buffer := fields.Get().(*[]ruleset.Field)
	defer func() { clear(*buffer); fields.Put(buffer) }()
	req := requestOf(r, (*buffer)[:0])
	*buffer = req.Header
	ok := true
	if d.config.KeepPaths {
		ok = isTarget(req.Path)
	} else {
		req.Path, ok = ruleset.NormalizePath(req.Path)
	}
	if !ok {
		badRequest(w)
		return nil, nil
	}
	v, word := d.judge(w, r, &req)
	if word != "" {
		decision := ruleset.Refuse(req, word)
		d.guard.count(&decision)
		answer(w, r, &decision)
		return nil, nil
	}
	decision := v.Decision()
	d.guard.count(decision)
	if !decision.Allowed {
		answer(w, r, decision)
		return nil, nil
	}
	if decision.Observed != "" {
		w.Header().Set(reason.ObservedHeader, string(decision.Observed))
	}
	after := v.Forward()
	target, ok := targetOf(r, after.Path)
	if !ok {
		badRequest(w)
		return nil, nil
	}
	ctx, stream := d.guard.watch(withCaller(r.Context(), v), req, v, mayBeLong(r))
	out = onward(ctx, r, after, v)
	out.URL, out.RequestURI = target, after.Path
	return out, stream
}

// mayBeLong tells whether a request opens what may be open for long: a call of gRPC, a
// WebSocket, or another protocol.
func mayBeLong(r *http.Request) bool {
	return r.Header.Get("Upgrade") != "" || r.Method == http.MethodConnect || strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") ||
		strings.Contains(r.Header.Get("Accept"), "text/event-stream")
}

// judge asks the ruleset, which may want to see the body of a form.
func (d *DataPlane) judge(w http.ResponseWriter, r *http.Request, req *ruleset.Request) (*ruleset.Verdict, reason.Word) {
	rs, word := d.guard.ready()
	if word != "" {
		return nil, word
	}
	if rs.ReadsForms(*req) {
		if word := d.readBody(w, r, req); word != "" {
			return nil, word
		}
	}
	return rs.Decide(*req, d.guard.now(), d.guard.memo), "" // by the ruleset that was asked for the body
}

// badRequest is what Envoy answers too, which has no reason word for it.
func badRequest(w http.ResponseWriter) { http.Error(w, "Bad Request", http.StatusBadRequest) }

// targetOf is the URL of a target, in the form in which the request came.
func targetOf(r *http.Request, target string) (*url.URL, bool) {
	if target == r.RequestURI && target != "" {
		return r.URL, true
	}
	u, err := url.ParseRequestURI(target)
	if err != nil {
		return nil, false
	}
	u.Scheme, u.Host = r.URL.Scheme, r.URL.Host
	return u, true
}

// requestOf is what the ruleset looks at.
func requestOf(r *http.Request, into []ruleset.Field) ruleset.Request {
	for name, values := range r.Header {
		for _, v := range values {
			into = append(into, ruleset.Field{Name: name, Value: v})
		}
	}
	path := r.RequestURI
	if !strings.HasPrefix(path, "/") && path != "*" {
		path = r.URL.RequestURI() // absolute form, or a request that no server has read
	}
	return ruleset.Request{Method: r.Method, Authority: r.Host, Path: path, Header: into}
}

// isTarget refuses what net/http takes and Envoy does not, where NormalizePath is not
// there to do it: bytes that are not ASCII, and
// a fragment, which some would cut off and others not (RFC 9112 section 3.2).
func isTarget(target string) bool {
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return false
		}
	}
	return true
}

// answer tells the caller of a refusal. It does not wait for a body.
func answer(w http.ResponseWriter, r *http.Request, decision *ruleset.Decision) {
	h := w.Header()
	for _, f := range decision.RefusalHeader() {
		h.Set(f.Name, f.Value)
	}
	h.Set("Content-Length", strconv.Itoa(len(decision.Body)))
	w.WriteHeader(decision.Status)
	if r.Method != http.MethodHead {
		_, _ = io.WriteString(w, decision.Body)
	}
}

// abort stops reads and writes of a request that is ended from outside: a handler
// may look at them only. Whoever calls stop can be sure that nothing of w is used after
// it: net/http's own is not there then.
func abort(ctx context.Context, w http.ResponseWriter, r *http.Request) (stop func()) {
	if ctx.Done() == r.Context().Done() {
		return func() {}
	}
	aborted := make(chan struct{})
	forget := context.AfterFunc(ctx, func() {
		defer close(aborted)
		if errors.Is(context.Cause(ctx), errEnded) {
			control := http.NewResponseController(w)
			_ = control.SetReadDeadline(time.Unix(1, 0))
			_ = control.SetWriteDeadline(time.Unix(1, 0))
		}
	})
	return func() {
		if !forget() {
			<-aborted
		}
	}
}

// endAborted keeps a response that was cut from looking complete.
func endAborted(stream *liveStream) {
	if stream.done() {
		panic(http.ErrAbortHandler)
	}
}
