package main

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// Where lines can't be drawn again, progress is a line every two seconds with
// the newest state, however often that changes.
func TestProgressPrintsALineEveryTwoSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		updates := make(chan *adminv1.WaitInSyncResponse)
		go func() {
			defer close(updates)
			for i := range int32(50) {
				updates <- &adminv1.WaitInSyncResponse{Total: 50, InSync: i, Waiting: []*adminv1.DataPlane{{Node: "a", Service: "s"}, {Node: "b"}}}
				time.Sleep(100*time.Millisecond + time.Microsecond)
			}
			updates <- &adminv1.WaitInSyncResponse{Total: 50, InSync: 50, Done: true, Elapsed: durationpb.New(5 * time.Second)}
		}()
		var out strings.Builder
		last := showProgress(&progress{w: &out}, 42, updates)
		if !last.done || last.InSync != 50 || last.ElapsedMillis != 5000 {
			t.Errorf("last = %+v, want done with 50 of 50 in 5 s", last)
		}
		want := "revision 42: 19 of 50 in sync after 2.0 s, waiting for a (s) and 1 more\n" +
			"revision 42: 39 of 50 in sync after 4.0 s, waiting for a (s) and 1 more\n"
		if d := cmp.Diff(want, out.String()); d != "" {
			t.Errorf("progress (-want +got):\n%s", d)
		}
	})
}

// A line that is drawn again covers the one before, never wraps, and is gone
// at the end.
func TestProgressRedraws(t *testing.T) {
	var out strings.Builder
	p := &progress{w: &out, redraw: true}
	p.show(strings.Repeat("x", 100))
	p.show("short")
	p.clear()
	long := strings.Repeat("x", lineWidth-1) + "…"
	want := "\r" + long + "\rshort" + strings.Repeat(" ", lineWidth-5) + "\r     \r"
	if d := cmp.Diff(want, out.String()); d != "" {
		t.Errorf("progress (-want +got):\n%s", d)
	}
}

// Tests that take long say how far they are, every two seconds.
func TestTestProgress(t *testing.T) {
	var out strings.Builder
	start := time.Unix(1_800_000_000, 0)
	p := newTestProgress(&console{err: &out}, 9, start)
	for n := range 5 {
		p.done(n+1, n/2, start.Add(time.Duration(n)*1100*time.Millisecond))
	}
	p.clear()
	if want := "3 of 9 tests, 1 failed\n5 of 9 tests, 2 failed\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}
