package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/watchword-mesh/watchword/controlplane/policytest"
)

func newTestCommand(o *options) *cobra.Command {
	var verbose bool
	cmd := &cobra.Command{
		Use:   "test FILE...",
		Short: "Test policies without a control plane",
		Long: fmt.Sprintf(`Decides on the requests in test files as a data plane would, with the resources
that the files name, and compares what comes of them with what is expected. No
control plane is asked, so that it runs wherever the files are, such as in CI.

What is wrong with a test file or a resource is listed with file and line, and
nothing is tested then (exit code %d). If a test fails, its steps are printed, and
the exit code is %d.`, exitRefused, exitFailed),
		Example: `  watchword test mesh/tests.yaml
  watchword test tests/*.yaml -v
  watchword test mesh/tests.yaml -o json`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return errors.New("name a test file, or - for standard input")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			con := o.console(cmd)
			if con.format == formatName {
				return usagef("tests have no kind; leave out -o, or use json or yaml")
			}
			suites, err := loadSuites(cmd.InOrStdin(), args)
			if err != nil {
				return err
			}
			return runSuites(cmd.Context(), con, suites, verbose)
		},
		ValidArgsFunction: cobra.FixedCompletions([]cobra.Completion{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt),
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "print the steps of tests that pass, too")
	return cmd
}

// loadSuites reads all files before any is run, so that all faults come at once.
func loadSuites(stdin io.Reader, paths []string) ([]*policytest.Suite, error) {
	var suites []*policytest.Suite
	f := &failure{code: exitRefused}
	for _, path := range paths {
		d, err := readTestFile(stdin, path)
		if err != nil {
			return nil, err
		}
		suite, err := policytest.Load(d, policiesBeside(path))
		var faults *policytest.FaultsError
		if errors.As(err, &faults) {
			for _, fault := range faults.Faults {
				f.lines = append(f.lines, fault.String())
			}
		} else if err != nil {
			return nil, err
		}
		suites = append(suites, suite)
	}
	if len(f.lines) > 0 {
		f.err = fmt.Errorf("%s; nothing was tested", count(len(f.lines), "fault"))
		return nil, f
	}
	return suites, nil
}

func readTestFile(stdin io.Reader, path string) (policytest.Document, error) {
	if path == "-" {
		content, err := io.ReadAll(stdin)
		if err != nil {
			return policytest.Document{}, fmt.Errorf("reading standard input: %w", err)
		}
		return policytest.Document{Name: "stdin", Content: string(content)}, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return policytest.Document{}, fmt.Errorf("reading tests: %w", err)
	}
	return policytest.Document{Name: path, Content: string(content)}, nil
}

// policiesBeside reads what a test file names, from where the file is; those of
// standard input from here.
func policiesBeside(testFile string) func(string) ([]policytest.Document, error) {
	return func(path string) ([]policytest.Document, error) {
		if testFile != "-" && !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(testFile), path)
		}
		documents, err := (&files{}).readPath(path)
		if err == nil {
			err = checkText(documents)
		}
		var f *failure
		if errors.As(err, &f) {
			err = errors.New(f.lines[0])
		}
		if err != nil {
			return nil, err
		}
		var out []policytest.Document
		for _, d := range documents {
			out = append(out, policytest.Document{Name: d.GetSource(), Content: d.GetContent()})
		}
		return out, nil
	}
}

// runSuites runs all tests and prints a report.
func runSuites(ctx context.Context, con *console, suites []*policytest.Suite, verbose bool) error {
	total := 0
	for _, s := range suites {
		total += s.Len()
	}
	report := &testReport{Tests: []testView{}}
	now := time.Now()
	shown := newTestProgress(con, total, now)
	for _, s := range suites {
		for r := range s.Results(now) {
			report.add(r, verbose)
			shown.done(len(report.Tests), report.Failed, time.Now())
			if ctx.Err() != nil {
				shown.clear()
				return errors.New("interrupted")
			}
		}
	}
	shown.clear()
	if err := con.printTests(report); err != nil {
		return err
	}
	if report.Failed > 0 {
		return &failure{code: exitFailed} // the report says it
	}
	return nil
}

// testProgress says how far the tests are, if they take more than two seconds.
type testProgress struct {
	progress
	total int
	next  time.Time
}

func newTestProgress(con *console, total int, now time.Time) *testProgress {
	return &testProgress{progress: progress{w: con.err, redraw: con.errTerminal}, total: total, next: now.Add(lineInterval)}
}

func (p *testProgress) done(n, failed int, now time.Time) {
	if now.Before(p.next) {
		return
	}
	p.next = now.Add(p.interval())
	p.show(fmt.Sprintf("%d of %d tests, %d failed", n, p.total, failed))
}
