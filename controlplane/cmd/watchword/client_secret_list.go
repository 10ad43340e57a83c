package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// clientSecretView is the JSON and YAML form of a client secret that is there.
type clientSecretView struct {
	ID      string     `json:"id"`
	Service string     `json:"service"`
	Created *time.Time `json:"created,omitempty"`
}

func newClientSecretListCommand(o *options) *cobra.Command {
	var service string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show which services have client secrets, without the secrets",
		Example: `  watchword client-secret list
  watchword client-secret list --service shop`,
		Args: noArguments("; name the service with --service"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.withClient(cmd, func(ctx context.Context, c *client) error {
				response, err := c.ListClientSecrets(ctx, &adminv1.ListClientSecretsRequest{Service: service})
				if err != nil {
					return err
				}
				views := []clientSecretView{}
				for _, s := range response.GetClientSecrets() {
					views = append(views, clientSecretView{s.GetId(), s.GetService(), timeOf(s.GetCreated())})
				}
				return clientSecretListing(time.Now()).print(o.console(cmd), views)
			})
		},
	}
	o.addFilterFlag(cmd, &service)
	return cmd
}

func clientSecretListing(now time.Time) *listing[clientSecretView] {
	return &listing[clientSecretView]{"client secret",
		func(s clientSecretView) string { return s.Service + "/" + s.ID },
		[]string{"SERVICE", "ID", "CREATED"},
		func(s clientSecretView) []cell { return plain(s.Service, s.ID, ageOf(s.Created, now)) }}
}

func newClientSecretDeleteCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "delete {SERVICE ID... | SERVICE/ID...}",
		Short: "Delete client secrets",
		Long: `Deletes client secrets: the token endpoint takes them no more. To replace one,
create another first, and delete the old one when the service has the new one.`,
		Example:           `  watchword client-secret delete shop 7f3a9c21`,
		ValidArgsFunction: o.completeClientSecrets,
		RunE: func(cmd *cobra.Command, args []string) error {
			service, ids, err := pairArguments(args, "client secrets")
			if err != nil {
				return err
			}
			if len(ids) == 0 {
				return usagef("name the client secrets of %s to delete; `watchword client-secret list` has their IDs", service)
			}
			return o.withClient(cmd, func(ctx context.Context, c *client) error {
				for i, id := range ids {
					ids[i] = service + "/" + id
				}
				return o.console(cmd).doEach("client secret", "deleted", ids, func(name string) error {
					_, id, _ := strings.Cut(name, "/")
					_, err := c.DeleteClientSecret(ctx, &adminv1.DeleteClientSecretRequest{Service: service, Id: id})
					return err
				})
			})
		},
	}
}
