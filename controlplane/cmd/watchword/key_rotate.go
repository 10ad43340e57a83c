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

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

func newKeyRotateCommand(o *options) *cobra.Command {
	var w waiting
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Let the next key take over now",
		Long: `Asks that the next signing key takes over now, and not when it is due. It begins to
sign audience by audience, each as soon as all that verify its tokens have the key, so
that no valid token is refused; the key of before goes when its last token has ended.
A data plane that does not confirm holds back its own audiences only.

With --wait it returns when the next key signs for all audiences, and otherwise names
who is missing and why. It goes on if this command is interrupted.`,
		Example: `  watchword key rotate
  watchword key rotate --wait --wait-timeout 10m`,
		Args: noArguments(""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.withClient(cmd, func(ctx context.Context, c *client) error {
				return runKeyRotate(ctx, c, o.console(cmd), &w)
			})
		},
	}
	cmd.Flags().BoolVar(&w.wait, "wait", false, "return when the next key signs for all audiences")
	addDuration(cmd.Flags(), &w.timeout, "wait-timeout", 5*time.Minute, "with --wait: how long at most")
	return cmd
}

// keyRotationView is the JSON and YAML form of a rotation.
type keyRotationView struct {
	// Active signed when it was asked for, Next is the one that takes over.
	Active string `json:"active"`
	Next   string `json:"next,omitempty"`
	// Of a wait.
	Done          bool      `json:"done,omitempty"`
	ElapsedMillis int64     `json:"elapsedMillis,omitempty"`
	Keys          *keysView `json:"keys,omitempty"`
}

func runKeyRotate(ctx context.Context, c *client, con *console, w *waiting) error {
	began := time.Now()
	response, err := c.RotateSigningKey(ctx, &adminv1.RotateSigningKeyRequest{})
	if err != nil {
		return err
	}
	view := keyRotationView{Active: response.GetActive(), Next: response.GetNext()}
	var failed error
	if w.wait {
		view.Keys, failed = c.waitForRotation(ctx, con, view.Active, w.timeout)
		view.Done, view.ElapsedMillis = failed == nil, time.Since(began).Milliseconds()
	}
	if ok, err := con.structured(view); ok {
		return errors.Join(failed, err)
	}
	if failed != nil {
		return failed
	}
	con.printRotation(view)
	return nil
}

func (c *console) printRotation(v keyRotationView) {
	switch {
	case c.format == formatName && v.Done:
		fmt.Fprintln(c.out, oneLine(v.Keys.Active))
	case c.format == formatName:
		fmt.Fprintln(c.out, oneLine(v.Next))
	case v.Done:
		fmt.Fprintf(c.out, "signing key %s signs for all of %s, %s\n", shortKey(v.Keys.Active), count(int(v.Keys.Audiences), "audience"), took(time.Duration(v.ElapsedMillis)*time.Millisecond))
	case v.Next == "":
		fmt.Fprintf(c.out, "asked for; signing key %s signs until there is a next one\n", shortKey(v.Active))
	default:
		fmt.Fprintf(c.out, "asked for; signing key %s takes over from %s\n", shortKey(v.Next), shortKey(v.Active))
	}
}

// waitForRotation follows the keys until another than before signs for everything.
func (c *client) waitForRotation(ctx context.Context, con *console, before string, timeout time.Duration) (*keysView, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stream := func() (grpc.ServerStreamingClient[adminv1.WatchSigningKeysResponse], error) {
		return c.WatchSigningKeys(ctx, &adminv1.WatchSigningKeysRequest{})
	}
	updates, ended := receiveUntil(stream, func(u *adminv1.WatchSigningKeysResponse) bool { return rotated(u.GetSigningKeys(), before) })
	last := follow(&progress{w: con.err, redraw: con.errTerminal}, updates, func(last *adminv1.WatchSigningKeysResponse, elapsed time.Duration) string {
		return keysViewOf(last.GetSigningKeys()).progress(before, elapsed)
	})
	err, view := <-ended, keysViewOf(last.GetSigningKeys())
	switch {
	case rotated(last.GetSigningKeys(), before):
		return &view, nil
	case ctx.Err() == context.DeadlineExceeded, status.Code(err) == codes.DeadlineExceeded:
		return &view, notRotated(view, before, timeout)
	case errors.Is(err, io.EOF):
		err = status.Error(codes.Unavailable, "it ended the wait early")
	}
	fmt.Fprintln(con.err, "the rotation is asked for and goes on, but the wait for it broke off; see `watchword key status`")
	return &view, err
}

// rotated: another key signs, and for every audience.
func rotated(u *adminv1.SigningKeys, before string) bool {
	return u.GetActive() != "" && u.GetActive() != before && u.GetBehind() == 0
}

// progress is a line such as "9fXaQQ12 signs for 3 of 5 audiences after 2.1 s, waiting
// for node-7 of payments".
func (v keysView) progress(before string, elapsed time.Duration) string {
	text := fmt.Sprintf("%s signs for %d of %s after %s", shortKey(v.Active), v.Audiences-v.Behind, count(int(v.Audiences), "audience"), took(elapsed))
	if v.Active == before || v.Active == "" {
		text = fmt.Sprintf("0 of %s handed over after %s", count(int(v.Audiences), "audience"), took(elapsed))
	}
	if waits := v.missing(before); len(waits) > 0 {
		text += ", waiting for " + waits[0].who()
		if more := len(waits) - 1; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
	}
	return oneLine(text)
}

// missing is what the rotation waits for: before it has begun, what the next key does.
func (v keysView) missing(before string) []*gatheredWait {
	var waits []waitView
	for _, k := range v.Keys {
		if k.State == "standby" && v.Active == before || k.State == "active" && v.Active != before {
			waits = append(waits, k.Waits...)
		}
	}
	return gathered(waits)
}

func notRotated(v keysView, before string, timeout time.Duration) error {
	f := &failure{code: exitNotInSync,
		err:  fmt.Errorf("the rotation is asked for and goes on, but after %s the next key signs for %d of %s", took(timeout), v.handedOver(before), count(int(v.Audiences), "audience")),
		hint: "`watchword key status` shows when it is done; docs/rotation.md says what to do about who is missing"}
	for _, w := range v.missing(before) {
		f.lines = append(f.lines, "missing: "+w.who()+": "+w.why())
	}
	if v.Full {
		f.lines = append(f.lines, "there is no next key until one of those that are published goes")
	}
	return f
}

func (v keysView) handedOver(before string) int32 {
	if v.Active == before {
		return 0
	}
	return v.Audiences - v.Behind
}
