package sts

import (
	"errors"
	"net/http"
	"strings"
)

// maxBody is the largest body of any request, in bytes.
const maxBody = 64 << 10

// route is one endpoint: what it takes, and what answers. serve enforces it.
type route struct {
	method string
	path   string
	// maxBody in bytes.
	maxBody int64
	// handle answers, or says why not and writes nothing.
	handle func(w http.ResponseWriter, r *http.Request, v *view) *Error
}

func (s *Server) endpoints() []route {
	list := []route{
		{http.MethodPost, "/token", maxBody, s.handleToken},
		{http.MethodGet, "/jwks", 0, handleJWKS},
		{http.MethodGet, "/.well-known/jwks.json", 0, handleJWKS},
		{http.MethodGet, "/.well-known/oauth-authorization-server", 0, handleMetadata},
		{http.MethodGet, "/.well-known/openid-configuration", 0, handleMetadata},
	}
	if s.revoker != nil {
		list = append(list, route{http.MethodPost, "/revoke", maxBody, s.handleRevoke})
	}
	return list
}

func byPath(routes []route) map[string]route {
	m := make(map[string]route, len(routes))
	for _, r := range routes {
		m[r.path] = r
	}
	return m
}

// serve is the one way to all routes.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	v := s.view.Load()
	if v == nil {
		write(w, notReady())
		return
	}
	rt, ok := s.find(r.URL.Path, v)
	if !ok {
		write(w, &Error{Code: CodeInvalidRequest, Status: http.StatusNotFound, Description: "there is no such endpoint"})
		return
	}
	if !rt.takes(r.Method) {
		w.Header().Set("Allow", rt.allow())
		write(w, &Error{Code: CodeInvalidRequest, Status: http.StatusMethodNotAllowed, Description: "the method must be " + rt.allow()})
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, rt.maxBody)
	if err := rt.handle(w, r, v); err != nil {
		write(w, err)
	}
}

// find gives the route for a path, which may contain that of the issuer in
// front or, after a well-known part, at the end.
func (s *Server) find(path string, v *view) (route, bool) {
	if rt, ok := s.routes[path]; ok || v.path == "" {
		return rt, ok
	}
	if rest, ok := strings.CutPrefix(path, v.path); ok {
		rt, ok := s.routes[rest]
		return rt, ok
	}
	if rest, ok := strings.CutSuffix(path, v.path); ok && strings.HasPrefix(rest, "/.well-known/") {
		rt, ok := s.routes[rest]
		return rt, ok
	}
	return route{}, false
}

func (rt route) takes(method string) bool {
	return method == rt.method || (method == http.MethodHead && rt.method == http.MethodGet)
}

func (rt route) allow() string {
	if rt.method == http.MethodGet {
		return "GET, HEAD"
	}
	return rt.method
}

// tooLarge tells whether reading a body ended at the limit of its route.
func tooLarge(err error) bool {
	var tooLarge *http.MaxBytesError
	return errors.As(err, &tooLarge)
}
