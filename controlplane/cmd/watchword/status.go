package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fatih/color"
	"github.com/spf13/cobra"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

type statusFlags struct {
	watch    bool
	interval time.Duration
}

func newStatusCommand(o *options) *cobra.Command {
	var flags statusFlags
	cmd := &cobra.Command{
		Use:   "status [SERVICE]",
		Short: "Show which data planes are in sync, and why the others are not",
		Long: `Shows each connected data plane: the last revision at which it had confirmed
everything that it was sent, whether that is all there is, since when, and if not
what it has not confirmed or why it refused.`,
		Example: `  watchword status
  watchword status orders --watch`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: o.completeStatus,
		RunE: func(cmd *cobra.Command, args []string) error {
			request := &adminv1.ListDataPlanesRequest{}
			if len(args) == 1 {
				request.Service = args[0]
			}
			return o.withClient(cmd, func(ctx context.Context, c *client) error {
				if flags.watch {
					return watchStatus(ctx, c, o.console(cmd), request, flags.interval)
				}
				return printStatus(ctx, c, o.console(cmd), request)
			})
		},
	}
	cmd.Flags().BoolVarP(&flags.watch, "watch", "w", false, "print again and again until interrupted")
	addDuration(cmd.Flags(), &flags.interval, "interval", time.Second, "with --watch: how often")
	return cmd
}

// statusReport is the JSON and YAML form of status.
type statusReport struct {
	Revision   int64       `json:"revision"`
	DataPlanes []planeView `json:"dataPlanes"`
}

func readStatus(ctx context.Context, c *client, request *adminv1.ListDataPlanesRequest) (*statusReport, error) {
	response, err := c.ListDataPlanes(ctx, request)
	if err != nil {
		return nil, err
	}
	if request.GetService() != "" && len(response.GetDataPlanes()) == 0 {
		if err := c.mustBeThere(ctx, request.GetService()); err != nil {
			return nil, err
		}
	}
	return &statusReport{response.GetRevision(), planeViews(response.GetDataPlanes())}, nil
}

// mustBeThere: a name that is misspelt must not look as if there was nothing.
func (c *client) mustBeThere(ctx context.Context, service string) error {
	response, err := c.List(ctx, &adminv1.ListRequest{Kind: "Service", Name: service})
	if err == nil && len(response.GetItems()) == 0 {
		err = &failure{code: exitFailed, err: fmt.Errorf("there is no Service %q", service), hint: "`watchword get services` lists those that there are"}
	}
	return err
}

func printStatus(ctx context.Context, c *client, con *console, request *adminv1.ListDataPlanesRequest) error {
	report, err := readStatus(ctx, c, request)
	if err != nil {
		return err
	}
	return con.printStatus(report, time.Now())
}

// watchStatus outlives the control plane: once it was there, its absence is a
// state to show.
func watchStatus(ctx context.Context, c *client, con *console, request *adminv1.ListDataPlanesRequest, interval time.Duration) error {
	if con.format != formatTable {
		return usagef("--watch prints tables only")
	}
	if interval <= 0 {
		return usagef("--interval %s: want more than 0", interval)
	}
	report, err := readStatus(ctx, c, request)
	if err != nil {
		return err
	}
	for {
		con.startAgain()
		if err := con.printStatus(report, time.Now()); err != nil {
			return err
		}
		if err != nil {
			fmt.Fprintf(con.out, "as it was; %s\n", oneLine(c.options.explain(err).Error()))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(interval):
		}
		var newer *statusReport
		if newer, err = readStatus(ctx, c, request); err == nil {
			report = newer
		}
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil
		}
	}
}

// startAgain clears a terminal, and separates what is printed elsewhere.
func (c *console) startAgain() {
	if c.outTerminal {
		fmt.Fprint(c.out, "\x1b[H\x1b[J")
		return
	}
	fmt.Fprintf(c.out, "\n%s\n", time.Now().Format(time.TimeOnly))
}

func (c *console) printStatus(r *statusReport, now time.Time) error {
	if ok, err := c.structured(r); ok {
		return err
	}
	if c.format == formatName {
		for _, p := range r.DataPlanes {
			fmt.Fprintln(c.out, oneLine(p.Node))
		}
		return nil
	}
	if len(r.DataPlanes) > 0 {
		c.table([]string{"NODE", "SERVICE", "INSTANCE", "KIND", "REVISION", "IN-SYNC", "SINCE", "REASON"}, planeRows(r.DataPlanes, now))
		fmt.Fprintln(c.out)
	}
	fmt.Fprintf(c.out, "%s, %d in sync at revision %d\n", count(len(r.DataPlanes), "data plane"), r.inSync(), r.Revision)
	return nil
}

func (r *statusReport) inSync() int {
	n := 0
	for _, p := range r.DataPlanes {
		if p.InSync && p.Reason == "" {
			n++
		}
	}
	return n
}

func planeRows(planes []planeView, now time.Time) [][]cell {
	var rows [][]cell
	for _, p := range planes {
		inSync := cell{"yes", []color.Attribute{color.FgGreen}}
		if !p.InSync {
			inSync = cell{"no", []color.Attribute{color.FgRed}}
		} else if p.Reason != "" {
			// It has what there is, which is nothing: the name may be wrong.
			inSync = cell{"empty", []color.Attribute{color.FgYellow}}
		}
		row := plain(p.Node, p.Service, shortInstance(p.Instance), p.Kind, fmt.Sprint(p.Revision))
		rows = append(rows, append(append(row, inSync), plain(ageOf(p.Since, now), p.Reason)...))
	}
	return rows
}

// shortInstance is enough of an instance's ID to tell those of a service apart.
func shortInstance(id string) string { return id[:min(len(id), 8)] }
