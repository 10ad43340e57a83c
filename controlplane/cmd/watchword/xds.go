package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/fatih/color"
	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// shortHash is how much of a content hash a table shows.
const shortHash = 12

func newXDSCommand(o *options) *cobra.Command {
	var node string
	cmd := &cobra.Command{
		Use:   "xds --node NODE",
		Short: "Show what a data plane was sent, and what it confirmed or refused",
		Long: `Shows each resource that the data plane was sent over xDS: its type and name, the
hash of its content, whether the data plane confirmed it, and if not why it
refused. -o yaml and -o json print the resources themselves, secrets left out.`,
		Example: `  watchword xds --node orders-1
  watchword xds --node orders-1 -o yaml`,
		Args: noArguments("; name the data plane with --node"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.withClient(cmd, func(ctx context.Context, c *client) error {
				return runXDS(ctx, c, o.console(cmd), node)
			})
		},
	}
	cmd.Flags().StringVar(&node, "node", "", "`NODE`, or instance, as `watchword status` lists it")
	must(cmd.MarkFlagRequired("node"))
	must(cmd.RegisterFlagCompletionFunc("node", o.completeNodes))
	return cmd
}

// sentView is the JSON and YAML form of a resource that was sent.
type sentView struct {
	TypeURL      string `json:"typeUrl"`
	Name         string `json:"name"`
	Version      string `json:"version"`
	AckedVersion string `json:"ackedVersion,omitempty"`
	Refusal      string `json:"refusal,omitempty"`
	Body         item   `json:"body,omitempty"`
}

func sentViews(resources []*adminv1.SentResource) []sentView {
	views := []sentView{}
	for _, r := range resources {
		views = append(views, sentView{r.GetTypeUrl(), r.GetName(), r.GetVersion(), r.GetAckedVersion(), r.GetRefusal(), r.GetBody().AsMap()})
	}
	return views
}

// dataPlaneConfig takes a node, an instance, or the beginning of one: that is what
// status shows.
func (c *client) dataPlaneConfig(ctx context.Context, node string) (*adminv1.GetDataPlaneConfigResponse, error) {
	response, err := c.GetDataPlaneConfig(ctx, &adminv1.GetDataPlaneConfigRequest{Node: node})
	if status.Code(err) != codes.NotFound || len(node) < shortestInstance {
		return response, err
	}
	connected, failed := c.ListDataPlanes(ctx, &adminv1.ListDataPlanesRequest{})
	if failed != nil {
		return nil, err
	}
	var all []string
	for _, p := range connected.GetDataPlanes() {
		all = append(all, p.GetInstance())
	}
	id, ambiguous := oneInstance(all, node)
	if ambiguous != nil {
		return nil, ambiguous
	}
	if id == "" {
		return nil, err
	}
	return c.GetDataPlaneConfig(ctx, &adminv1.GetDataPlaneConfigRequest{Node: id})
}

func runXDS(ctx context.Context, c *client, con *console, node string) error {
	response, err := c.dataPlaneConfig(ctx, node)
	if err != nil {
		return err
	}
	sent := sentViews(response.GetResources())
	switch con.format {
	case formatJSON:
		return printJSON(con.out, sent)
	case formatYAML:
		return printDocuments(con, sent)
	case formatName:
		for _, s := range sent {
			fmt.Fprintln(con.out, oneLine(s.Name))
		}
		return nil
	}
	con.printSent(planeViewOf(response.GetDataPlane()), sent)
	return nil
}

func (c *console) printSent(plane planeView, sent []sentView) {
	if len(sent) > 0 {
		var rows [][]cell
		for _, s := range sent {
			rows = append(rows, append(plain(shortType(s.TypeURL), s.Name, short(s.Version)), s.acked(), cell{text: s.Refusal}))
		}
		c.table([]string{"TYPE", "NAME", "VERSION", "ACKED", "REFUSAL"}, rows)
		fmt.Fprintln(c.out)
	}
	state := fmt.Sprintf("in sync at revision %d", plane.Revision)
	if !plane.InSync {
		state = fmt.Sprintf("last in sync at revision %d: %s", plane.Revision, plane.why())
	}
	fmt.Fprintln(c.out, oneLine(fmt.Sprintf("%s: %s, %s", plane.who(), count(len(sent), "resource"), state)))
}

// acked says yes, no, or which older content is still the confirmed one.
func (s sentView) acked() cell {
	switch s.AckedVersion {
	case s.Version:
		return cell{"yes", []color.Attribute{color.FgGreen}}
	case "":
		return cell{"no", []color.Attribute{color.FgRed}}
	}
	return cell{"no, has " + short(s.AckedVersion), []color.Attribute{color.FgRed}}
}

// shortType is Listener for type.googleapis.com/envoy.config.listener.v3.Listener.
func shortType(url string) string { return url[strings.LastIndexAny(url, "./")+1:] }

func short(hash string) string {
	if len(hash) > shortHash {
		return hash[:shortHash]
	}
	return hash
}
