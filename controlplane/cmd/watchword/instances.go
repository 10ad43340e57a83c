package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

func newInstanceCommand(o *options) *cobra.Command {
	return newGroup("instance", "Show the enrolled instances of services, and end enrolments",
		newInstanceListCommand(o), newInstanceRevokeCommand(o))
}

// instanceView is the JSON and YAML form of an instance.
type instanceView struct {
	Service    string     `json:"service"`
	ID         string     `json:"id"`
	Node       string     `json:"node,omitempty"`
	AttestedBy string     `json:"attestedBy"`
	Enrolled   *time.Time `json:"enrolled,omitempty"`
	Renewed    *time.Time `json:"renewed,omitempty"`
	Expires    *time.Time `json:"expires,omitempty"`
	Streams    int32      `json:"streams"`
}

func instanceViewOf(i *adminv1.Instance) instanceView {
	return instanceView{i.GetService(), i.GetId(), i.GetNode(), i.GetAttestedBy(),
		timeOf(i.GetEnrolled()), timeOf(i.GetRenewed()), timeOf(i.GetExpires()), i.GetStreams()}
}

// instanceViews has the services in order, and of each who enrolled first in front.
func instanceViews(instances []*adminv1.Instance) []instanceView {
	views := []instanceView{}
	for _, i := range instances {
		views = append(views, instanceViewOf(i))
	}
	slices.SortFunc(views, func(a, b instanceView) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), timeOrZero(a.Enrolled).Compare(timeOrZero(b.Enrolled)), cmp.Compare(a.ID, b.ID))
	})
	return views
}

func newInstanceListCommand(o *options) *cobra.Command {
	var service string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show the enrolled instances",
		Long: `Shows the enrolled instances: what each proved itself with, when it last got a
certificate (to the day), when its enrolment ends unless it renews, and how many
streams it has open at the replica that was asked.`,
		Example: `  watchword instance list
  watchword instance list --service orders -o json`,
		Args: noArguments("; name the service with --service"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.withClient(cmd, func(ctx context.Context, c *client) error {
				response, err := c.ListInstances(ctx, &adminv1.ListInstancesRequest{Service: service})
				if err != nil {
					return err
				}
				return instanceListing(time.Now()).print(o.console(cmd), instanceViews(response.GetInstances()))
			})
		},
	}
	o.addFilterFlag(cmd, &service)
	return cmd
}

func instanceListing(now time.Time) *listing[instanceView] {
	return &listing[instanceView]{"instance",
		func(i instanceView) string { return i.Service + "/" + i.ID },
		[]string{"SERVICE", "INSTANCE", "NODE", "ATTESTED-BY", "ENROLLED", "RENEWED", "EXPIRES-IN", "STREAMS"},
		func(i instanceView) []cell {
			return plain(i.Service, i.ID, i.Node, i.AttestedBy, ageOf(i.Enrolled, now), ageOf(i.Renewed, now), left(i.Expires, now), fmt.Sprint(i.Streams))
		}}
}

func newInstanceRevokeCommand(o *options) *cobra.Command {
	var all, yes bool
	cmd := &cobra.Command{
		Use:   "revoke {SERVICE INSTANCE... | SERVICE/INSTANCE... | SERVICE --all}",
		Short: "End the enrolment of instances",
		Long: `Ends enrolments: the streams of the instances are cut, and they get neither
configuration nor tokens any more. With --all it is every instance of the service,
with its join tokens, and the Kubernetes tokens that were made until now: for a
service whose secrets got out. Its client secrets stay; see client-secret delete.

The first characters of an instance are enough, 4 or more, if there is one alone
of the service that begins so.`,
		Example: `  watchword instance revoke orders kq3v6c7dwyzaevb5mz2ggqzlxi
  watchword instance revoke orders kq3v6c7d
  watchword instance revoke orders --all --yes`,
		ValidArgsFunction: o.completeInstances,
		RunE: func(cmd *cobra.Command, args []string) error {
			request, err := revocation(args, all)
			if err != nil {
				return err
			}
			if all {
				if err := confirm(cmd, yes, fmt.Sprintf("this ends the enrolment of all instances of %s, and its join tokens", request.GetService())); err != nil {
					return err
				}
			}
			return o.withClient(cmd, func(ctx context.Context, c *client) error {
				return runInstanceRevoke(ctx, c, o.console(cmd), request)
			})
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "every instance of the service, and its join tokens")
	// The variable of apply --all must not be heard here.
	must(cmd.Flags().SetAnnotation("all", ownVariable, []string{""}))
	cmd.Flags().BoolVar(&yes, "yes", false, "with --all: do not ask")
	return cmd
}

// revocation reads what to revoke. A whole service is never revoked by leaving
// out a word.
func revocation(args []string, all bool) (*adminv1.RevokeInstancesRequest, error) {
	service, instances, err := pairArguments(args, "instances")
	if err != nil {
		return nil, err
	}
	if all == (len(instances) > 0) {
		return nil, usagef("name the instances of %s to revoke, or say --all", service)
	}
	return &adminv1.RevokeInstancesRequest{Service: service, Instances: instances}, nil
}

// revocationView is the JSON and YAML form of what was revoked.
type revocationView struct {
	Revision   int64    `json:"revision"`
	Service    string   `json:"service"`
	Instances  []string `json:"instances"`
	JoinTokens []string `json:"joinTokens,omitempty"`
}

func runInstanceRevoke(ctx context.Context, c *client, con *console, request *adminv1.RevokeInstancesRequest) error {
	var err error
	if request.Instances, err = c.wholeInstances(ctx, request.GetService(), request.GetInstances()); err != nil {
		return err
	}
	response, err := c.RevokeInstances(ctx, request)
	if err != nil {
		return err
	}
	view := revocationView{response.GetRevision(), request.GetService(), append([]string{}, response.GetInstances()...), response.GetJoinTokens()}
	if ok, err := con.structured(view); ok {
		return err
	}
	for _, id := range view.Instances {
		con.did("instance", view.Service+"/"+id, "revoked")
	}
	if con.format == formatName {
		return nil
	}
	for _, id := range view.JoinTokens {
		con.did("join token", id, "revoked")
	}
	fmt.Fprintf(con.out, "%s revoked at revision %d\n", count(len(view.Instances), "instance"), view.Revision)
	return nil
}
