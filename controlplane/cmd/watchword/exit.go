package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes. They are part of the interface: scripts branch on them.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitRefused     = 3
	exitConflict    = 4
	exitNotInSync   = 5
	exitUnreachable = 6
	exitDenied      = 7
	exitDifferences = 8
)

var exitCodes = []struct {
	code    int
	meaning string
}{
	{exitOK, "done"},
	{exitFailed, "failed for a reason that is none of the following (test: a test failed; doctor: there is a problem)"},
	{exitUsage, "wrong usage: unknown command, flag or value; import: no such configuration"},
	{exitRefused, "the input was refused; nothing was changed (import: not all was carried over)"},
	{exitConflict, "conflict: the update names an old revision, or does not fit what is stored"},
	{exitNotInSync, "stored, but not all data planes were in sync in time (--wait)"},
	{exitUnreachable, "the control plane was not reachable, or refused the credential"},
	{exitDenied, "the control plane knows who calls, but no role allows the call"},
	{exitDifferences, "there are differences (diff --exit-code)"},
}

// newExitCodesTopic is `watchword help exit-codes`.
func newExitCodesTopic() *cobra.Command {
	var text strings.Builder
	text.WriteString("Every command ends with one of these exit codes:\n\n")
	for _, c := range exitCodes {
		fmt.Fprintf(&text, "  %d  %s\n", c.code, c.meaning)
	}
	text.WriteString("\n`watchword envoy` ends with the exit code of Envoy once Envoy runs\n(128 + N if signal N ended it).")
	return &cobra.Command{Use: "exit-codes", Short: "What the exit codes mean", Long: text.String()}
}

// usageError is a command line that can't be run.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(text string, args ...any) error {
	return usageError{fmt.Errorf(text, args...)}
}

// failure is an error with its exit code and what to tell the operator.
type failure struct {
	code int
	// Printed as they are before the error, so that editors can read
	// file:line from them.
	lines []string
	// Nil prints nothing, for a code that is an answer and not an error.
	err error
	// The way out, on a line of its own.
	hint string
}

func (f *failure) Error() string {
	if f.err == nil {
		return fmt.Sprintf("exit code %d", f.code)
	}
	return f.err.Error()
}

func (f *failure) Unwrap() error { return f.err }

// report prints the error for an operator and returns the exit code.
func report(cmd *cobra.Command, err error) int {
	if err == nil {
		return exitOK
	}
	w := cmd.ErrOrStderr()
	var usage usageError
	if errors.As(err, &usage) {
		printError(w, err.Error())
		fmt.Fprintf(w, "  see `%s --help`\n", cmd.CommandPath())
		return exitUsage
	}
	var f *failure
	if !errors.As(err, &f) {
		printError(w, err.Error())
		return exitFailed
	}
	for _, line := range f.lines {
		fmt.Fprintln(w, oneLine(line))
	}
	if f.err != nil {
		printError(w, err.Error())
	}
	if f.hint != "" {
		fmt.Fprintf(w, "  %s\n", f.hint)
	}
	return f.code
}

func printError(w io.Writer, text string) {
	fmt.Fprintf(w, "watchword: %s\n", printable(text))
}
