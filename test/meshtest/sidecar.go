package meshtest

import (
	"context"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Sidecar is a built watchword-sidecar as an operator runs it.
type Sidecar struct {
	// Binary is the program.
	Binary string
	// Service that it protects, and the addresses of the control plane.
	Service string
	ADS     []string
	// Join is a join token; empty: none is given.
	Join string
	// Args are more flags.
	Args []string
	// Ops is where it serves health and metrics, set by Start if it is empty.
	Ops string
	// Log is what it wrote, at trace.
	Log Log

	cmd   *exec.Cmd
	ended chan struct{}
	shown sync.Once
}

// Start runs it until it ends, or the test does.
func (s *Sidecar) Start(t testing.TB) {
	t.Helper()
	if s.Ops == "" {
		s.Ops = FreeAddress(t)
	}
	args := append([]string{"--service", s.Service, "--ads", strings.Join(s.ADS, ","), "--ops-listen", s.Ops, "--log-level", "trace"}, s.Args...)
	cmd, ended := exec.Command(s.Binary, args...), make(chan struct{})
	cmd.Env = append(os.Environ(), "WATCHWORD_JOIN_TOKEN="+s.Join)
	cmd.Stdout, cmd.Stderr = &s.Log, &s.Log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting the sidecar of %s: %v", s.Service, err)
	}
	go func() { _ = cmd.Wait(); close(ended) }()
	s.cmd, s.ended = cmd, ended
	s.shown.Do(func() { s.Log.showLater(t, "the sidecar of "+s.Service) })
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
}

// WaitReady returns when its readiness probe says so.
func (s *Sidecar) WaitReady(t testing.TB) {
	t.Helper()
	Eventually(t, func() error {
		select {
		case <-s.ended:
			t.Fatalf("the sidecar of %s ended: %s\n%s", s.Service, s.cmd.ProcessState, &s.Log)
		default:
		}
		code, text, err := s.get("/readyz")
		if err == nil && code != http.StatusOK {
			err = &notReady{text}
		}
		return err
	})
}

type notReady struct{ text string }

func (n *notReady) Error() string { return "readyz: " + n.text }

// Get asks its listener for health and metrics; without an answer the status is 0.
func (s *Sidecar) Get(path string) (status int, body string) {
	status, body, _ = s.get(path)
	return status, body
}

func (s *Sidecar) get(path string) (int, string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Ops+path, nil)
	if err != nil {
		return 0, "", err
	}
	req.Close = true
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res.StatusCode, string(body), err
}

// PID of the process.
func (s *Sidecar) PID() int { return s.cmd.Process.Pid }

// Signal sends one.
func (s *Sidecar) Signal(t testing.TB, signal os.Signal) {
	t.Helper()
	if err := s.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
}

// Wait returns the exit code; a process that goes on fails the test.
func (s *Sidecar) Wait(t testing.TB) int {
	t.Helper()
	select {
	case <-s.ended:
	case <-time.After(Patience):
		t.Fatalf("the sidecar of %s goes on after %s\n%s", s.Service, Patience, &s.Log)
	}
	return s.cmd.ProcessState.ExitCode()
}

// Stop asks for an orderly end, and wants one.
func (s *Sidecar) Stop(t testing.TB) {
	t.Helper()
	s.Signal(t, syscall.SIGTERM)
	if code := s.Wait(t); code != 0 {
		t.Errorf("the sidecar of %s after SIGTERM: exit code %d, want 0", s.Service, code)
	}
}
