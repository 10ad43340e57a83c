package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

func newJoinTokenCommand(o *options) *cobra.Command {
	return newGroup("join-token", "Manage the tokens that new instances of services enrol with",
		newJoinTokenCreateCommand(o), newJoinTokenListCommand(o), newJoinTokenRevokeCommand(o))
}

func newJoinTokenCreateCommand(o *options) *cobra.Command {
	request, ttl := &adminv1.CreateJoinTokenRequest{}, time.Duration(0)
	cmd := &cobra.Command{
		Use:   "create --service SERVICE",
		Short: "Create a join token, and print it once",
		Long: `Creates a token with which new instances of the service enrol, and prints it, and
nothing else. Only a hash of it is stored, so it can't be shown again. Whoever has
it can become an instance of the service until it is used up or expires.`,
		Example: `  (umask 077; watchword join-token create --service orders > orders.jointoken)
  watchword join-token create --service orders --uses 10 --ttl 1d`,
		Args: noArguments("; name the service with --service"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			// Refused before a token is made that nobody would see.
			if o.output == formatName {
				return usagef("-o name would not print the token; use table, json or yaml")
			}
			// Zero is what the API takes for left out.
			if request.Uses < 1 || ttl <= 0 {
				return usagef("--uses and --ttl: want more than 0")
			}
			request.Ttl = durationpb.New(ttl)
			return o.withClient(cmd, func(ctx context.Context, c *client) error {
				return runJoinTokenCreate(ctx, c, o.console(cmd), request)
			})
		},
	}
	o.addServiceFlag(cmd, &request.Service, "`SERVICE` that the instances are of")
	cmd.Flags().Int32Var(&request.Uses, "uses", 1, "how many instances the token is for")
	addDuration(cmd.Flags(), &ttl, "ttl", time.Hour, "how long it is good, 1m to 7d")
	return cmd
}

// newJoinTokenView is the JSON and YAML form of a new join token.
type newJoinTokenView struct {
	Token string `json:"token"`
	joinTokenView
}

// joinTokenView is the JSON and YAML form of a join token that is there.
type joinTokenView struct {
	ID        string     `json:"id"`
	Service   string     `json:"service"`
	Uses      int32      `json:"uses"`
	Instances []string   `json:"instances"`
	Created   *time.Time `json:"created,omitempty"`
	Expires   *time.Time `json:"expires,omitempty"`
	CreatedBy string     `json:"createdBy,omitempty"`
}

func joinTokenViewOf(t *adminv1.JoinToken) joinTokenView {
	return joinTokenView{t.GetId(), t.GetService(), t.GetUses(), append([]string{}, t.GetInstances()...),
		timeOf(t.GetCreated()), timeOf(t.GetExpires()), t.GetCreatedBy()}
}

func runJoinTokenCreate(ctx context.Context, c *client, con *console, request *adminv1.CreateJoinTokenRequest) error {
	response, err := c.CreateJoinToken(ctx, request)
	if s := status.Convert(err); s.Code() == codes.InvalidArgument {
		return usagef("--%s", oneLine(s.Message())) // it begins with uses or ttl
	}
	if err != nil {
		return err
	}
	made := newJoinTokenView{response.GetToken(), joinTokenViewOf(response.GetJoinToken())}
	ok, err := con.structured(made)
	if !ok {
		_, err = fmt.Fprintln(con.out, printable(made.Token))
	}
	if err != nil {
		return fmt.Errorf("the join token was created but could not be printed; revoke it (`watchword join-token revoke %s`) and create another one: %w", oneLine(made.ID), err)
	}
	fmt.Fprintf(con.err, "keep the token now, in a file that only its user can read: it can't be shown again\n"+
		"`watchword envoy` and `watchword enrol` take the file with --join-token-file; it is good for %s of %s in the next %s\n",
		count(int(request.GetUses()), "instance"), request.GetService(), request.GetTtl().AsDuration())
	return nil
}

func newJoinTokenListCommand(o *options) *cobra.Command {
	var service string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show the join tokens, without their secrets",
		Example: `  watchword join-token list
  watchword join-token list --service orders`,
		Args: noArguments("; name the service with --service"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.withClient(cmd, func(ctx context.Context, c *client) error {
				response, err := c.ListJoinTokens(ctx, &adminv1.ListJoinTokensRequest{Service: service})
				if err != nil {
					return err
				}
				views := []joinTokenView{}
				for _, t := range response.GetJoinTokens() {
					views = append(views, joinTokenViewOf(t))
				}
				return joinTokenListing(time.Now()).print(o.console(cmd), views)
			})
		},
	}
	o.addFilterFlag(cmd, &service)
	return cmd
}

func joinTokenListing(now time.Time) *listing[joinTokenView] {
	return &listing[joinTokenView]{"join token",
		func(t joinTokenView) string { return t.ID },
		[]string{"ID", "SERVICE", "USED", "CREATED", "EXPIRES-IN", "CREATED-BY"},
		func(t joinTokenView) []cell {
			used := fmt.Sprintf("%d of %d", len(t.Instances), t.Uses)
			return plain(t.ID, t.Service, used, ageOf(t.Created, now), left(t.Expires, now), t.CreatedBy)
		}}
}

func newJoinTokenRevokeCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID...",
		Short: "End join tokens",
		Long: `Ends join tokens, so that nobody can enrol with them any more. Who has enrolled
with them stays; ` + "`watchword instance revoke`" + ` ends that.`,
		Example:           `  watchword join-token revoke 3ZQ4K7C2M5XWA`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: o.completeJoinTokens,
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.withClient(cmd, func(ctx context.Context, c *client) error {
				return o.console(cmd).doEach("join token", "revoked", args, func(id string) error {
					_, err := c.RevokeJoinToken(ctx, &adminv1.RevokeJoinTokenRequest{Id: id})
					return err
				})
			})
		},
	}
}

// addFilterFlag declares --service for lists.
func (o *options) addFilterFlag(cmd *cobra.Command, service *string) {
	cmd.Flags().StringVar(service, "service", "", "only those of `SERVICE`")
	must(cmd.RegisterFlagCompletionFunc("service", o.completeServices))
}
