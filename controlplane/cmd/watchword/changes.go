package main

import (
	"fmt"
	"strings"

	"github.com/fatih/color"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// changeReport is the JSON and YAML form of what apply, diff and delete did.
type changeReport struct {
	Revision     int64        `json:"revision"`
	DryRun       bool         `json:"dryRun,omitempty"`
	Transactions int32        `json:"transactions,omitempty"`
	Changes      []changeView `json:"changes"`
	Warnings     []string     `json:"warnings,omitempty"`
	// Generated are keys and secrets that are shown this once.
	Generated []generatedView `json:"generated,omitempty"`
	// services are those that the change concerns; --wait names them.
	services []string

	Sync *syncReport `json:"sync,omitempty"`
}

type changeView struct {
	Kind   string `json:"kind"`
	Name   string `json:"name"`
	Action string `json:"action"`
	Diff   string `json:"diff,omitempty"`
}

type generatedView struct {
	Resource string `json:"resource"`
	Field    string `json:"field"`
	Value    string `json:"value"`
}

func generatedViews(list []*adminv1.Generated) []generatedView {
	var views []generatedView
	for _, g := range list {
		views = append(views, generatedView{g.GetResource(), g.GetField(), g.GetValue()})
	}
	return views
}

func (c changeView) resourceName() resourceName { return resourceName{c.Kind, c.Name} }

func changeViews(changes []*adminv1.Change) []changeView {
	views := []changeView{}
	for _, c := range changes {
		views = append(views, changeView{c.GetKind(), c.GetName(), strings.ToLower(c.GetAction().String()), c.GetDiff()})
	}
	return views
}

// different says whether anything would change.
func (r *changeReport) different() bool {
	for _, c := range r.Changes {
		if c.Action != "unchanged" {
			return true
		}
	}
	return false
}

// printChanges prints a line for each change, and its diff for a dry run. The
// structured formats are printed by finish, when the wait is over.
func (c *console) printChanges(r *changeReport) {
	for _, change := range r.Changes {
		switch c.format {
		case formatName:
			fmt.Fprintln(c.out, oneLine(change.resourceName().String()))
		case formatTable:
			fmt.Fprintf(c.out, "%s %s%s\n", oneLine(change.resourceName().String()), c.paint(change.Action, actionColor(change.Action)...), dryRunMark(r))
			if r.DryRun {
				c.printDiff(change.Diff)
			}
		}
	}
}

// printGenerated prints what was made and can't be read again; beside a list of
// names it goes to err, so as not to be lost.
func (c *console) printGenerated(r *changeReport) {
	if len(r.Generated) == 0 || c.format == formatJSON || c.format == formatYAML {
		return
	}
	to := *c
	if c.format == formatName {
		to.out, to.color = c.err, false
	}
	title := "made, and not shown again:"
	if r.DryRun {
		title = "would be made:"
	}
	fmt.Fprintf(to.out, "\n%s\n", title)
	var rows [][]cell
	for _, g := range r.Generated {
		rows = append(rows, plain(g.Resource, g.Field, g.Value))
	}
	to.table([]string{"RESOURCE", "FIELD", "VALUE"}, rows)
}

func dryRunMark(r *changeReport) string {
	if r.DryRun {
		return " (dry run)"
	}
	return ""
}

// notes prints what is worth knowing beside the changes.
func (c *console) notes(r *changeReport) {
	for _, w := range r.Warnings {
		fmt.Fprintf(c.err, "warning: %s\n", oneLine(w))
	}
	if r.Transactions > 1 && !r.DryRun {
		fmt.Fprintf(c.err, "%s took %d transactions; the last one is revision %d\n", count(len(r.Changes), "change"), r.Transactions, r.Revision)
	}
}

func actionColor(action string) []color.Attribute {
	switch action {
	case "created":
		return []color.Attribute{color.FgGreen}
	case "updated":
		return []color.Attribute{color.FgYellow}
	case "deleted":
		return []color.Attribute{color.FgRed}
	}
	return nil
}

func (c *console) printDiff(diff string) {
	for line := range strings.Lines(diff) {
		fmt.Fprintln(c.out, c.paint(printable(strings.TrimSuffix(line, "\n")), diffColor(line)...))
	}
}

func diffColor(line string) []color.Attribute {
	switch {
	case strings.HasPrefix(line, "+++"), strings.HasPrefix(line, "---"):
		return []color.Attribute{color.Bold}
	case strings.HasPrefix(line, "+"):
		return []color.Attribute{color.FgGreen}
	case strings.HasPrefix(line, "-"):
		return []color.Attribute{color.FgRed}
	case strings.HasPrefix(line, "@@"):
		return []color.Attribute{color.FgCyan}
	}
	return nil
}
