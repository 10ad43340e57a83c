// Command demo tells the main job of Watchword on the terminal, with the real
// program, real Envoys and real requests:
//
//	frontend --token--> Envoy of orders --> orders --token--> Envoy of payments --> payments
//	                      ^                                     ^
//	                      +---- ADS ---- watchword serve -------+
//
// Then three services that have an Envoy, the Go library (linked) and the sidecar call
// each other; two of them are one program that knows nothing of all this (plain).
//
// story.go is the story, a table of steps that each say what they want to see.
// actions.go is what a step can do; the rest is the mesh that it is done to.
// The manifests in mesh, changes and mixed are what a user would write.
//
// It starts everything on free ports of loopback and stops it again, also on
// SIGINT. The exit code is 0 only if every step came out right.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/mattn/go-isatty"
)

func main() {
	// SIGHUP too: a terminal that is closed must not leave Envoys behind.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	p := &printer{out: os.Stdout, terminal: isatty.IsTerminal(os.Stdout.Fd()) && os.Getenv("TERM") != "dumb"}
	p.color = p.terminal && os.Getenv("NO_COLOR") == ""
	keep := os.Getenv("KEEP") != "" && os.Getenv("KEEP") != "0"
	err := run(ctx, p, keep)
	if err == nil {
		return
	}
	if !errors.Is(err, errStepsFailed) {
		fmt.Fprintln(os.Stderr, "demo:", err)
	}
	stop()
	os.Exit(1)
}

var (
	errStepsFailed = errors.New("not all steps came out right")
	errInterrupted = errors.New("interrupted")
)

// run tells the story. Everything that it started has ended when it returns.
func run(ctx context.Context, p *printer, keep bool) (err error) {
	began := time.Now()
	m, err := newMesh()
	if err != nil {
		return err
	}
	defer func() { m.stop(keep || err != nil && !errors.Is(err, errInterrupted)) }()
	p.title(m)
	right := tell(ctx, p, m)
	if ctx.Err() != nil {
		p.end()
		return errInterrupted
	}
	p.total(right, len(story), time.Since(began), m)
	if keep {
		p.next(m)
		<-ctx.Done()
		p.stopping(m)
	}
	if right < len(story) {
		return errStepsFailed
	}
	return nil
}

// stepPatience is how long a step may take, its waits for processes included.
const stepPatience = 20 * time.Second

// tell runs the steps in order and counts those that came out right. Without
// an essential one the rest would only repeat its fault.
func tell(ctx context.Context, p *printer, m *mesh) (right int) {
	for i, s := range story {
		p.section(s.section)
		got := perform(ctx, p, m, s)
		if ctx.Err() != nil {
			return right
		}
		if s.matches(got) {
			right++
			p.right(i+1, s, got, m)
			continue
		}
		p.wrong(i+1, s, got, m)
		if s.essential {
			p.brokenOff(len(story) - i - 1)
			return right
		}
	}
	return right
}

// perform does what the step says; an error is an outcome too.
func perform(ctx context.Context, p *printer, m *mesh, s step) string {
	ctx, cancel := context.WithTimeout(ctx, stepPatience)
	defer cancel()
	defer p.progress(s.say)()
	got, err := s.do.run(ctx, m)
	if err != nil {
		return "error: " + err.Error()
	}
	return got
}
