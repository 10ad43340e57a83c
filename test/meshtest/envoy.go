package meshtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/envoy"
	"github.com/watchword-mesh/watchword/dataplane/enrolment"
	"github.com/watchword-mesh/watchword/dataplane/sds"
)

// Envoy is a real Envoy.
type Envoy struct {
	// Service it protects. With YAML only a name for messages.
	Service string
	// Node is its name in status. Default: the service.
	Node string
	// ADS is where the control plane serves data planes, HOST:PORT.
	ADS string
	// Join makes a join token of the service, for the first start: the Envoy keeps
	// its identity over Stop and Start.
	Join func() string
	// Identity it has once it has enrolled.
	Identity *enrolment.Identity
	// YAML is the whole configuration of an Envoy that somebody else owns; its
	// admin interface must be at Admin.
	YAML string
	// Admin is the address of its admin interface. Default: a free one.
	Admin string
	// Concurrency is the number of worker threads. Default 2.
	Concurrency int
	// Log is what it wrote, access log included.
	Log Log

	sds     string
	process *exec.Cmd
	ended   chan struct{}
}

// Start runs it until Stop or the end of the test, and returns when it is
// ready. One that is not configured is ready after the time that its bootstrap
// waits for the control plane.
func (e *Envoy) Start(t testing.TB) {
	t.Helper()
	if e.Admin == "" {
		e.Admin = FreeAddress(t)
	}
	if e.Concurrency == 0 {
		e.Concurrency = 2
	}
	config := filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(config, e.config(t), 0o600); err != nil {
		t.Fatal(err)
	}
	e.process = exec.Command(EnvoyBinary(t), "--config-path", config, "--log-level", "warning", "--disable-hot-restart",
		"--concurrency", strconv.Itoa(e.Concurrency), "--file-flush-interval-msec", "50")
	e.process.Stdout, e.process.Stderr = &e.Log, &e.Log
	// An Envoy must not outlive a test that was killed.
	e.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := e.process.Start(); err != nil {
		t.Fatalf("starting Envoy: %v", err)
	}
	e.ended = make(chan struct{})
	go func() { _ = e.process.Wait(); close(e.ended) }()
	e.Log.showLater(t, "the Envoy of "+e.Service)
	t.Cleanup(e.Stop)
	e.waitReady(t)
}

func (e *Envoy) config(t testing.TB) []byte {
	t.Helper()
	if e.YAML != "" {
		return []byte(e.YAML)
	}
	if e.Identity == nil {
		e.Enrol(t)
	}
	text, err := envoy.Bootstrap(envoy.BootstrapOptions{
		Node: e.Node, Service: e.Service, ADSAddress: e.ADS, AdminAddress: e.Admin,
		Identity: &envoy.BootstrapIdentity{TrustDomain: e.Identity.TrustDomain(), SDSSocket: e.sds},
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Enrol does what `watchword envoy` does: it enrols, renews, and hands the Envoy its
// certificate over a Unix socket, until the test ends. Start does it if it was not
// done.
func (e *Envoy) Enrol(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	e.Identity = Enrol(t, e.ADS, e.Service, e.Join())
	e.sds = filepath.Join(ShortDir(t), "sds.sock")
	socket, err := sds.Listen(e.sds)
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() { _ = e.Identity.Run(ctx) })
	running.Go(func() { _ = sds.Serve(ctx, socket, e.Identity) })
	t.Cleanup(func() { cancel(); running.Wait() })
}

// Enrol is an instance of a service that has used a join token.
func Enrol(t testing.TB, ads, service, token string) *enrolment.Identity {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	id, err := enrolment.Enrol(ctx, enrolment.Config{Addresses: []string{ads}, Service: service, Node: service, Credential: enrolment.JoinToken(token)})
	if err != nil {
		t.Fatalf("enrolling an instance of %s: %v", service, err)
	}
	return id
}

func (e *Envoy) waitReady(t testing.TB) {
	t.Helper()
	Eventually(t, func() error {
		select {
		case <-e.ended:
			t.Fatalf("the Envoy of %s ended: %s", e.Service, e.process.ProcessState)
		default:
		}
		_, err := e.get("/ready")
		return err
	})
}

// CPU is the time that it has computed so far, in user and system mode.
func (e *Envoy) CPU(t testing.TB) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", e.process.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	// The fields after the name, which is in brackets (proc_pid_stat(5)).
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100 // USER_HZ
}

// PID is its process ID.
func (e *Envoy) PID() int { return e.process.Process.Pid }

// Stop kills it. One that is not running stays as it is.
func (e *Envoy) Stop() {
	if e.ended == nil {
		return
	}
	_ = e.process.Process.Kill()
	<-e.ended
	e.ended = nil
}

// EnvoyBinary is the Envoy that tests use: ENVOY, or what `make setup` put into
// the build folder.
func EnvoyBinary(t testing.TB) string {
	t.Helper()
	path := os.Getenv("ENVOY")
	if path == "" {
		path = filepath.Join(Root(), ".build", "envoy", "envoy")
	}
	if _, err := exec.LookPath(path); err != nil {
		t.Fatalf("no Envoy: %v; run `make setup`, or set ENVOY", err)
	}
	return path
}

func (e *Envoy) get(path string) (string, error) {
	client := http.Client{Timeout: 5 * time.Second}
	res, err := client.Get("http://" + e.Admin + path)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s of Envoy's admin interface: %s %s", path, res.Status, body)
	}
	return string(body), err
}

// Get is the answer of its admin interface, such as to "/config_dump".
func (e *Envoy) Get(t testing.TB, path string) string {
	t.Helper()
	body, err := e.get(path)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// Stats are its counters and gauges whose names contain all the words.
func (e *Envoy) Stats(t testing.TB, words ...string) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	for line := range strings.Lines(e.Get(t, "/stats?type=All")) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, err := strconv.ParseInt(value, 10, 64)
		if err == nil && containsAll(name, words) {
			out[name] = n
		}
	}
	return out
}

func containsAll(s string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(s, w) {
			return false
		}
	}
	return true
}

// Filters are the versions of the filter configs that it enforces, by name.
func (e *Envoy) Filters(t testing.TB) map[string]string {
	t.Helper()
	var dump struct {
		Configs []struct {
			Version string `json:"version_info"`
			Filter  struct {
				Name string `json:"name"`
			} `json:"ecds_filter"`
		} `json:"configs"`
	}
	if err := json.Unmarshal([]byte(e.Get(t, "/config_dump?resource=ecds_filters")), &dump); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, c := range dump.Configs {
		out[c.Filter.Name] = c.Version
	}
	return out
}
