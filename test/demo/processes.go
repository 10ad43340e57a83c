package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// process is one that we started. It leads a process group, so that Ctrl-C on
// the terminal reaches us alone, and we end it.
type process struct {
	name, log string
	cmd       *exec.Cmd
	ended     chan struct{}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// processes by name.
type processes map[string]*process

// start starts a program that writes to logs/NAME.log, with more variables in its
// environment.
func (m *mesh) start(name string, variables []string, program string, args ...string) error {
	if err := os.MkdirAll(m.logs(), 0o700); err != nil {
		return err
	}
	p := &process{name: name, log: filepath.Join(m.logs(), name+".log"), ended: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own
	p.cmd = exec.Command(program, args...)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Env = log, log, append(environment(), variables...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	go func() {
		_ = p.cmd.Wait() // what it had to say is in its log
		close(p.ended)
	}()
	if m.processes == nil {
		m.processes = make(processes)
	}
	m.processes[name] = p
	return nil
}

// environment is ours without the settings of watchword: the demo must not
// find the control plane that its user works with.
func environment() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "WATCHWORD_") })
}

// endPatience is how long a process may take to end when it is asked to.
const endPatience = 6 * time.Second

// end sends a signal to the process group and waits for the process to end.
func (p *process) end(signal syscall.Signal) error {
	select {
	case <-p.ended: // its ID may be somebody else's by now
		return nil
	default:
	}
	if err := syscall.Kill(-p.pid(), signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("ending %s: %w", p.name, err)
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(endPatience):
		return fmt.Errorf("%s (process %d) does not end", p.name, p.pid())
	}
}

// stop ends all of them. `watchword envoy` hands SIGTERM on to its Envoy,
// which is in a group of its own; SIGKILL is for what does not listen.
func (ps processes) stop() {
	var wg sync.WaitGroup
	for _, p := range ps {
		wg.Go(func() {
			if err := p.end(syscall.SIGTERM); err == nil {
				return
			}
			if err := p.end(syscall.SIGKILL); err != nil {
				fmt.Fprintln(os.Stderr, "demo:", err)
			}
		})
	}
	wg.Wait()
}

// pollInterval is how often a condition is looked at.
const pollInterval = 20 * time.Millisecond

// until polls a condition that the named process brings about.
func (m *mesh) until(ctx context.Context, name string, condition func() error) error {
	p := m.processes[name]
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended: %s", name, p.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", name, err)
		case <-tick.C:
		}
	}
}

// lastWords are the last lines of its log.
func (p *process) lastWords() string {
	const enough = 4
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-enough):], "\n")
}

// listening waits until the named process has opened its port.
func (m *mesh) listening(ctx context.Context, name string, port int) error {
	return m.until(ctx, name, func() error {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return err
		}
		return c.Close()
	})
}

// inSync polls `watchword status` until so many data planes are there and all
// of them in sync; it returns the line that says so.
func (m *mesh) inSync(ctx context.Context, dataPlanes int) (line string, err error) {
	want := fmt.Sprintf("%s, %d in sync ", count(dataPlanes, "data plane"), dataPlanes)
	err = m.until(ctx, "control-plane", func() error {
		var err error
		if line, err = m.lastLine(ctx, "status"); err != nil {
			return err
		}
		if !strings.HasPrefix(line, want) {
			return fmt.Errorf("status says %q", line)
		}
		return nil
	})
	return line, err
}

// exitUnreachable is the exit code for a control plane that is not there; see
// `watchword help exit-codes`.
const exitUnreachable = 6

// exitError is a command that failed, with what it said.
type exitError struct {
	code          int
	command, said string
}

func (e *exitError) Error() string {
	return fmt.Sprintf("watchword %s ended with exit code %d: %s", e.command, e.code, e.said)
}

// cli runs a command of the product and returns what it printed.
func (m *mesh) cli(ctx context.Context, args ...string) (string, error) {
	return m.cliReading(ctx, "", args...)
}

// cliReading runs a command with something on its standard input.
func (m *mesh) cliReading(ctx context.Context, input string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, m.watchword, append(slices.Clip(args), "--data-dir", m.dataDir())...)
	cmd.Env = environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out, said strings.Builder
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &said
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return "", fmt.Errorf("watchword %s: %w", args[0], ctx.Err())
	case errors.As(err, &exit):
		return "", &exitError{exit.ExitCode(), args[0], strings.TrimSpace(said.String())}
	}
	return out.String(), err
}

// lastLine runs a command and returns the last line that it printed.
func (m *mesh) lastLine(ctx context.Context, args ...string) (string, error) {
	text, err := m.cli(ctx, args...)
	if err != nil {
		return "", err
	}
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1], nil
}
