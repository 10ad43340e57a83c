package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

func newKEKCommand(o *options) *cobra.Command {
	return newGroup("kek", "Look after the key-encryption key", newKEKRotateCommand(o))
}

func newKEKRotateCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "rotate",
		Short: "Seal everything with the newest key-encryption key",
		Long: `Has the control plane read its key-encryption keys anew, and seal everything that is
stored with the newest one. An earlier key has to stay with it until that is done,
and every replica needs both before; docs/keys-at-rest.md has the steps. One rotation
runs at a time, and goes on if this command is interrupted: ` + "`watchword audit`" + ` says
how it ended. If it broke off, everything can still be read: run it again.`,
		Example: `  watchword kek rotate`,
		Args:    noArguments(""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.withClient(cmd, func(ctx context.Context, c *client) error {
				return runKEKRotate(ctx, c, o.console(cmd))
			})
		},
	}
}

// rotationView is the JSON and YAML form of a rotation that is over.
type rotationView struct {
	KEK     string `json:"kek"`
	Records int64  `json:"records"`
}

func runKEKRotate(ctx context.Context, c *client, con *console) error {
	updates, ended := receive(func() (grpc.ServerStreamingClient[adminv1.RotateKEKResponse], error) {
		return c.RotateKEK(ctx, &adminv1.RotateKEKRequest{})
	})
	last := follow(&progress{w: con.err, redraw: con.errTerminal}, updates, rotationText)
	if err := <-ended; !errors.Is(err, io.EOF) {
		if last != nil {
			fmt.Fprintf(con.err, "nothing more was heard after %d of %d records; everything can still be read. If the control plane is well it goes on, and `watchword audit` says how it ended; if it broke off, run it again\n", last.GetDone(), last.GetTotal())
		}
		return err
	}
	if !last.GetFinished() {
		return &failure{code: exitFailed, err: fmt.Errorf("the rotation ended early, after %d of %d records", last.GetDone(), last.GetTotal()),
			hint: "everything can still be read; `watchword audit` says how it ended: if it broke off, run it again"}
	}
	view := rotationView{last.GetKek(), last.GetTotal()}
	if ok, err := con.structured(view); ok {
		return err
	}
	if con.format == formatName {
		fmt.Fprintln(con.out, oneLine(view.KEK))
		return nil
	}
	fmt.Fprintf(con.out, "%s sealed with the key-encryption key %s\n", count(int(view.Records), "record"), oneLine(view.KEK))
	fmt.Fprintln(con.err, "a key of the data folder or of a program needs nothing more; with --kek-file or WATCHWORD_KEK, take the earlier key out, on every replica, and keep a copy of it for as long as there are backups of before")
	return nil
}

func rotationText(last *adminv1.RotateKEKResponse, elapsed time.Duration) string {
	return oneLine(fmt.Sprintf("%d of %d records sealed anew after %s", last.GetDone(), last.GetTotal(), took(elapsed)))
}
