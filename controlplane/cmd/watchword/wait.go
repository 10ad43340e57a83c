package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// waitSlack is how much longer than --wait-timeout the client waits: the
// control plane ends the wait itself, and says who is not in sync.
const waitSlack = 3 * time.Second

// waiting is --wait with its timeout.
type waiting struct {
	wait    bool
	timeout time.Duration
}

func (w *waiting) addFlags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&w.wait, "wait", false, "return when all data planes that the change touches are in sync")
	addDuration(cmd.Flags(), &w.timeout, "wait-timeout", 30*time.Second, "with --wait: how long at most")
}

// syncReport is how a wait ended.
type syncReport struct {
	Total         int32       `json:"total"`
	InSync        int32       `json:"inSync"`
	ElapsedMillis int64       `json:"elapsedMillis"`
	Waiting       []planeView `json:"waiting,omitempty"`
	// At other replicas.
	Waits []waitView `json:"waits,omitempty"`
	// Of a receipt.
	Confirmed []confirmedView `json:"confirmed,omitempty"`
	Unknown   []waitView      `json:"unknown,omitempty"`

	done bool
}

// finish waits if it was asked to, and prints the structured formats, which
// hold the outcome of the wait.
func (c *client) finish(ctx context.Context, con *console, r *changeReport, w *waiting) error {
	var failed error
	if w.wait {
		r.Sync, failed = c.waitInSync(ctx, con, r, w.timeout)
	}
	if con.format == formatTable && r.Sync != nil && failed == nil {
		fmt.Fprintln(con.out, r.Sync.text(r.Revision))
	}
	if _, err := con.structured(r); err != nil {
		return err
	}
	return failed
}

// text is "revision 42: 2 of 2 in sync, 31 ms".
func (s *syncReport) text(revision int64) string {
	elapsed := took(time.Duration(s.ElapsedMillis) * time.Millisecond)
	if s.Total == 0 {
		return fmt.Sprintf("revision %d: no connected data plane is touched by it, %s", revision, elapsed)
	}
	return fmt.Sprintf("revision %d: %d of %d in sync, %s", revision, s.InSync, s.Total, elapsed)
}

func (c *client) waitInSync(ctx context.Context, con *console, r *changeReport, timeout time.Duration) (*syncReport, error) {
	return c.waitFor(ctx, con, &adminv1.WaitInSyncRequest{Revision: r.Revision, Services: r.services}, timeout)
}

// waitFor follows the progress of a revision until it is everywhere. The report is
// what is known at the end, also beside an error.
func (c *client) waitFor(ctx context.Context, con *console, request *adminv1.WaitInSyncRequest, timeout time.Duration) (*syncReport, error) {
	revision := request.GetRevision()
	request.Timeout = durationpb.New(timeout)
	ctx, cancel := context.WithTimeout(ctx, timeout+waitSlack)
	defer cancel()
	updates, ended := receive(func() (grpc.ServerStreamingClient[adminv1.WaitInSyncResponse], error) {
		return c.WaitInSync(ctx, request)
	})
	p := &progress{w: con.err, redraw: con.errTerminal}
	last := showProgress(p, revision, updates)
	err := <-ended
	switch {
	case last.done:
		return last, nil
	case status.Code(err) == codes.DeadlineExceeded:
		return last, notInSync(revision, last, timeout)
	case errors.Is(err, io.EOF):
		err = status.Error(codes.Unavailable, "it ended the wait early")
	}
	fmt.Fprintf(con.err, "revision %d is stored, but the wait for it broke off; see `watchword status`\n", revision)
	return last, err
}

// notInSync names those that are not in sync, and why.
func notInSync(revision int64, last *syncReport, timeout time.Duration) error {
	f := &failure{code: exitNotInSync,
		err:  fmt.Errorf("revision %d is stored, but only %d of %d data planes are in sync after %s", revision, last.InSync, last.Total, took(timeout)),
		hint: "`watchword status` shows when they are, `watchword xds --node NODE` what they were sent"}
	for _, plane := range last.Waiting {
		f.lines = append(f.lines, "not in sync: "+plane.who()+": "+plane.why())
	}
	for _, w := range last.Waits {
		f.lines = append(f.lines, "not in sync: "+w.who()+": "+w.why())
	}
	if more := int(last.Total-last.InSync) - len(last.Waiting); more > 0 {
		f.lines = append(f.lines, fmt.Sprintf("not in sync: %d more", more))
	}
	return f
}
