package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/watchword-mesh/watchword/controlplane/envoy"
	"github.com/watchword-mesh/watchword/controlplane/xds"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// patience is how long other processes may take for what they must do.
const patience = 30 * time.Second

// sharedSecret of an HS256 credential: 32 bytes, which base64 and base64url
// write differently.
var sharedSecret = []byte("shared\xfb\xff\xfe-secret-of-32-bytes-!!\x01")

// envoyResources has tokens verified with the shared secret.
func envoyResources(t *testing.T) []xds.Resource {
	t.Helper()
	jwk := fmt.Sprintf(`{"kty":"oct","kid":"k1","alg":"HS256","k":%q}`, base64.RawURLEncoding.EncodeToString(sharedSecret))
	made, err := envoy.Resources(&dataplanev1.Ruleset{
		Service: "orders",
		Issuers: []*dataplanev1.Issuer{{Name: "a", Issuer: "https://a.example", Keys: []*dataplanev1.Key{{Kid: "k1", Algorithm: "HS256", Symmetric: true, Jwk: jwk}}}},
		Routes: []*dataplanev1.Route{{Match: new(dataplanev1.RequestMatch), Authentication: &dataplanev1.Authentication{Mode: dataplanev1.Authentication_STRICT,
			Rules: []*dataplanev1.TokenRule{{Issuer: "a", Audiences: []string{"orders"}, ClockSkew: durationpb.New(time.Minute), FromHeaders: []*dataplanev1.TokenLocation{{Name: "authorization", Prefix: "Bearer "}}}}}}},
		Inbound: &dataplanev1.Inbound{Address: "127.0.0.1", Port: freePort(t), LocalIp: "127.0.0.1", LocalPort: freePort(t)},
	})
	if err != nil {
		t.Fatal(err)
	}
	var out []xds.Resource
	for _, r := range made {
		out = append(out, xds.Resource(r))
	}
	return out
}

func freePort(t *testing.T) uint32 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint32(l.Addr().(*net.TCPAddr).Port)
}

// running is `watchword envoy` with a real Envoy.
type running struct {
	*xds.Server
	fake      *fakeEnrolment
	cmd       *exec.Cmd
	out       output
	door, tmp string
}

type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func runWatchwordEnvoy(t *testing.T) *running {
	t.Helper()
	fake, g, err := newFakeEnrolment()
	if err != nil {
		t.Fatal(err)
	}
	r := &running{fake: fake, tmp: t.TempDir(), door: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	r.Server = xds.New(xds.Config{VersionKey: bytes.Repeat([]byte("v"), 32), Identify: func(ctx context.Context) (xds.Identity, error) {
		id, _, err := fake.instance(ctx)
		return xds.Identity{Service: id.Service, Instance: id.Instance}, err
	}})
	r.Register(g)
	r.Publish(xds.Update{Revision: 1, Services: map[string][]xds.Resource{"orders": envoyResources(t)}})
	t.Cleanup(r.Close)
	ads, err := serveGRPC(g, t.Cleanup)
	if err != nil {
		t.Fatal(err)
	}
	binary := os.Getenv("ENVOY")
	if binary == "" {
		binary = filepath.Join("..", "..", "..", ".build", "envoy", "envoy")
	}
	// By this name the test's binary is the command (see TestMain).
	watchword := filepath.Join(t.TempDir(), "watchword")
	if err := os.Symlink(testBinary(t), watchword); err != nil {
		t.Fatal(err)
	}
	r.cmd = exec.Command(watchword, "envoy", "--service", "orders", "--ads", ads, "--envoy", binary, "--envoy-admin", r.door, "--concurrency", "1")
	r.cmd.Env = append(os.Environ(), "TMPDIR="+r.tmp, joinTokenVariable+"="+fake.token)
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.out
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if r.cmd.ProcessState == nil {
			_ = r.cmd.Process.Signal(syscall.SIGTERM)
			_ = r.cmd.Wait()
		}
		if t.Failed() {
			t.Logf("watchword envoy wrote:\n%s", &r.out)
		}
	})
	return r
}

func testBinary(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func (r *running) eventually(t *testing.T, ok func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		err := ok()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %v", patience, err)
		}
	}
}

func get(client *http.Client, url string) (int, string, error) {
	res, err := client.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(text), err
}

// `watchword envoy` with a real Envoy: it enrols, Envoy is in sync over mutual
// TLS, certificates are renewed without a new stream; its admin interface can be
// read without the shared secrets that Envoy itself shows, and changes nothing;
// and nothing is left at the end.
func TestEnvoyHasAnIdentity(t *testing.T) {
	r := runWatchwordEnvoy(t)
	r.eventually(t, func() error {
		code, text, err := get(http.DefaultClient, "http://"+r.door+"/ready")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("%d %s", code, text)
		}
		return err
	})
	var before []xds.DataPlane
	r.eventually(t, func() error {
		if before = r.DataPlanes("orders"); len(before) != 1 || !before[0].InSync {
			return fmt.Errorf("data planes: %+v", before)
		}
		return nil
	})
	renewed := r.fake.renewals.Load()
	r.eventually(t, func() error {
		if n := r.fake.renewals.Load() - renewed; n < 5 {
			return fmt.Errorf("%d renewals, want 5", n)
		}
		return nil
	})
	if after := r.DataPlanes("orders"); len(after) != 1 || !after[0].Connected.Equal(before[0].Connected) || after[0].Instance != before[0].Instance {
		t.Errorf("after 5 renewals the ledger has %+v, want the stream of before: %+v", after, before)
	}
	checkDoor(t, r)

	checkRevoked(t, r, before[0])

	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("it ended with %v after SIGTERM, want code 0", err)
	}
	if left, _ := filepath.Glob(filepath.Join(r.tmp, "*")); len(left) != 0 {
		t.Errorf("it has left %q, want nothing", left)
	}
	if text := r.out.String(); strings.Contains(text, r.fake.token) || showsSecret(text) != "" {
		t.Errorf("it wrote a secret:\n%s", text)
	}
}

// A revoked instance has no stream any more, and goes on with what it had; it is
// back within Envoy's back-off when it is let in again.
func checkRevoked(t *testing.T, r *running, dp xds.DataPlane) {
	t.Helper()
	r.fake.revoked.Store(true)
	r.Disconnect(dp.Service, dp.Instance)
	gone := func() error {
		if n := r.Streams(dp.Service, dp.Instance); n != 0 {
			return fmt.Errorf("a revoked instance has %d streams", n)
		}
		return nil
	}
	r.eventually(t, gone)
	r.eventually(t, func() error { // Envoy has tried to come back
		_, text, err := get(http.DefaultClient, "http://"+r.door+"/stats?filter=control_plane.connected_state|cluster.watchword.upstream_rq_total")
		if err == nil && !strings.Contains(text, "\ncontrol_plane.connected_state: 0") {
			err = fmt.Errorf("%s", text)
		}
		return err
	})
	if code, _, err := get(http.DefaultClient, "http://"+r.door+"/ready"); err != nil || code != http.StatusOK || gone() != nil {
		t.Errorf("revoked, /ready: %d, %v, %v; want 200 and no stream", code, err, gone())
	}
	r.fake.revoked.Store(false)
	r.eventually(t, func() error {
		if all := r.DataPlanes("orders"); len(all) != 1 || !all[0].InSync || all[0].Instance != dp.Instance {
			return fmt.Errorf("data planes: %+v", all)
		}
		return nil
	})
}

func checkDoor(t *testing.T, r *running) {
	t.Helper()
	sockets, err := filepath.Glob(filepath.Join(r.tmp, "*", adminSocket))
	if err != nil || len(sockets) != 1 {
		t.Fatalf("sockets %q (%v), want one", sockets, err)
	}
	direct := newAdminDoor(sockets[0]).client
	defer direct.CloseIdleConnections()
	if _, text, err := get(direct, "http://envoy/config_dump"); err != nil || showsSecret(text) == "" {
		t.Fatalf("Envoy's own dump has no secret (%v): this test proves nothing", err)
	}
	paths := []string{"/config_dump?include_eds", "/config_dump?resource=ecds_filters", "/config_dump?resource=dynamic_listeners", "/config_dump?mask=ecds_filter",
		"/config_dump?name_regex=.*", "/listeners?format=json", "/stats?format=json", "/clusters?format=json"}
	for path := range adminPaths {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	for _, path := range paths {
		code, text, err := get(http.DefaultClient, "http://"+r.door+path)
		if err != nil || showsSecret(text) != "" || strings.Contains(text, "BEGIN PRIVATE") {
			t.Errorf("%s: %v, %d, and it shows a secret in %s", path, err, code, showsSecret(text))
		}
		if !strings.Contains(path, "?") && code != http.StatusOK {
			t.Errorf("%s: %d %s, want 200", path, code, text)
		}
	}
	if _, text, err := get(http.DefaultClient, "http://"+r.door+"/config_dump"); err != nil || !strings.Contains(text, `\"k\":\"[redacted]\"`) {
		t.Errorf("the dump does not have the key with its secret redacted (%v):\n%.2000s", err, text)
	}
	for _, path := range []string{"/quitquitquit", "/logging?level=trace", "/drain_listeners", "/runtime_modify?a=b"} {
		if res, err := http.Post("http://"+r.door+path, "", nil); err != nil || res.StatusCode < 400 {
			t.Errorf("POST %s: %v, %v; want a refusal", path, res, err)
		}
	}
	if code, _, err := get(http.DefaultClient, "http://"+r.door+"/ready"); err != nil || code != http.StatusOK {
		t.Errorf("/ready after all that: %d, %v; want 200", code, err)
	}
}

// showsSecret says in which form the shared secret is in a text.
func showsSecret(text string) string {
	for form, s := range map[string]string{
		"raw": string(sharedSecret), "raw, the part that is text": "-secret-of-32-bytes-!!",
		"base64": base64.StdEncoding.EncodeToString(sharedSecret), "base64url": base64.RawURLEncoding.EncodeToString(sharedSecret),
		"hex": hex.EncodeToString(sharedSecret), "HEX": strings.ToUpper(hex.EncodeToString(sharedSecret)),
	} {
		if strings.Contains(text, s) {
			return form
		}
	}
	return ""
}
