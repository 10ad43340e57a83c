package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

func newWhoamiCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "whoami",
		Short: "Show who you are to the control plane, and your roles",
		Long: `Shows who the control plane takes you for, by the credential that this command
was given, or as the user at the other end of the admin socket, and which roles
RoleBindings give you. docs/roles.md says what each role may do.`,
		Example: `  watchword whoami
  watchword whoami --server mesh.example:7400 --client-cert-file me.pem --client-key-file me.key`,
		Args: noArguments(""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.withClient(cmd, func(ctx context.Context, c *client) error {
				response, err := c.GetSelf(ctx, &adminv1.GetSelfRequest{})
				if err != nil {
					return err
				}
				return o.console(cmd).printSelf(selfViewOf(response))
			})
		},
	}
}

// selfView is the JSON and YAML form of whoami.
type selfView struct {
	Actor string     `json:"actor"`
	Roles []roleView `json:"roles"`
}

type roleView struct {
	Role     string   `json:"role"`
	Services []string `json:"services,omitempty"`
}

func selfViewOf(r *adminv1.GetSelfResponse) *selfView {
	v := &selfView{Actor: r.GetActor(), Roles: []roleView{}}
	for _, role := range r.GetRoles() {
		v.Roles = append(v.Roles, roleView{role.GetRole(), role.GetServices()})
	}
	return v
}

func (c *console) printSelf(v *selfView) error {
	if ok, err := c.structured(v); ok {
		return err
	}
	fmt.Fprintln(c.out, oneLine(v.Actor))
	if c.format == formatName {
		return nil
	}
	if len(v.Roles) == 0 {
		fmt.Fprintln(c.out, "no roles: a RoleBinding gives them; see docs/roles.md")
		return nil
	}
	fmt.Fprintln(c.out)
	var rows [][]cell
	for _, r := range v.Roles {
		services := strings.Join(r.Services, ",")
		if services == "" {
			services = "all"
		}
		rows = append(rows, plain(r.Role, services))
	}
	c.table([]string{"ROLE", "SERVICES"}, rows)
	return nil
}
