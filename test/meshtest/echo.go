package meshtest

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// Echo is a service that answers with what it saw, over HTTP/1.1 and HTTP/2.
type Echo struct {
	// Address it listens on, set by Start.
	Address string
}

// Seen is a request as the service got it.
type Seen struct {
	Method, Path, Query, Host, Proto string
	Header                           http.Header
	Body                             string
}

// Start serves until the end of the test.
func (e *Echo) Start(t testing.TB) {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the caller has gone
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(Seen{r.Method, r.URL.Path, r.URL.RawQuery, r.Host, r.Proto, r.Header, string(body)})
	}))
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	t.Cleanup(srv.Close)
	e.Address = srv.Listener.Addr().String()
}
