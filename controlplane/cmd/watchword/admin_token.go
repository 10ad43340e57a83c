package main

import (
	"context"
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

func newAdminTokenCommand(o *options) *cobra.Command {
	return newGroup("admin-token", "End the admin token, or make a new one",
		newAdminTokenCreateCommand(o), newAdminTokenRevokeCommand(o))
}

// adminTokenView is the JSON and YAML form of where the admin token is.
type adminTokenView struct {
	Path string `json:"path"`
}

func newAdminTokenCreateCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "create",
		Short: "Make a new admin token, in a file beside the control plane",
		Long: `Makes a new admin token in the data folder of the replica that is asked, and prints
the path there; an earlier one ends. Whoever has the token may do everything, so
it is for the first start and for emergencies: the admin socket needs none, and
RoleBindings give people and programs roles of their own.`,
		Example: `  watchword admin-token create`,
		Args:    noArguments(""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			con := o.console(cmd)
			return o.withClient(cmd, func(ctx context.Context, c *client) error {
				response, err := c.CreateAdminToken(ctx, &adminv1.CreateAdminTokenRequest{})
				if err != nil {
					return err
				}
				if ok, err := con.structured(adminTokenView{response.GetPath()}); ok {
					return err
				}
				fmt.Fprintln(con.out, oneLine(response.GetPath()))
				fmt.Fprintln(con.err, "the new admin token is in that file, on the machine of the replica that was asked; an earlier one has ended")
				return nil
			})
		},
	}
}

func newAdminTokenRevokeCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke",
		Short: "End the admin token",
		Long: `Ends the admin token that the first start, or admin-token create, has made. The
admin socket stays open to root and to the user that runs the control plane.`,
		Example: `  watchword admin-token revoke`,
		Args:    noArguments(""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			con := o.console(cmd)
			return o.withClient(cmd, func(ctx context.Context, c *client) error {
				had := c.hasAdminToken(ctx)
				if _, err := c.RevokeAdminToken(ctx, &adminv1.RevokeAdminTokenRequest{}); err != nil {
					return err
				}
				if ok, err := con.structured(struct {
					Revoked bool `json:"revoked"`
				}{true}); ok {
					return err
				}
				if !had {
					fmt.Fprintln(con.out, "there was no admin token any more")
					return nil
				}
				fmt.Fprintln(con.out, "admin token revoked")
				return nil
			})
		},
	}
}

// hasAdminToken asks the diagnosis, which alone knows. In doubt there is one.
func (c *client) hasAdminToken(ctx context.Context) bool {
	response, err := c.Diagnose(ctx, &adminv1.DiagnoseRequest{})
	if err != nil {
		return true
	}
	return !slices.ContainsFunc(response.GetFindings(), func(f *adminv1.Finding) bool {
		return f.GetSubject() == "admin token" && f.GetSeverity() == adminv1.Finding_OK
	})
}
