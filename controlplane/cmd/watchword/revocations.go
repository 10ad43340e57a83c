package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

func newRevocationsCommand(o *options) *cobra.Command {
	return newGroup("revocations", "Show what was revoked, and take it back",
		newRevocationsListCommand(o), newRevocationsDeleteCommand(o))
}

// tokenRevocation is the JSON and YAML form of a revocation.
type tokenRevocation struct {
	ID           string     `json:"id"`
	Kind         string     `json:"kind"`
	Issuer       string     `json:"issuer,omitempty"`
	Value        string     `json:"value,omitempty"`
	IssuedBefore *time.Time `json:"issuedBefore,omitempty"`
	Audiences    []string   `json:"audiences,omitempty"`
	Created      *time.Time `json:"created,omitempty"`
	Ends         *time.Time `json:"ends,omitempty"`
	Reason       string     `json:"reason,omitempty"`
	Actor        string     `json:"actor,omitempty"`
}

func tokenRevocationOf(r *adminv1.Revocation) tokenRevocation {
	return tokenRevocation{r.GetId(), r.GetKind(), r.GetIssuer(), r.GetValue(), timeOf(r.GetIssuedBefore()), r.GetAudiences(),
		timeOf(r.GetCreated()), timeOf(r.GetEnds()), r.GetReason(), r.GetActor()}
}

func newRevocationsListCommand(o *options) *cobra.Command {
	var service string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show what was revoked, the newest first",
		Example: `  watchword revocations list
  watchword revocations list --service orders -o json`,
		Args: noArguments("; name the service with --service"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.withClient(cmd, func(ctx context.Context, c *client) error {
				response, err := c.ListRevocations(ctx, &adminv1.ListRevocationsRequest{Service: service})
				if err != nil {
					return err
				}
				views := []tokenRevocation{}
				for _, r := range response.GetRevocations() {
					views = append(views, tokenRevocationOf(r))
				}
				return revocationListing(time.Now()).print(o.console(cmd), views)
			})
		},
	}
	o.addFilterFlag(cmd, &service)
	return cmd
}

func revocationListing(now time.Time) *listing[tokenRevocation] {
	return &listing[tokenRevocation]{"revocation",
		func(r tokenRevocation) string { return r.ID },
		[]string{"ID", "KIND", "ISSUER", "VALUE", "FOR", "CREATED", "ENDS-IN", "BY", "REASON"},
		func(r tokenRevocation) []cell {
			value, ends := r.Value, "never"
			if r.IssuedBefore != nil {
				value = strings.TrimSpace(value + " " + r.IssuedBefore.UTC().Format(time.RFC3339))
			}
			if r.Ends != nil {
				ends = left(r.Ends, now)
			}
			audiences := "all"
			if len(r.Audiences) > 0 {
				audiences = strings.Join(r.Audiences, ",")
			}
			return plain(r.ID, r.Kind, r.Issuer, value, audiences, ageOf(r.Created, now), ends, r.Actor, r.Reason)
		}}
}

func newRevocationsDeleteCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "delete ID...",
		Short: "Take revocations back",
		Long: `Takes revocations back: what they refused is accepted again, as long as it is
valid. What has expired goes by itself.`,
		Example: `  watchword revocations delete mzxw6ytboi4wgzlomfwgyzjaon`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.withClient(cmd, func(ctx context.Context, c *client) error {
				return o.console(cmd).doEach("revocation", "taken back", args, func(id string) error {
					_, err := c.DeleteRevocation(ctx, &adminv1.DeleteRevocationRequest{Id: id})
					return err
				})
			})
		},
	}
}
