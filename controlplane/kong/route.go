package kong

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// call is one request.
type call struct {
	*handler
	ctx context.Context
	// method is what is written down of it: the route, without names.
	method string
	// What the path names; empty where it names none.
	consumer, jwt string
	query         url.Values
	body          map[string]any
}

// answer has a status and, but for 204, a body.
type answer struct {
	status int
	body   any
}

func ok(body any) answer { return answer{http.StatusOK, body} }

const created = http.StatusCreated

var noContent = answer{status: http.StatusNoContent}

type action func(*call) (answer, *problem)

// route is the actions of a path by method.
type route struct {
	pattern string
	actions map[string]action
}

var routes = []route{
	{"/consumers", map[string]action{"GET": (*call).listConsumers, "POST": (*call).createConsumer}},
	{"/consumers/{consumer}", map[string]action{"GET": (*call).getConsumer, "PUT": (*call).putConsumer, "PATCH": (*call).patchConsumer, "DELETE": (*call).deleteConsumer}},
	{"/consumers/{consumer}/jwt", map[string]action{"GET": (*call).listOwn, "POST": (*call).createOwn}},
	{"/consumers/{consumer}/jwt/{jwt}", map[string]action{"GET": (*call).getOwn, "PUT": (*call).putOwn, "PATCH": (*call).patchOwn, "DELETE": (*call).deleteOwn}},
	{"/jwts", map[string]action{"GET": (*call).listCredentials, "POST": (*call).createCredential}},
	{"/jwts/{jwt}", map[string]action{"GET": (*call).getCredential, "PUT": (*call).putCredential, "PATCH": (*call).patchCredential, "DELETE": (*call).deleteCredential}},
	{"/jwts/{jwt}/consumer", map[string]action{"GET": (*call).getConsumer, "PUT": (*call).putConsumer, "PATCH": (*call).patchConsumer}},
}

// ServeHTTP implements http.Handler.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.MayRead == nil || !h.MayRead(r.Context()) {
		h.Refused(r.Context(), attempted(r), needsReader)
		write(w, http.StatusForbidden, said(http.StatusForbidden, needsReader).body)
		return
	}
	c := &call{handler: h, ctx: r.Context()}
	found, p := c.match(r)
	if p != nil {
		write(w, p.status, p.body)
		return
	}
	allow := found.allowed()
	act := found.actions[r.Method]
	switch {
	case r.Method == http.MethodOptions:
		w.Header().Set("Allow", allow)
		write(w, http.StatusNoContent, nil)
		return
	case r.Method == http.MethodHead:
		act = found.actions[http.MethodGet]
	case act == nil:
		w.Header().Set("Allow", allow)
		write(w, http.StatusMethodNotAllowed, said(0, "Method not allowed").body)
		return
	}
	c.method = "kong " + r.Method + " " + found.pattern
	if c.body, p = body(r); p == nil {
		var a answer
		if a, p = act(c); p == nil {
			write(w, a.status, a.body)
			return
		}
	}
	write(w, p.status, p.body)
}

const needsReader = "this needs a role that sees consumers: VIEWER, or OPERATOR to change them"

// attempted names what was tried in words of ours alone: the audit must not grow by
// what callers make up, and a path may hold the key of a credential.
func attempted(r *http.Request) string {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions:
		return "kong " + r.Method
	}
	return "kong"
}

// match finds the route of a path, and what the path and the query say.
func (c *call) match(r *http.Request) (route, *problem) {
	segments := strings.Split(strings.TrimSuffix(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/"), "/")
	for _, candidate := range routes {
		names, fits := fit(candidate.pattern, segments)
		if !fits {
			continue
		}
		c.consumer, c.jwt = names["{consumer}"], names["{jwt}"]
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			return route{}, said(http.StatusBadRequest, "the query can't be read: percent-encode what is not a letter or digit")
		}
		c.query = query
		return candidate, nil
	}
	if first := segments[0]; first == "consumers" || first == "jwts" {
		return route{}, notFound()
	}
	return route{}, said(http.StatusNotFound, "Not found: only /consumers and /jwts of Kong's admin API are here; services, routes and plugins are resources of Watchword, which watchword import kong makes")
}

// fit compares a path with a pattern, and returns what stands for its names.
func fit(pattern string, segments []string) (map[string]string, bool) {
	parts := strings.Split(strings.TrimPrefix(pattern, "/"), "/")
	if len(parts) != len(segments) {
		return nil, false
	}
	names := map[string]string{}
	for i, part := range parts {
		text, err := url.PathUnescape(segments[i])
		switch {
		case err != nil || text == "":
			return nil, false
		case strings.HasPrefix(part, "{"):
			names[part] = text
		case part != text:
			return nil, false
		}
	}
	return names, true
}

// allowed lists the methods of a route, in order, as Kong does.
func (r route) allowed() string {
	all := []string{http.MethodHead, http.MethodOptions}
	for method := range r.actions {
		all = append(all, method)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
