package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

func newClientSecretCommand(o *options) *cobra.Command {
	return newGroup("client-secret", "Manage the secrets that services get tokens with",
		newClientSecretCreateCommand(o), newClientSecretListCommand(o), newClientSecretDeleteCommand(o))
}

// clientSecret is the JSON form of a new secret, and of --client-secret-file.
type clientSecret struct {
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
}

func newClientSecretCreateCommand(o *options) *cobra.Command {
	var service string
	cmd := &cobra.Command{
		Use:   "create --service SERVICE",
		Short: "Create a client secret for the token endpoint, and print it once",
		Long: `Creates a secret with which the service authenticates at the token endpoint
(client_secret_basic or client_secret_post) and prints it. Only a hash of it is
stored, so it can't be shown again.`,
		Example: `  watchword client-secret create --service shop
  (umask 077; watchword client-secret create --service shop -o json > shop.json)`,
		Args: noArguments("; name the service with --service"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			// Refused before a secret is made that nobody would see.
			if o.output == formatName {
				return usagef("-o name would not print the secret; use table, json or yaml")
			}
			return o.withClient(cmd, func(ctx context.Context, c *client) error {
				return runClientSecretCreate(ctx, c, o.console(cmd), service)
			})
		},
	}
	o.addServiceFlag(cmd, &service, "`SERVICE` that the secret is for")
	return cmd
}

func runClientSecretCreate(ctx context.Context, c *client, con *console, service string) error {
	response, err := c.CreateClientSecret(ctx, &adminv1.CreateClientSecretRequest{Service: service})
	if err != nil {
		return err
	}
	secret := clientSecret{response.GetClientId(), response.GetClientSecret()}
	ok, err := con.structured(secret)
	if !ok {
		_, err = fmt.Fprintf(con.out, "client_id:     %s\nclient_secret: %s\n", printable(secret.ClientID), printable(secret.ClientSecret))
	}
	if err != nil {
		return fmt.Errorf("the secret was created but could not be printed; create another one: %w", err)
	}
	fmt.Fprintln(con.err, "keep the secret now: it can't be shown again")
	return nil
}

// addServiceFlag declares --service, which several commands need.
func (o *options) addServiceFlag(cmd *cobra.Command, service *string, usage string) {
	cmd.Flags().StringVar(service, "service", "", usage)
	must(cmd.MarkFlagRequired("service"))
	must(cmd.RegisterFlagCompletionFunc("service", o.completeServices))
}
