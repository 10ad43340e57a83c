package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// find returns the Envoy binary.
func (f *envoyFlags) find() (string, error) {
	name := f.binary
	if name == "" {
		name = os.Getenv("ENVOY")
	}
	if name == "" {
		name = "envoy"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", &failure{code: exitFailed, err: fmt.Errorf("finding Envoy: %w", err),
			hint: "name the binary with --envoy PATH or ENVOY=PATH, or put envoy on the PATH"}
	}
	return path, nil
}

// arguments of Envoy. Without hot restart any number of Envoys run on a host:
// with it they would need a base ID each.
func (f *envoyFlags) arguments(bootstrap string, extra []string) []string {
	args := []string{"--config-path", bootstrap, "--disable-hot-restart"}
	if f.concurrency > 0 {
		args = append(args, "--concurrency", strconv.Itoa(f.concurrency))
	}
	// At info an Envoy that starts lists every extension that it has.
	if !slices.ContainsFunc(extra, setsLogLevel) {
		args = append(args, "--log-level", "warning")
	}
	return append(args, extra...)
}

func setsLogLevel(arg string) bool {
	return arg == "-l" || arg == "--log-level" || strings.HasPrefix(arg, "--log-level=")
}

// runEnvoy runs Envoy until it ends. ctx ends with a signal that came before
// there was an Envoy to pass it on to.
//
// Envoy has a process group of its own, so that Ctrl-C on a terminal reaches
// it once, by way of this process. What it needs may fail: then it is ended.
func runEnvoy(ctx context.Context, binary string, args []string, failed <-chan error) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	if ctx.Err() != nil {
		return errors.New("interrupted before Envoy was started")
	}
	// Linux ends Envoy with the thread that has started it, which must not be one that
	// Go ends when it likes.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.Env = withoutJoinToken(os.Environ())
	cmd.SysProcAttr = childAttributes()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting Envoy: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var fault error
	for {
		select {
		case s := <-signals:
			// An Envoy that has just ended is no error: ended says so next.
			_ = cmd.Process.Signal(forwarded(s))
		case fault = <-failed:
			_ = cmd.Process.Signal(syscall.SIGTERM)
		case err := <-ended:
			if fault != nil {
				return fault
			}
			return envoyExit(err)
		}
	}
}

// forwarded is the signal that Envoy gets. It ignores SIGHUP, and would
// outlive a terminal that was closed.
func forwarded(s os.Signal) os.Signal {
	if s == os.Interrupt {
		return s
	}
	return syscall.SIGTERM
}

// envoyExit passes Envoy's exit code on; its last words are on the terminal
// already.
func envoyExit(err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	if s, ok := exit.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return &failure{code: 128 + int(s.Signal()), err: fmt.Errorf("the Envoy process was ended by signal %d (%s)", int(s.Signal()), s.Signal())}
	}
	return &failure{code: exit.ExitCode()}
}
