package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

const (
	// lineInterval is how often progress is a new line, where lines can't be
	// drawn again.
	lineInterval = 2 * time.Second
	// lineWidth is what fits on every terminal: a longer line would wrap, and
	// then not be drawn again in its place.
	lineWidth = 79
)

// follow shows the updates until there are no more, and returns the last one; nil
// if there was none.
func follow[T any](p *progress, updates <-chan *T, text func(last *T, elapsed time.Duration) string) *T {
	var last *T
	started := time.Now()
	tick := time.NewTicker(p.interval())
	defer tick.Stop()
	defer p.clear()
	for {
		select {
		case u, ok := <-updates:
			if !ok {
				return last
			}
			last = u
		case <-tick.C:
			p.show(text(last, time.Since(started)))
		}
	}
}

// receive reads a stream; the channels end with it, and ended has its error.
func receive[T any](open func() (grpc.ServerStreamingClient[T], error)) (<-chan *T, <-chan error) {
	return receiveUntil(open, func(*T) bool { return false })
}

// receiveUntil reads no further than the update that is the last.
func receiveUntil[T any](open func() (grpc.ServerStreamingClient[T], error), last func(*T) bool) (<-chan *T, <-chan error) {
	updates, ended := make(chan *T), make(chan error, 1)
	go func() {
		defer close(updates)
		stream, err := open()
		for err == nil {
			var update *T
			if update, err = stream.Recv(); err == nil {
				updates <- update
				if last(update) {
					break
				}
			}
		}
		ended <- err
	}()
	return updates, ended
}

// showProgress shows how a revision spreads, and returns what was said last.
func showProgress(p *progress, revision int64, updates <-chan *adminv1.WaitInSyncResponse) *syncReport {
	return syncReportOf(follow(p, updates, func(last *adminv1.WaitInSyncResponse, elapsed time.Duration) string {
		return progressText(revision, syncReportOf(last), elapsed)
	}))
}

func syncReportOf(u *adminv1.WaitInSyncResponse) *syncReport {
	return &syncReport{
		Total:         u.GetTotal(),
		InSync:        u.GetInSync(),
		ElapsedMillis: u.GetElapsed().AsDuration().Milliseconds(),
		Waiting:       planeViews(u.GetWaiting()),
		Waits:         waitViews(u.GetWaits()),
		Confirmed:     confirmedViews(u.GetConfirmed()),
		Unknown:       waitViews(u.GetUnknown()),
		done:          u.GetDone(),
	}
}

func progressText(revision int64, s *syncReport, elapsed time.Duration) string {
	text := fmt.Sprintf("revision %d: %d of %d in sync after %s", revision, s.InSync, s.Total, took(elapsed))
	switch {
	case len(s.Waiting) > 0:
		text += ", waiting for " + s.Waiting[0].who()
	case len(s.Waits) > 0:
		text += ", waiting for " + s.Waits[0].who()
	}
	if more := len(s.Waiting) + len(s.Waits) - 1; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return oneLine(text)
}

// progress draws one line again and again, or prints a line now and then. It
// uses no control sequences beyond the carriage return.
type progress struct {
	w      io.Writer
	redraw bool
	drawn  int
}

func (p *progress) interval() time.Duration {
	if p.redraw {
		return 100 * time.Millisecond
	}
	return lineInterval
}

func (p *progress) show(line string) {
	if !p.redraw {
		fmt.Fprintln(p.w, line)
		return
	}
	if runes := []rune(line); len(runes) > lineWidth {
		line = string(runes[:lineWidth-1]) + "…"
	}
	width := utf8.RuneCountInString(line)
	fmt.Fprint(p.w, "\r", line, strings.Repeat(" ", max(p.drawn-width, 0)))
	p.drawn = width
}

// clear leaves an empty line for what comes next.
func (p *progress) clear() {
	if p.drawn > 0 {
		fmt.Fprint(p.w, "\r", strings.Repeat(" ", p.drawn), "\r")
		p.drawn = 0
	}
}
