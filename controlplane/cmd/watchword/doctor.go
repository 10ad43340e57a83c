package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/fatih/color"
	"github.com/spf13/cobra"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

func newDoctorCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "doctor",
		Short: "Show what of the control plane's own setup is weaker than it could be",
		Long: `Has the control plane look at its own setup: who can reach it, what it is locked
with, and what expires. Problems come first, each with what to do about it.

The exit code is 1 if there is a problem; warnings alone are 0.`,
		Example: `  watchword doctor
  watchword doctor -o json`,
		Args: noArguments(""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			con := o.console(cmd)
			if con.format == formatName {
				return usagef("findings have no names; leave out -o, or use json or yaml")
			}
			return o.withClient(cmd, func(ctx context.Context, c *client) error {
				response, err := c.Diagnose(ctx, &adminv1.DiagnoseRequest{})
				if err != nil {
					return err
				}
				return con.printDiagnosis(diagnosisOf(response))
			})
		},
	}
}

// diagnosis is the JSON and YAML form of doctor.
type diagnosis struct {
	Problems int           `json:"problems"`
	Warnings int           `json:"warnings"`
	Findings []findingView `json:"findings"`
}

type findingView struct {
	Severity string `json:"severity"`
	Subject  string `json:"subject"`
	Message  string `json:"message"`
	Hint     string `json:"hint,omitempty"`

	rank int
}

// severities are the words of findings, the worst first, each with its colour.
// What is not known is a problem: an older program must not call it fine.
var severities = []struct {
	severity adminv1.Finding_Severity
	word     string
	color    color.Attribute
}{
	{adminv1.Finding_PROBLEM, "PROBLEM", color.FgRed},
	{adminv1.Finding_WARNING, "WARNING", color.FgYellow},
	{adminv1.Finding_OK, "OK", color.FgGreen},
}

func findingViewOf(f *adminv1.Finding) findingView {
	rank := 0
	for i, s := range severities {
		if s.severity == f.GetSeverity() {
			rank = i
		}
	}
	return findingView{severities[rank].word, f.GetSubject(), f.GetMessage(), f.GetHint(), rank}
}

func diagnosisOf(r *adminv1.DiagnoseResponse) *diagnosis {
	d := &diagnosis{Findings: []findingView{}}
	for _, f := range r.GetFindings() {
		v := findingViewOf(f)
		switch v.Severity {
		case "PROBLEM":
			d.Problems++
		case "WARNING":
			d.Warnings++
		}
		d.Findings = append(d.Findings, v)
	}
	slices.SortStableFunc(d.Findings, func(a, b findingView) int { return cmp.Compare(a.rank, b.rank) })
	return d
}

// printDiagnosis ends with the failure that the exit code tells of.
func (c *console) printDiagnosis(d *diagnosis) error {
	ok, err := c.structured(d)
	if err != nil {
		return err
	}
	if !ok {
		c.printFindings(d)
	}
	if d.Problems > 0 {
		return &failure{code: exitFailed}
	}
	return nil
}

func (c *console) printFindings(d *diagnosis) {
	var rows [][]cell
	for _, f := range d.Findings {
		rows = append(rows, append([]cell{{f.Severity, []color.Attribute{severities[f.rank].color}}}, plain(f.Subject, f.Message)...))
		if f.Hint != "" {
			// Below the message, since both are long.
			rows = append(rows, plain(" ", " ", "-> "+f.Hint))
		}
	}
	if len(rows) > 0 {
		c.table([]string{"RESULT", "SUBJECT", "FINDING"}, rows)
		fmt.Fprintln(c.out)
	}
	fmt.Fprintf(c.out, "%s, %s, %d ok\n", count(d.Problems, "problem"), count(d.Warnings, "warning"), len(d.Findings)-d.Problems-d.Warnings)
}
