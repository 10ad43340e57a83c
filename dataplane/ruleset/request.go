package ruleset

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
)

// Completed is the request as a data plane of the service would get it, where
// somebody has described no more of it than matters: method GET, or POST with a
// form, the service as host, path /. The fields of a form become the body. r is not
// changed.
func (r Request) Completed(service string, form []Field) Request {
	method := "GET"
	if len(form) > 0 {
		method = "POST"
		r.Body = []byte(encodeForm(form))
		if !slices.ContainsFunc(r.Header, func(f Field) bool { return strings.EqualFold(f.Name, "content-type") }) {
			r.Header = append(slices.Clone(r.Header), Field{Name: "content-type", Value: "application/x-www-form-urlencoded"})
		}
	}
	r.Method, r.Authority, r.Path = cmp.Or(r.Method, method), cmp.Or(r.Authority, service), cmp.Or(r.Path, "/")
	return r
}

// encodeForm keeps the order (WHATWG URL section 5.2), which url.Values does not.
func encodeForm(form []Field) string {
	var pairs []string
	for _, f := range form {
		pairs = append(pairs, url.QueryEscape(f.Name)+"="+url.QueryEscape(f.Value))
	}
	return strings.Join(pairs, "&")
}
