package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/watchword-mesh/watchword/controlplane/importer"
)

// importFunc is the importer of one product.
type importFunc func([]importer.File, importer.Options) (importer.Result, error)

func newImportCommand(o *options) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import",
		Short: "Turn configurations of Istio, Higress, Kong or Function Compute into resources",
		Long: fmt.Sprintf(`Prints resources that do what the configurations of another product did, to look
at and to apply. Nothing is stored, and no control plane is asked.

What could not be carried over is named on standard error, with its place and
the reason; then the exit code is %d. What the original does not check is
written out as not checked, with a warning. A file that is no such configuration
is refused (exit code %d).

The output holds the secrets of the original in clear.`, exitRefused, exitUsage),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name the product: istio, higress, kong or fc")
			}
			return fmt.Errorf("%q can't be imported; there are istio, higress, kong and fc", args[0])
		},
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	cmd.AddCommand(newImportIstioCommand(o), newImportHigressCommand(o), newImportKongCommand(o), newImportFCCommand(o))
	return cmd
}

// importCommand is what the importers have in common.
func importCommand(o *options, cmd *cobra.Command, read importFunc, settings func(*importer.Options) error) *cobra.Command {
	services := cmd.Flags().Bool("emit-services", true, "print the Services too; without, the policies name Services that you have")
	cmd.Args = func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return errors.New("name a file, or - for standard input")
		}
		return nil
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if cmd.Flags().Changed("output") && o.output != formatYAML {
			return usagef("import prints YAML; leave out --output")
		}
		settled := importer.Options{OmitServices: !*services}
		if settings != nil {
			if err := settings(&settled); err != nil {
				return err
			}
		}
		files, err := readImports(cmd.InOrStdin(), args)
		if err != nil {
			return err
		}
		return runImport(o.console(cmd), read, files, settled)
	}
	return cmd
}

func readImports(stdin io.Reader, paths []string) ([]importer.File, error) {
	var out []importer.File
	for _, path := range paths {
		f, err := readImport(stdin, path)
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	return out, nil
}

func readImport(stdin io.Reader, path string) (importer.File, error) {
	if path == "-" {
		content, err := io.ReadAll(stdin)
		if err != nil {
			return importer.File{}, fmt.Errorf("reading standard input: %w", err)
		}
		return importer.File{Name: "stdin", Content: content}, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return importer.File{}, fmt.Errorf("reading what to import: %w", err)
	}
	return importer.File{Name: path, Content: content}, nil
}

func runImport(c *console, read importFunc, files []importer.File, o importer.Options) error {
	result, err := read(files, o)
	var input *importer.InputError
	if errors.As(err, &input) {
		f := &failure{code: exitUsage, err: fmt.Errorf("nothing was imported: %s", count(len(input.Faults), "fault"))}
		for _, fault := range input.Faults {
			f.lines = append(f.lines, fault.String())
		}
		return f
	}
	if err != nil {
		return err
	}
	text, err := result.YAML()
	if err != nil {
		return err
	}
	if _, err := c.out.Write(text); err != nil {
		return fmt.Errorf("writing the resources: %w", err)
	}
	for _, n := range result.Warnings {
		fmt.Fprintln(c.err, oneLine(n.As("warning")))
	}
	if len(result.Left) == 0 {
		return nil
	}
	f := &failure{code: exitRefused, err: fmt.Errorf("not everything was carried over: %s above", count(len(result.Left), "note"))}
	for _, n := range result.Left {
		f.lines = append(f.lines, n.As("left"))
	}
	return f
}
