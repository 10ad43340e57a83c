package parity

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/dataplane"
	"github.com/watchword-mesh/watchword/dataplane/enrolment"
	"github.com/watchword-mesh/watchword/dataplane/lastgood"
	proxying "github.com/watchword-mesh/watchword/dataplane/proxy"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// library is the Go data plane twice: as middleware of a server, and behind the
// proxy of watchword-sidecar, in front of the service. There is one DataPlane for
// both, so that what the one has just verified the other finds in the memo.
type library struct {
	folder           string
	current          atomic.Pointer[dataplane.DataPlane]
	address, sidecar string
}

// startLibrary has a handler, and the same as an upstream.
func startLibrary(t *testing.T, handler http.Handler, upstream string) *library {
	t.Helper()
	l := &library{folder: t.TempDir()}
	t.Cleanup(func() {
		if d := l.current.Load(); d != nil {
			d.Close()
		}
	})
	l.address = l.serveMiddleware(t, handler)
	l.sidecar = l.serveSidecar(t, upstream)
	return l
}

// load has a new data plane take the place of the last one. It takes the ruleset as
// after a start without control plane; its paths are those of the Envoy beside it,
// which normalises nothing.
func (l *library) load(t testing.TB, rs *dataplanev1.Ruleset, revoked *dataplanev1.Revocations) error {
	t.Helper()
	path := filepath.Join(l.folder, "lastgood")
	body, err := proto.Marshal(rs)
	if err != nil {
		return err
	}
	none, err := proto.Marshal(revoked)
	if err != nil {
		return err
	}
	file, err := lastgood.Open(path)
	if err != nil {
		return err
	}
	if err := file.Save(lastgood.Content{Service: service, Saved: time.Now(), Resources: []lastgood.Resource{{
		TypeURL: "type.googleapis.com/watchword.dataplane.v1.Ruleset", Name: service, Version: "1", Body: body,
	}, {
		TypeURL: "type.googleapis.com/watchword.dataplane.v1.Revocations", Name: service, Version: "1", Body: none,
	}}}); err != nil {
		return err
	}
	d, err := dataplane.Open(context.Background(), dataplane.Config{
		Addresses: []string{"127.0.0.1:1"}, Service: service, Node: service, Credential: enrolment.JoinToken("none"),
		File: path, FileSecrets: true, KeepPaths: true,
	})
	if err != nil {
		return err
	}
	if !d.Serving() {
		d.Close()
		return fmt.Errorf("the library did not take the ruleset")
	}
	if last := l.current.Swap(d); last != nil {
		last.Close()
	}
	return nil
}

// middleware is that of the data plane that is the current one.
func (l *library) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { l.current.Load().Middleware(next).ServeHTTP(w, r) })
}

func (l *library) serveMiddleware(t *testing.T, handler http.Handler) string {
	t.Helper()
	at := listen(t)
	srv := &http.Server{Handler: l.middleware(handler), Protocols: new(http.Protocols), ReadHeaderTimeout: time.Minute}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(at) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return at.Addr().String()
}

// serveSidecar puts together what watchword-sidecar does.
func (l *library) serveSidecar(t *testing.T, upstream string) string {
	t.Helper()
	to, err := proxying.New(proxying.Config{Upstream: upstream})
	if err != nil {
		t.Fatal(err)
	}
	at := listen(t)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() {
		served <- proxying.Serve(ctx, at, l.middleware(to), proxying.ServerConfig{Name: "inbound", DrainTimeout: -1})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("the sidecar ended: %v", err)
		}
		to.Close()
	})
	return at.Addr().String()
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	at, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return at
}
