package proxy

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/http/httpguts"
)

// forwarder gives callers the responses to their requests.
type forwarder struct {
	log     hclog.Logger
	metrics *metrics
}

func newForwarder(log hclog.Logger, r prometheus.Registerer, direction string) forwarder {
	if log == nil {
		log = hclog.NewNullLogger()
	}
	return forwarder{log: log, metrics: newMetrics(r, direction)}
}

// forward sends a request and hands the response on.
func (f *forwarder) forward(w http.ResponseWriter, o *outgoing, send roundTrip) {
	if bad := o.check(); bad != nil {
		f.fail(w, o, bad)
		return
	}
	if err := o.upload.begin(); err != nil {
		f.fail(w, o, asFailure(o.r.Context(), err))
		return
	}
	defer o.upload.finish()
	o.informational = func(status int, h http.Header) { inform(w, o.r, status, h) }
	ctx := o.r.Context()
	resp, err := send(ctx, o)
	if err != nil {
		// A caller that was too slow is gone to the server at the same time: wait for
		// who has read its body.
		o.upload.finish()
		if fault, own := o.upload.fault(), (*failure)(nil); errors.As(fault, &own) {
			err = own
		}
		f.fail(w, o, asFailure(ctx, err))
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		f.tunnel(w, o, resp)
		return
	}
	if err := relay(w, o, resp); err != nil {
		f.abort(o, err)
	}
}

// fail answers a request that has no response.
func (f *forwarder) fail(w http.ResponseWriter, o *outgoing, why *failure) {
	if why.status == 0 {
		f.abort(o, why)
	}
	f.count(o, why)
	body, err := json.Marshal(struct {
		Reason string `json:"reason"`
		Text   string `json:"message,omitempty"`
	}{why.word, why.text})
	if err != nil {
		panic(err) // two strings
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	if o.r.ProtoMajor == 1 && o.r.ContentLength != 0 && (o.upload == nil || o.upload.small == nil) {
		h.Set("Connection", "close") // else the server waits for the rest of the body
	}
	if why.status == http.StatusMethodNotAllowed {
		h.Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
	}
	w.WriteHeader(why.status)
	_, _ = w.Write(body)
}

// abort ends an answer so that the caller sees that it is not whole.
func (f *forwarder) abort(o *outgoing, err error) {
	f.count(o, asFailure(o.r.Context(), err))
	panic(http.ErrAbortHandler)
}

func (f *forwarder) count(o *outgoing, why *failure) {
	f.metrics.failures.WithLabelValues(why.word).Inc()
	if f.log.IsDebug() {
		f.log.Debug("not forwarded", "reason", why.word, "host", o.r.Host, "method", o.r.Method, "error", why.Unwrap())
	}
}

// inform hands on an informational response, such as 103 (RFC 8297). 100 is the
// server's own matter, and HTTP/1.0 knows none.
func inform(w http.ResponseWriter, r *http.Request, status int, h http.Header) {
	if status == http.StatusContinue || !r.ProtoAtLeast(1, 1) {
		return
	}
	before := w.Header().Clone()
	copyHeader(w.Header(), h)
	w.WriteHeader(status)
	clear(w.Header())
	copyHeader(w.Header(), before)
}

// copyHeader copies what is not hop-by-hop.
func copyHeader(to, from http.Header) {
	named := from["Connection"]
	for name, values := range from {
		switch name {
		case "Connection", "Proxy-Connection", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
			continue
		}
		if len(named) > 0 && httpguts.HeaderValuesContainsToken(named, strings.ToLower(name)) {
			continue
		}
		to[name] = values
	}
}

// arrived is a body that knows how much of it can be read without waiting.
type arrived interface{ arrived() int }

var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// relay writes a response. What has come goes out before more is waited for.
func relay(w http.ResponseWriter, o *outgoing, resp *http.Response) error {
	h := w.Header()
	copyHeader(h, resp.Header)
	if o.r.ProtoMajor == 1 && o.upload.unread() {
		h.Set("Connection", "close")
	}
	for name := range resp.Trailer {
		h.Add("Trailer", name)
	}
	announced := h["Trailer"]
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // else the server would guess
	}
	w.WriteHeader(resp.StatusCode)
	if resp.Body == http.NoBody || resp.ContentLength == 0 {
		return nil // in one frame, as gRPC wants an answer of trailers alone
	}
	if err := stream(w, resp.Body); err != nil {
		return err
	}
	return relayTrailer(w, announced, resp.Trailer)
}

// stream copies a body.
func stream(w http.ResponseWriter, body io.Reader) error {
	control := http.NewResponseController(w)
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	ready, _ := body.(arrived)
	for {
		if ready == nil || ready.arrived() == 0 {
			if err := control.Flush(); err != nil {
				return err
			}
		}
		n, err := body.Read(*buf)
		if n > 0 {
			if _, err := w.Write((*buf)[:n]); err != nil {
				return errCallerGone
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// relayTrailer writes a trailer section (RFC 9110 section 6.5).
func relayTrailer(w http.ResponseWriter, announced []string, trailer http.Header) error {
	if len(trailer) == 0 {
		return nil
	}
	// A short body would get a Content-Length, and trailers need chunks.
	if err := http.NewResponseController(w).Flush(); err != nil {
		return err
	}
	for name, values := range trailer {
		if !slices.Contains(announced, name) {
			name = http.TrailerPrefix + name
		}
		w.Header()[name] = values
	}
	return nil
}
