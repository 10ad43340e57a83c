package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// completeIDs completes with what find lists and is not among args yet.
func (o *options) completeIDs(cmd *cobra.Command, args []string, prefix string, find func(context.Context, *client) ([]string, error)) (completion, cobra.ShellCompDirective) {
	var ids completion
	o.ask(cmd, func(ctx context.Context, c *client) error {
		all, err := find(ctx, c)
		for _, id := range all {
			if strings.HasPrefix(id, prefix) && !slices.Contains(args, id) {
				ids = append(ids, oneLine(id))
			}
		}
		return err
	})
	return ids, cobra.ShellCompDirectiveNoFileComp
}

func (o *options) completeJoinTokens(cmd *cobra.Command, args []string, prefix string) (completion, cobra.ShellCompDirective) {
	return o.completeIDs(cmd, args, prefix, func(ctx context.Context, c *client) (ids []string, err error) {
		response, err := c.ListJoinTokens(ctx, &adminv1.ListJoinTokensRequest{})
		for _, t := range response.GetJoinTokens() {
			ids = append(ids, t.GetId())
		}
		return ids, err
	})
}

// completeInstances completes SERVICE INSTANCE...
func (o *options) completeInstances(cmd *cobra.Command, args []string, prefix string) (completion, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return o.completeServices(cmd, args, prefix)
	}
	return o.completeIDs(cmd, args, prefix, func(ctx context.Context, c *client) (ids []string, err error) {
		response, err := c.ListInstances(ctx, &adminv1.ListInstancesRequest{Service: args[0]})
		for _, i := range response.GetInstances() {
			ids = append(ids, i.GetId())
		}
		return ids, err
	})
}

// completeClientSecrets completes SERVICE ID...
func (o *options) completeClientSecrets(cmd *cobra.Command, args []string, prefix string) (completion, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return o.completeServices(cmd, args, prefix)
	}
	return o.completeIDs(cmd, args, prefix, func(ctx context.Context, c *client) (ids []string, err error) {
		response, err := c.ListClientSecrets(ctx, &adminv1.ListClientSecretsRequest{Service: args[0]})
		for _, s := range response.GetClientSecrets() {
			ids = append(ids, s.GetId())
		}
		return ids, err
	})
}
