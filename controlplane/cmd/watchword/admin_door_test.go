package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
)

// door is one to an Envoy that answers as a handler does.
func door(t *testing.T, envoy http.HandlerFunc) *adminDoor {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(envoy)
	srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	d := newAdminDoor(socket)
	t.Cleanup(d.client.CloseIdleConnections)
	return d
}

// What reads is passed on, with its query; what changes something, or is not
// known, does not reach Envoy, nor does who came by another name.
func TestAdminDoorPasses(t *testing.T) {
	reached := ""
	d := door(t, func(w http.ResponseWriter, r *http.Request) {
		reached = r.Method + " " + r.URL.RequestURI()
		w.Header().Set("Content-Type", "text/x")
		w.WriteHeader(http.StatusServiceUnavailable)
		io.WriteString(w, "INITIALIZING")
	})
	for _, tt := range []struct {
		host, method, target string
		want                 int
		reaches              string
	}{
		{"127.0.0.1:9901", "GET", "/ready", 503, "GET /ready"},
		{"localhost", "GET", "/stats?filter=a%2Fb&usedonly", 503, "GET /stats?filter=a%2Fb&usedonly"},
		{"[::1]:9901", "GET", "/stats/prometheus", 503, "GET /stats/prometheus"},
		{"127.0.0.1:9901", "POST", "/ready", 405, ""},
		{"127.0.0.1:9901", "HEAD", "/ready", 405, ""},
		{"127.0.0.1:9901", "POST", "/quitquitquit", 404, ""},
		{"127.0.0.1:9901", "GET", "/quitquitquit", 404, ""},
		{"127.0.0.1:9901", "GET", "/logging?level=trace", 404, ""},
		{"127.0.0.1:9901", "GET", "/", 404, ""},
		{"127.0.0.1:9901", "GET", "/ready/", 404, ""},
		{"127.0.0.1:9901", "GET", "//ready", 404, ""},
		{"127.0.0.1:9901", "GET", "/ready/../quitquitquit", 404, ""},
		{"127.0.0.1:9901", "GET", "/config_dump%3Fx", 404, ""},
		{"attacker.example:9901", "GET", "/ready", 403, ""},
		{"127.0.0.1.attacker.example", "GET", "/ready", 403, ""},
		{"10.0.0.1", "GET", "/ready", 403, ""},
		{"", "GET", "/ready", 403, ""},
	} {
		reached = ""
		r := httptest.NewRequest(tt.method, tt.target, nil)
		r.Host = tt.host
		w := httptest.NewRecorder()
		d.ServeHTTP(w, r)
		if w.Code != tt.want || reached != tt.reaches {
			t.Errorf("%s %s of %q: code %d, Envoy got %q; want %d and %q", tt.method, tt.target, tt.host, w.Code, reached, tt.want, tt.reaches)
		}
	}
}

// A dump is shown without secrets, or not at all; an error of Envoy says nothing
// but its code.
func TestAdminDoorRedacts(t *testing.T) {
	const secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"
	for _, tt := range []struct {
		name   string
		code   int
		answer string
		want   int
	}{
		{"a dump", 200, `{"local_jwks": {"inline_string": "{\"keys\":[{\"kty\":\"oct\",\"k\":\"` + secret + `\"}]}"}}`, 200},
		{"no JSON", 200, "lua: " + secret, 502},
		{"half a dump", 200, `{"local_jwks": {"inline_string": "` + secret + `"`, 502},
		{"an error", 404, "no " + secret, 404},
		{"an overload", 500, secret, 500},
	} {
		d := door(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(tt.code)
			fmt.Fprint(w, tt.answer)
		})
		r := httptest.NewRequest("GET", "/config_dump?include_eds", nil)
		r.Host = "localhost:1"
		w := httptest.NewRecorder()
		d.ServeHTTP(w, r)
		if w.Code != tt.want || strings.Contains(w.Body.String(), secret) {
			t.Errorf("%s: %d %s, want %d and no secret", tt.name, w.Code, w.Body, tt.want)
		}
	}
}

// An Envoy that is gone is a bad gateway.
func TestAdminDoorWithoutEnvoy(t *testing.T) {
	r := httptest.NewRequest("GET", "/ready", nil)
	r.Host = "localhost:1"
	w := httptest.NewRecorder()
	newAdminDoor(filepath.Join(t.TempDir(), "none")).ServeHTTP(w, r)
	if w.Code != http.StatusBadGateway {
		t.Errorf("%d %s, want 502", w.Code, w.Body)
	}
}
