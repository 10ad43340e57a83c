package main

import (
	"fmt"

	"github.com/fatih/color"

	"github.com/watchword-mesh/watchword/controlplane/policytest"
	"github.com/watchword-mesh/watchword/dataplane/ruleset"
)

// testReport is the JSON and YAML form of test.
type testReport struct {
	Passed int        `json:"passed"`
	Failed int        `json:"failed"`
	Tests  []testView `json:"tests"`
}

type testView struct {
	File        string           `json:"file"`
	Line        int              `json:"line"`
	Name        string           `json:"name"`
	Service     string           `json:"service"`
	Passed      bool             `json:"passed"`
	Got         string           `json:"got"`
	Differences []differenceView `json:"differences,omitempty"`
	Steps       []stepView       `json:"steps,omitempty"`
}

type differenceView struct {
	Field string `json:"field"`
	Got   string `json:"got"`
	Want  string `json:"want"`
}

// stepView is one step of an evaluation.
type stepView struct {
	Name    string `json:"name"`
	Outcome string `json:"outcome"`
	Detail  string `json:"detail"`
}

func (r *testReport) add(t policytest.Result, verbose bool) {
	v := testView{File: t.File, Line: t.Line, Name: t.Name, Service: t.Service, Passed: t.Passed, Got: t.Got}
	for _, d := range t.Differences {
		v.Differences = append(v.Differences, differenceView(d))
	}
	if verbose || !t.Passed {
		v.Steps = stepViews(t.Steps)
	}
	if t.Passed {
		r.Passed++
	} else {
		r.Failed++
	}
	r.Tests = append(r.Tests, v)
}

func stepViews(steps []ruleset.Step) []stepView {
	var out []stepView
	for _, s := range steps {
		out = append(out, stepView{s.Name, s.Outcome, s.Detail})
	}
	return out
}

func (c *console) printTests(r *testReport) error {
	if ok, err := c.structured(r); ok {
		return err
	}
	var rows [][]cell
	for _, t := range r.Tests {
		result := cell{"pass", []color.Attribute{color.FgGreen}}
		if !t.Passed {
			result = cell{"FAIL", []color.Attribute{color.FgRed}}
		}
		rows = append(rows, append([]cell{result}, plain(t.Service, t.Name, t.Got)...))
	}
	c.table([]string{"RESULT", "SERVICE", "TEST", "GOT"}, rows)
	fmt.Fprintln(c.out)
	for _, t := range r.Tests {
		c.printTest(t)
	}
	fmt.Fprintf(c.out, "%s: %d passed, %d failed\n", count(len(r.Tests), "test"), r.Passed, r.Failed)
	return nil
}

// printTest shows what is not as expected, and how that came about.
func (c *console) printTest(t testView) {
	if len(t.Steps) == 0 && t.Passed {
		return
	}
	fmt.Fprintf(c.out, "%s:%d: %s\n", oneLine(t.File), t.Line, oneLine(t.Name))
	if len(t.Differences) > 0 {
		rows := [][]cell{}
		for _, d := range t.Differences {
			rows = append(rows, append(plain(d.Field), cell{d.Got, []color.Attribute{color.FgRed}}, cell{text: d.Want}))
		}
		c.tableAfter(indent, []string{"EXPECT", "GOT", "WANT"}, rows)
	}
	c.printSteps(indent, t.Steps)
	fmt.Fprintln(c.out)
}
