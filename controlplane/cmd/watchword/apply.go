package main

import (
	"context"

	"github.com/spf13/cobra"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

type applyFlags struct {
	files
	pruning
	waiting
	dryRun bool
}

func newApplyCommand(o *options) *cobra.Command {
	var flags applyFlags
	cmd := &cobra.Command{
		Use:   "apply -f FILE|FOLDER|-",
		Short: "Create and change resources, all or nothing",
		Long: `Creates and changes the resources in the documents, all or nothing: with one
fault in any of them nothing is stored, and all faults are listed with file and
line. A document with metadata.revision is refused if the stored resource has
another revision; one without is written over whatever is stored.

Keys and secrets of credentials that the documents leave out are made, and
printed once: no command shows a secret again.

With --wait it returns when every data plane that the change touches has
confirmed it, and otherwise names those that have not and why.`,
		Example: `  watchword apply -f mesh/ --dry-run
  watchword apply -f mesh/ --wait
  watchword apply -f mesh/ --prune --selector team=shop
  watchword get service orders -o yaml | watchword apply -f -`,
		Args: noArguments("; name documents with -f"),
		RunE: func(cmd *cobra.Command, _ []string) error { return runApply(cmd, o, &flags) },
	}
	flags.files.addFlags(cmd)
	flags.pruning.addFlags(cmd)
	flags.waiting.addFlags(cmd)
	cmd.Flags().BoolVar(&flags.dryRun, "dry-run", false, "check, and show what would change; store nothing")
	must(cmd.MarkFlagRequired("file"))
	return cmd
}

// pruning is --prune with what limits it.
type pruning struct {
	prune    bool
	selector map[string]string
	all      bool
}

func (p *pruning) addFlags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&p.prune, "prune", false, "delete what is stored but not among the documents")
	cmd.Flags().StringToStringVarP(&p.selector, "selector", "l", nil, "with --prune: only what has all these labels, as `KEY=VALUE`,...")
	cmd.Flags().BoolVar(&p.all, "all", false, "with --prune: whatever its labels")
	// Else the help says (default []).
	cmd.Flags().Lookup("selector").DefValue = ""
}

func (p *pruning) check() error {
	switch {
	case (len(p.selector) > 0 || p.all) && !p.prune:
		return usagef("--selector and --all say what --prune may delete; without --prune they have no meaning")
	case p.prune && (len(p.selector) > 0) == p.all:
		return usagef("--prune needs either --selector KEY=VALUE, to delete only what has that label, or --all, to delete everything that is not among the documents")
	}
	for k, v := range p.selector {
		if v == "" {
			return usagef("--selector %s=: the value is empty (a variable that is not set?)", k)
		}
	}
	return nil
}

func runApply(cmd *cobra.Command, o *options, flags *applyFlags) error {
	if flags.dryRun && flags.wait {
		return usagef("--dry-run stores nothing that --wait could wait for")
	}
	return o.withDocuments(cmd, &flags.files, &flags.pruning, func(ctx context.Context, c *client, request *adminv1.ApplyRequest) error {
		con := o.console(cmd)
		request.DryRun = flags.dryRun
		report, err := c.apply(ctx, request)
		if err != nil {
			return err
		}
		con.printChanges(report)
		con.printGenerated(report)
		con.notes(report)
		return c.finish(ctx, con, report, &flags.waiting)
	})
}

// withDocuments reads what is to be applied before it asks for a connection,
// so that a missing file is told even if the control plane is not there.
func (o *options) withDocuments(cmd *cobra.Command, f *files, p *pruning, use func(context.Context, *client, *adminv1.ApplyRequest) error) error {
	if err := p.check(); err != nil {
		return err
	}
	documents, err := f.read(cmd.InOrStdin())
	if err != nil {
		return err
	}
	request := &adminv1.ApplyRequest{Documents: documents, Prune: p.prune, PruneSelector: p.selector}
	return o.withClient(cmd, func(ctx context.Context, c *client) error { return use(ctx, c, request) })
}

func (c *client) apply(ctx context.Context, request *adminv1.ApplyRequest) (*changeReport, error) {
	response, err := c.Apply(ctx, request)
	if err != nil {
		return nil, err
	}
	return &changeReport{
		Revision:     response.GetRevision(),
		DryRun:       request.GetDryRun(),
		Transactions: response.GetTransactions(),
		Changes:      changeViews(response.GetChanges()),
		Warnings:     response.GetWarnings(),
		Generated:    generatedViews(response.GetGenerated()),
		services:     response.GetServices(),
	}, nil
}
