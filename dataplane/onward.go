package dataplane

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strings"

	"github.com/watchword-mesh/watchword/dataplane/ruleset"
)

// onward is the request for the service.
func onward(ctx context.Context, r *http.Request, after ruleset.Request, v *ruleset.Verdict) *http.Request {
	out := r.WithContext(ctx)
	out.Header = make(http.Header, len(after.Header))
	values := make([]string, len(after.Header))
	for i, f := range after.Header {
		name := textproto.CanonicalMIMEHeaderKey(f.Name)
		if list := out.Header[name]; list != nil {
			out.Header[name] = append(list, f.Value)
			continue
		}
		values[i] = f.Value
		out.Header[name] = values[i : i+1 : i+1]
	}
	// What somebody in front has parsed is of the request as it came.
	out.Form, out.PostForm, out.MultipartForm = nil, nil, nil
	keepOwn(out.Header, v.Own)
	if after.Body != nil {
		out.Body, out.ContentLength, out.TransferEncoding = io.NopCloser(bytes.NewReader(after.Body)), int64(len(after.Body)), nil
	}
	if out.Trailer != nil {
		out.Body = &trailerStripper{ReadCloser: out.Body, trailer: out.Trailer, own: v.Own}
		out.Body.(*trailerStripper).strip()
	}
	return out
}

// keepOwn takes our headers out of what Connection names (RFC 9110 section 7.6.1): a
// proxy behind would remove them.
func keepOwn(h http.Header, own func(string) bool) {
	list := h["Connection"]
	for i, value := range list {
		options := strings.Split(value, ",")
		kept := slices.DeleteFunc(options, func(o string) bool { return own(strings.Trim(o, " \t")) })
		list[i] = strings.Join(kept, ",")
	}
}

// trailerStripper removes from trailers what only we may set: servers behind a
// proxy may take them for headers. They are there when the body has ended.
type trailerStripper struct {
	io.ReadCloser
	trailer http.Header
	own     func(string) bool
}

func (t *trailerStripper) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	if err != nil {
		t.strip()
	}
	return n, err
}

// Close may read what is left, trailers included.
func (t *trailerStripper) Close() error {
	err := t.ReadCloser.Close()
	t.strip()
	return err
}

func (t *trailerStripper) strip() {
	for name := range t.trailer {
		if t.own(name) {
			delete(t.trailer, name)
		}
	}
}
