package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/fatih/color"
	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"
)

// format is the value of --output.
type format string

const (
	formatTable format = "table"
	formatJSON  format = "json"
	formatYAML  format = "yaml"
	formatName  format = "name"
)

func formatNames() []string {
	return []string{string(formatTable), string(formatJSON), string(formatYAML), string(formatName)}
}

func (f *format) String() string { return string(*f) }
func (f *format) Type() string   { return "format" }
func (f *format) Set(s string) error {
	if !slices.Contains(formatNames(), s) {
		return fmt.Errorf("use one of %s", strings.Join(formatNames(), ", "))
	}
	*f = format(s)
	return nil
}

// console is where a command prints: answers to out, everything about the way
// there to err.
type console struct {
	out, err io.Writer
	format   format
	// Colours on out.
	color bool
	// Lines on out, on err may be drawn again.
	outTerminal, errTerminal bool
}

func (o *options) console(cmd *cobra.Command) *console {
	out, err := cmd.OutOrStdout(), cmd.ErrOrStderr()
	c := &console{out: out, err: err, format: o.output, outTerminal: isTerminal(out), errTerminal: isTerminal(err)}
	c.color = c.outTerminal && !o.noColor && os.Getenv("NO_COLOR") == ""
	return c
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && isatty.IsTerminal(f.Fd()) && os.Getenv("TERM") != "dumb"
}

// paint colours text if out has colours.
func (c *console) paint(text string, attributes ...color.Attribute) string {
	if !c.color || text == "" || len(attributes) == 0 {
		return text
	}
	p := color.New(attributes...)
	p.EnableColor()
	return p.Sprint(text)
}

// structured prints a value as JSON or YAML; it reports whether the format is
// one of them.
func (c *console) structured(v any) (bool, error) {
	switch c.format {
	case formatJSON:
		return true, printJSON(c.out, v)
	case formatYAML:
		return true, printYAML(c.out, v)
	}
	return false, nil
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("printing JSON: %w", err)
	}
	return nil
}

func printYAML(w io.Writer, v any) error {
	text, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Errorf("printing YAML: %w", err)
	}
	_, err = w.Write(text)
	return err
}

// printable makes text from elsewhere safe for a terminal: node names and
// refusals come from data planes, and may hold control sequences. Line breaks
// and tabs stay.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r != utf8.RuneError && unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// oneLine is printable, and blanks for line breaks and tabs.
func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(printable(s), func(r rune) bool { return r == '\n' || r == '\t' }), " ")
}

// cell is a field of a table.
type cell struct {
	text  string
	color []color.Attribute
}

// table prints columns of the width that they need. Widths are counted before
// colours are added, which text/tabwriter can't do.
func (c *console) table(header []string, rows [][]cell) { c.tableAfter("", header, rows) }

// tableAfter is a table with something before each line.
func (c *console) tableAfter(before string, header []string, rows [][]cell) {
	widths := make([]int, len(header))
	all := [][]cell{plain(header...)}
	all = append(all, rows...)
	for _, row := range all {
		for i := range row {
			row[i].text = oneLine(row[i].text)
			if row[i].text == "" {
				row[i].text = "-"
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i].text))
		}
	}
	for _, row := range all {
		var line strings.Builder
		line.WriteString(before)
		for i, field := range row {
			line.WriteString(c.paint(field.text, field.color...))
			if i < len(row)-1 {
				line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(field.text)+2))
			}
		}
		fmt.Fprintln(c.out, line.String())
	}
}

func plain(texts ...string) []cell {
	cells := make([]cell, len(texts))
	for i, text := range texts {
		cells[i].text = text
	}
	return cells
}
