package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"go.uber.org/goleak"

	"github.com/watchword-mesh/watchword/dataplane"
	"github.com/watchword-mesh/watchword/dataplane/enrolment"
	"github.com/watchword-mesh/watchword/dataplane/tokens"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// An STS that is slow, and then away for four fifths of the life of a token, is
// noticed by no caller that has had a token before.
func TestTokensWithoutSTS(t *testing.T) {
	t.Parallel()
	sts := &meshtest.Link{Address: meshtest.FreeAddress(t), To: meshtest.FreeAddress(t)}
	sts.Start(t)
	m := &mesh{inbound: map[string]string{}}
	m.Config.STSListen, m.Config.IssuerURL = sts.To, "https://"+sts.Address
	m.ControlPlane.Start(t)
	const life = 10 * time.Second
	m.Apply(t, resource("Issuer", "watchword", fmt.Sprintf("{issuer: %q, keySet: {builtin: {trustDomain: mesh.local, tokenLifetime: 10s}}}", m.Config.IssuerURL))+
		resource("Service", "orders", "{dataPlanes: [GO]}")+resource("Service", "shop", "{dataPlanes: [GO], calls: [{service: orders}]}"))
	shop := m.OpenDataPlane(t, "shop")
	sts.Delay(time.Second)
	began := time.Now()
	first, err := shop.Token(t.Context(), "orders")
	if took := time.Since(began); err != nil || took < time.Second {
		t.Fatalf("the first token: %v, after %s from an STS that takes a second", err, took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	var mu sync.Mutex
	var asked, late int
	var faults []error
	for range 8 {
		callers.Go(func() {
			for ctx.Err() == nil {
				began := time.Now()
				got, err := shop.Token(context.Background(), "orders")
				mu.Lock()
				if asked++; err != nil || time.Now().After(got.Expires) {
					faults = append(faults, fmt.Errorf("%v: %w", got, err))
				}
				if time.Since(began) > 200*time.Millisecond {
					late++
				}
				mu.Unlock()
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	fresh := func(than tokens.Token) (got tokens.Token) {
		t.Helper()
		meshtest.Eventually(t, func() error {
			var err error
			if got, err = shop.Token(t.Context(), "orders"); err == nil && got.Value == than.Value {
				err = errors.New("still the same token")
			}
			return err
		})
		return got
	}
	slow := fresh(first) // its life began before the answer, and so is short
	sts.Delay(0)
	second := fresh(slow)
	sts.Refuse(true)
	sts.Cut()
	time.Sleep(life * 8 / 10)
	sts.Refuse(false)
	fresh(second)
	cancel()
	callers.Wait()
	if len(faults) > 0 || late > 0 {
		t.Errorf("of %d calls %d had no valid token and %d waited for one, want none; the first: %v", asked, len(faults), late, faults[:min(3, len(faults))])
	}
	t.Logf("%d calls", asked)
}

// An instance that is revoked has no tokens and no file from then on, and its stream
// is cut, caller or callee.
func TestRevokedInstance(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.Apply(t, resource("Service", "orders", "{dataPlanes: [GO]}")+resource("Service", "shop", "{dataPlanes: [GO], calls: [{service: orders}]}"))
	dir := t.TempDir()
	file := func(service string) string { return filepath.Join(dir, service) }
	open := func(service string) *dataplane.DataPlane {
		return m.OpenDataPlane(t, service, func(c *dataplane.Config) {
			c.File, c.KeyFile = file(service), file(service+".key")
		})
	}
	shop, orders := open("shop"), open("orders")
	if _, err := shop.Token(t.Context(), "orders"); err != nil {
		t.Fatal(err)
	}
	for _, d := range []*dataplane.DataPlane{shop, orders} {
		id, err := d.Identity(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m.WaitConnected(t, id.Service(), 1)
		if _, err := os.Stat(file(id.Service())); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Admin.RevokeInstances(t.Context(), &adminv1.RevokeInstancesRequest{Service: id.Service(), Instances: []string{id.Instance()}}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		meshtest.Eventually(t, func() error {
			if _, err := os.Stat(file(id.Service())); err == nil {
				return errors.New("the file of " + id.Service() + " is still there")
			}
			return nil
		})
		t.Logf("the file of %s was gone after %s", id.Service(), time.Since(began))
		m.WaitConnected(t, id.Service(), 0)
	}
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		got, err := shop.Token(ctx, "orders")
		cancel()
		if refusal := (*tokens.Error)(nil); !errors.As(err, &refusal) {
			t.Errorf("a token of a revoked instance: %v, %v, want the STS's refusal", got, err)
		}
	}
	// Started again with its key file, and what is left of the other, it gets nothing.
	orders.Close()
	again, err := dataplane.Open(t.Context(), dataplane.Config{Addresses: []string{m.Config.XDSListen}, Service: "orders", File: file("orders"), KeyFile: file("orders.key")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := again.Ready(ctx); !errors.Is(err, enrolment.ErrRefused) {
		t.Errorf("Ready of a revoked instance after a restart: %v, want ErrRefused", err)
	}
}

// An instance that was revoked while it was not running does not start with its file:
// once the control plane has said no, the file is gone.
func TestRevokedWhileDown(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.Apply(t, resource("Service", "orders", "{dataPlanes: [GO]}"))
	dir := t.TempDir()
	config := func(c *dataplane.Config) { c.File, c.KeyFile = filepath.Join(dir, "last"), filepath.Join(dir, "key") }
	first := m.OpenDataPlane(t, "orders", config)
	id, err := first.Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	if _, err := m.Admin.RevokeInstances(t.Context(), &adminv1.RevokeInstancesRequest{Service: "orders", Instances: []string{id.Instance()}}); err != nil {
		t.Fatal(err)
	}
	c := dataplane.Config{Addresses: []string{m.Config.XDSListen}, Service: "orders"}
	config(&c)
	second, err := dataplane.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(second.Close)
	meshtest.Eventually(t, func() error {
		if _, err := os.Stat(c.File); err == nil {
			return errors.New("the file is still there")
		}
		return nil
	})
}

// limitSidecar keeps a sidecar from writing to any file beyond this many bytes.
func limitSidecar(t *testing.T, s *meshtest.Sidecar, size uint64) {
	t.Helper()
	limit := syscall.Rlimit{Cur: size, Max: size}
	const fileSize = 1 // RLIMIT_FSIZE
	if _, _, errno := syscall.Syscall6(syscall.SYS_PRLIMIT64, uintptr(s.PID()), fileSize, uintptr(unsafe.Pointer(&limit)), 0, 0, 0); errno != 0 {
		t.Fatalf("limiting the size of files: %v", errno)
	}
}

// A file of the last configuration that can't be written, or is damaged, is said to
// be: what is in force stays so, and the next start without control plane refuses
// everything.
func TestSidecarFileFaults(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.Apply(t, resource("Service", "orders", "{dataPlanes: [GO]}")+resource("Service", "shop", "{calls: [{service: orders}]}"))
	for what, c := range map[string]struct {
		damage  func(t *testing.T, s *meshtest.Sidecar, file string)
		log     string // of the process that runs
		restart string // of the next one
		ends    bool   // the next one ends
	}{
		"full disk": {func(t *testing.T, s *meshtest.Sidecar, _ string) { limitSidecar(t, s, 16) },
			"the configuration is not kept: a start without control plane will refuse everything", "listening", false},
		"folder gone": {func(t *testing.T, _ *meshtest.Sidecar, file string) {
			if err := errors.Join(os.Rename(filepath.Dir(file), filepath.Dir(file)+".away"), os.WriteFile(filepath.Dir(file), nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		}, "it is in force, but the file for a start without control plane has what was before", "is no folder", true},
		"flipped byte": {nil, "", "the last configuration can't be used: refusing all requests until the control plane is there", false},
		"cut off":      {nil, "", "the last configuration can't be used: refusing all requests until the control plane is there", false},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			ads := &meshtest.Link{To: m.Config.XDSListen}
			ads.Start(t)
			inbound, dir := meshtest.FreeAddress(t), filepath.Join(t.TempDir(), "cache")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, "last")
			s := m.newSidecar(t, "orders", "--listen", inbound, "--upstream", m.echo.Address, "--cache-file", file, "--key-file", filepath.Join(t.TempDir(), "key"))
			s.ADS = []string{ads.Address}
			s.Start(t)
			s.WaitReady(t)
			token := m.Token(t, "shop", "orders")
			meshtest.Eventually(t, func() error {
				_, err := os.Stat(file)
				return err
			})
			if c.damage != nil {
				c.damage(t, s, file)
				m.Apply(t, resource("AuthorizationPolicy", "p-"+strings.ReplaceAll(what, " ", "-"), "{target: {services: [orders]}, action: DENY, rules: [{to: {paths: [/"+strings.ReplaceAll(what, " ", "")+"]}}]}"))
				meshtest.Eventually(t, func() error {
					if !strings.Contains(s.Log.String(), c.log) {
						return errors.New("the log does not say: " + c.log)
					}
					return nil
				})
				meshtest.Eventually(t, func() error { // it can't be kept, and is in force
					return statusIs(meshtest.Send(t, inbound, meshtest.Call{Path: "/" + strings.ReplaceAll(what, " ", ""), Token: token}), 403)
				})
			}
			ads.Refuse(true)
			ads.Cut()
			s.Stop(t)
			if c.damage == nil {
				content, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				content[len(content)/2] ^= 1
				if what == "cut off" {
					content = content[:len(content)/2]
				}
				if err := os.WriteFile(file, content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			before := len(s.Log.String())
			s.Start(t)
			if c.ends {
				if code := s.Wait(t); code != 1 {
					t.Errorf("exit code %d, want 1", code)
				}
			} else if got := meshtest.Send(t, inbound, meshtest.Call{Token: token}); got.Status != 503 {
				t.Errorf("after a start without control plane: %d %s, want 503", got.Status, got.Body)
			}
			if text := s.Log.String()[before:]; !strings.Contains(text, c.restart) {
				t.Errorf("log:\n%s\nwant %q", text, c.restart)
			}
		})
	}
}

// leaks is set in the process that TestCloseLeavesNothing runs.
const leaks = "WATCHWORD_TEST_LEAKS"

// Close in the middle of whatever goes on leaves no goroutine. Others would be in the
// way, so it has a process of its own.
func TestCloseLeavesNothing(t *testing.T) {
	t.Parallel()
	if os.Getenv(leaks) != "" {
		closeInTheMiddle(t)
		return
	}
	self := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCloseLeavesNothing$", "-test.v", "-test.timeout=60s")
	self.Env = append(os.Environ(), leaks+"=1")
	if out, err := self.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS") {
		t.Errorf("%v\n%s", err, out)
	} else if testing.Verbose() {
		t.Logf("%s", out)
	}
}

func closeInTheMiddle(t *testing.T) {
	m := startMesh(t)
	m.Apply(t, resource("Service", "orders", "{dataPlanes: [GO]}")+resource("Service", "shop", "{dataPlanes: [GO], calls: [{service: orders}]}"))
	silent := &meshtest.Link{To: m.Config.XDSListen}
	silent.Start(t)
	silent.Freeze()
	var joins []string
	for range 40 {
		joins = append(joins, m.JoinToken(t, "shop"))
	}
	began := time.Now()
	before := goleak.IgnoreCurrent()
	for i, join := range joins {
		address := m.Config.XDSListen
		if i%8 == 7 {
			address = silent.Address
		}
		d, err := dataplane.Open(t.Context(), dataplane.Config{Addresses: []string{address}, Service: "shop", Credential: enrolment.JoinToken(join)})
		if err != nil {
			t.Fatal(err)
		}
		var busy sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		for range 4 {
			busy.Go(func() { _, _ = d.Token(ctx, "orders") })
			busy.Go(func() {
				handler := d.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
				for ctx.Err() == nil {
					handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/", nil))
					time.Sleep(time.Millisecond)
				}
			})
		}
		if i%4 == 3 && i%8 != 7 {
			_ = d.Ready(ctx)
		}
		time.Sleep(time.Duration(i) * time.Millisecond)
		began := time.Now()
		d.Close()
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("Close took %s", took)
		}
		cancel()
		busy.Wait()
	}
	t.Logf("all closed after %s", time.Since(began))
	// What the control plane does for streams that have ended is not ours.
	if err := goleak.Find(before); err != nil {
		for part := range strings.SplitSeq(err.Error(), "Goroutine ") {
			if strings.Contains(part, " in state ") && !theirs(part) {
				t.Errorf("left: %s", part)
			}
		}
	}
}

// theirs says whether a goroutine is of the control plane, or of the line to it.
func theirs(stack string) bool {
	for _, name := range []string{"watchword/controlplane", "watchword/test/meshtest", "grpc.(*Server)", "http2Server", "net/http.(*conn)", "http2serverConn", "etcd"} {
		if strings.Contains(stack, name) {
			return true
		}
	}
	return false
}
