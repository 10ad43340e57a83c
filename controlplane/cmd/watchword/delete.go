package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

type deleteFlags struct {
	files
	waiting
}

func newDeleteCommand(o *options) *cobra.Command {
	var flags deleteFlags
	cmd := &cobra.Command{
		Use:   "delete {KIND NAME... | KIND/NAME... | -f FILE|FOLDER|-}",
		Short: "Delete resources, all or nothing",
		Long: `Deletes the named resources, or those in the documents, all or nothing. A
document with metadata.revision is deleted only at that revision.`,
		Example: `  watchword delete service orders payments
  watchword delete authz/orders-readers --wait
  watchword delete -f mesh/old.yaml`,
		ValidArgsFunction: o.completeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			references, err := flags.references(cmd, args)
			if err != nil {
				return err
			}
			return o.withClient(cmd, func(ctx context.Context, c *client) error {
				return runDelete(ctx, c, o.console(cmd), references, &flags.waiting)
			})
		},
	}
	flags.files.addFlags(cmd)
	flags.waiting.addFlags(cmd)
	return cmd
}

func runDelete(ctx context.Context, c *client, con *console, references []*adminv1.Reference, w *waiting) error {
	response, err := c.Delete(ctx, &adminv1.DeleteRequest{References: references})
	if err != nil {
		return err
	}
	report := &changeReport{Revision: response.GetRevision(), Changes: changeViews(response.GetChanges()), services: response.GetServices()}
	con.printChanges(report)
	return c.finish(ctx, con, report, w)
}

func (f *deleteFlags) references(cmd *cobra.Command, args []string) ([]*adminv1.Reference, error) {
	switch {
	case len(args) > 0 && len(f.paths) > 0:
		return nil, usagef("name resources or documents (-f), not both")
	case len(f.paths) > 0:
		return f.referencesOfDocuments(cmd.InOrStdin())
	case len(args) == 0:
		return nil, usagef("name what to delete: KIND NAME, KIND/NAME or -f FILE")
	}
	names, err := parseNames(args)
	if err != nil {
		return nil, err
	}
	// A whole kind is never deleted by leaving out a word.
	if len(names) == 0 {
		return nil, usagef("name the %s to delete", args[0])
	}
	var references []*adminv1.Reference
	for _, n := range names {
		references = append(references, &adminv1.Reference{Kind: n.kind, Name: n.name})
	}
	return references, nil
}

func (f *deleteFlags) referencesOfDocuments(stdin io.Reader) ([]*adminv1.Reference, error) {
	documents, err := f.read(stdin)
	if err != nil {
		return nil, err
	}
	var references []*adminv1.Reference
	var faults []*adminv1.Fault
	for _, d := range documents {
		found, bad := referencesIn(d)
		references, faults = append(references, found...), append(faults, bad...)
	}
	if len(faults) > 0 {
		return nil, faultList(faults)
	}
	if len(references) == 0 {
		return nil, &failure{code: exitRefused, err: errors.New("the documents name no resource")}
	}
	return references, nil
}

// referencesIn reads only what names a resource: a document may be deleted
// though the rest of it would not be accepted any more.
func referencesIn(d *adminv1.Document) (references []*adminv1.Reference, faults []*adminv1.Fault) {
	decoder := yaml.NewDecoder(bytes.NewReader([]byte(d.GetContent())))
	for {
		var node yaml.Node
		err := decoder.Decode(&node)
		if errors.Is(err, io.EOF) {
			return references, faults
		}
		if err != nil {
			return references, append(faults, syntaxFault(d.GetSource(), err))
		}
		if len(node.Content) == 0 {
			continue
		}
		reference, err := referenceOf(node.Content[0])
		switch {
		case err != nil:
			faults = append(faults, &adminv1.Fault{Source: d.GetSource(), Line: int32(node.Content[0].Line), Message: err.Error()})
		case reference != nil:
			references = append(references, reference)
		}
	}
}

// syntaxFault takes the line out of the YAML library's message.
func syntaxFault(source string, err error) *adminv1.Fault {
	fault := &adminv1.Fault{Source: source, Message: "not YAML: " + strings.TrimPrefix(err.Error(), "yaml: ")}
	if n, _ := fmt.Sscanf(err.Error(), "yaml: line %d:", &fault.Line); n == 1 {
		_, fault.Message, _ = strings.Cut(err.Error(), fmt.Sprintf("line %d: ", fault.Line))
		fault.Message = "not YAML: " + fault.Message
	}
	return fault
}

func referenceOf(node *yaml.Node) (*adminv1.Reference, error) {
	var head struct {
		Kind     string `yaml:"kind"`
		Metadata struct {
			Name     string `yaml:"name"`
			Revision int64  `yaml:"revision"`
		} `yaml:"metadata"`
	}
	if node.Tag == "!!null" {
		return nil, nil
	}
	// The library's error speaks of Go types.
	if node.Decode(&head) != nil {
		return nil, errors.New("not a resource: want kind, metadata.name and spec")
	}
	k, err := parseKind(head.Kind)
	if err != nil {
		return nil, err
	}
	if head.Metadata.Name == "" {
		return nil, errors.New("metadata.name: missing")
	}
	return &adminv1.Reference{Kind: k.name, Name: head.Metadata.Name, Revision: head.Metadata.Revision}, nil
}
