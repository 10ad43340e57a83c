package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// completionTimeout is how long a shell waits for names: whoever presses Tab
// without a control plane must hardly notice.
const completionTimeout = 500 * time.Millisecond

type completion = []cobra.Completion

// ask calls the control plane for completions. It says nothing on failure:
// there is no place to say it.
func (o *options) ask(cmd *cobra.Command, f func(context.Context, *client) error) {
	// Completion does not run the hook that reads the environment.
	if readEnvironment(cmd) != nil {
		return
	}
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	cmd.SetContext(ctx)
	_ = o.withClient(cmd, f)
}

// names are the names of a kind that begin with prefix and are not among
// those already there.
func (o *options) names(cmd *cobra.Command, kind string, there []string, prefix string) completion {
	var names completion
	o.ask(cmd, func(ctx context.Context, c *client) error {
		response, err := c.List(ctx, &adminv1.ListRequest{Kind: kind})
		if err != nil {
			return err
		}
		for _, i := range itemsOf(response.GetItems()) {
			if name := i.name(); strings.HasPrefix(name, prefix) && !slices.Contains(there, name) {
				names = append(names, name)
			}
		}
		return nil
	})
	slices.Sort(names)
	return names
}

func (o *options) completeServices(cmd *cobra.Command, _ []string, prefix string) (completion, cobra.ShellCompDirective) {
	return o.names(cmd, "Service", nil, prefix), cobra.ShellCompDirectiveNoFileComp
}

func (o *options) completeStatus(cmd *cobra.Command, args []string, prefix string) (completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return o.completeServices(cmd, args, prefix)
}

// completeNames completes KIND NAME...
func (o *options) completeNames(cmd *cobra.Command, args []string, prefix string) (completion, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return completeKinds(prefix), cobra.ShellCompDirectiveNoFileComp
	}
	k, err := parseKind(args[0])
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return o.names(cmd, k.name, args[1:], prefix), cobra.ShellCompDirectiveNoFileComp
}

// completeGet completes KIND NAME, and no second name.
func (o *options) completeGet(cmd *cobra.Command, args []string, prefix string) (completion, cobra.ShellCompDirective) {
	if len(args) > 1 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return o.completeNames(cmd, args, prefix)
}

func completeKinds(prefix string) completion {
	var names completion
	for _, k := range kinds {
		for _, name := range []string{k.plural, k.short} {
			if strings.HasPrefix(name, strings.ToLower(prefix)) {
				names = append(names, name)
			}
		}
	}
	return names
}

func (o *options) completeNodes(cmd *cobra.Command, _ []string, prefix string) (completion, cobra.ShellCompDirective) {
	var nodes completion
	o.ask(cmd, func(ctx context.Context, c *client) error {
		response, err := c.ListDataPlanes(ctx, &adminv1.ListDataPlanesRequest{})
		if err != nil {
			return err
		}
		for _, p := range response.GetDataPlanes() {
			if strings.HasPrefix(p.GetNode(), prefix) {
				nodes = append(nodes, oneLine(p.GetNode()))
			}
		}
		return nil
	})
	return nodes, cobra.ShellCompDirectiveNoFileComp
}
