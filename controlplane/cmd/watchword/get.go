package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

func newGetCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "get [KIND [NAME] | KIND/NAME]",
		Short: "Show resources as they are stored, secrets left out",
		Long: `Shows all resources, those of a kind, or one. Kinds:
  ` + strings.ReplaceAll(kindNames(), "), ", ")\n  ") + `

-o yaml prints them as users write them, with the revision that they were stored
at: edit and apply that, and a change made in between is not lost.`,
		Example: `  watchword get
  watchword get svc
  watchword get service orders -o yaml`,
		Args:              cobra.MaximumNArgs(2),
		ValidArgsFunction: o.completeGet,
		RunE: func(cmd *cobra.Command, args []string) error {
			request, err := listRequest(args)
			if err != nil {
				return err
			}
			return o.withClient(cmd, func(ctx context.Context, c *client) error {
				return runGet(ctx, c, o.console(cmd), request)
			})
		},
	}
}

func listRequest(args []string) (*adminv1.ListRequest, error) {
	request := &adminv1.ListRequest{}
	if len(args) == 0 {
		return request, nil
	}
	if kindText, name, ok := strings.Cut(args[0], "/"); ok {
		args = append([]string{kindText, name}, args[1:]...)
	}
	if len(args) > 2 || len(args) == 2 && args[1] == "" {
		return nil, usagef("want KIND NAME or KIND/NAME")
	}
	k, err := parseKind(args[0])
	if err != nil {
		return nil, err
	}
	request.Kind = k.name
	if len(args) == 2 {
		request.Name = args[1]
	}
	return request, nil
}

func runGet(ctx context.Context, c *client, con *console, request *adminv1.ListRequest) error {
	response, err := c.List(ctx, request)
	if err != nil {
		return err
	}
	items := itemsOf(response.GetItems())
	if request.GetName() != "" {
		if len(items) == 0 {
			return &failure{code: exitFailed, err: fmt.Errorf("%s is not there", resourceName{request.GetKind(), request.GetName()})}
		}
		return con.printItem(items[0])
	}
	if len(items) == 0 {
		fmt.Fprintf(con.err, "no resources at revision %d\n", response.GetRevision())
	}
	return con.printItems(items)
}

func (c *console) printItem(i item) error {
	if ok, err := c.structured(i); ok {
		return err
	}
	if err := c.printItems([]item{i}); err != nil {
		return err
	}
	if c.format == formatTable {
		c.printKeySet(i, time.Now())
	}
	return nil
}

// printItems prints YAML as one document each, which is what apply reads, and
// JSON as a list, which is what programs do.
func (c *console) printItems(items []item) error {
	switch c.format {
	case formatJSON:
		return printJSON(c.out, items)
	case formatYAML:
		return printDocuments(c, items)
	case formatName:
		for _, i := range items {
			fmt.Fprintln(c.out, oneLine(i.resourceName().String()))
		}
		return nil
	}
	c.printKinds(items)
	return nil
}

func printDocuments[T any](c *console, documents []T) error {
	for n, document := range documents {
		if n > 0 {
			fmt.Fprintln(c.out, "---")
		}
		if err := printYAML(c.out, document); err != nil {
			return err
		}
	}
	return nil
}

// printKinds prints a table for each kind that there is.
func (c *console) printKinds(items []item) {
	printed, several := false, false
	for _, i := range items {
		several = several || i.kind() != items[0].kind()
	}
	for _, k := range kinds {
		var rows [][]cell
		for _, i := range items {
			if i.kind() == k.name {
				rows = append(rows, k.row(i))
			}
		}
		if len(rows) == 0 {
			continue
		}
		if printed {
			fmt.Fprintln(c.out)
		}
		if several {
			fmt.Fprintf(c.out, "%s:\n", k.plural)
		}
		c.table(k.header, rows)
		printed = true
	}
}
