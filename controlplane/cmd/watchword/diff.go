package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

func newDiffCommand(o *options) *cobra.Command {
	var (
		documents files
		prune     pruning
		exitCode  bool
	)
	cmd := &cobra.Command{
		Use:   "diff -f FILE|FOLDER|-",
		Short: "Show what apply would change",
		Long: `Checks the documents as apply does and prints the difference between what is
stored and what would be. Nothing is stored.`,
		Example: `  watchword diff -f mesh/
  watchword diff -f mesh/ --prune --exit-code`,
		Args: noArguments("; name documents with -f"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.withDocuments(cmd, &documents, &prune, func(ctx context.Context, c *client, request *adminv1.ApplyRequest) error {
				return runDiff(ctx, c, o.console(cmd), request, exitCode)
			})
		},
	}
	documents.addFlags(cmd)
	prune.addFlags(cmd)
	cmd.Flags().BoolVar(&exitCode, "exit-code", false, fmt.Sprintf("exit with %d if there are differences", exitDifferences))
	must(cmd.MarkFlagRequired("file"))
	return cmd
}

func runDiff(ctx context.Context, c *client, con *console, request *adminv1.ApplyRequest, exitCode bool) error {
	request.DryRun = true
	report, err := c.apply(ctx, request)
	if err != nil {
		return err
	}
	con.notes(report)
	if err := con.printDifferences(report); err != nil {
		return err
	}
	if exitCode && report.different() {
		return &failure{code: exitDifferences}
	}
	return nil
}

func (c *console) printDifferences(r *changeReport) error {
	if ok, err := c.structured(r); ok {
		return err
	}
	for _, change := range r.Changes {
		if change.Action == "unchanged" {
			continue
		}
		if c.format == formatName {
			fmt.Fprintln(c.out, oneLine(change.resourceName().String()))
			continue
		}
		c.printDiff(change.Diff)
	}
	if !r.different() {
		fmt.Fprintf(c.err, "no differences to revision %d\n", r.Revision)
	}
	return nil
}
