// Package policytest tests policies without a control plane: which request, with
// which token, is let in, and what the service gets of it or the caller is told.
//
// # The model
//
// Load reads a test file with the resources that it names, and finds all that is
// wrong with either. Suite.Results then decides on each case as a data plane would:
//
//	read.go     a YAML document, field by field, with lines
//	file.go     a test file: the cases, as they are written
//	load.go     the resources: parsed, checked as a whole, compiled
//	token.go    the token of a case, and claims that nobody has signed
//	run.go      one decision, compared with what is expected
//
// What a control plane would know and a test can't is stood in for: the built-in
// issuer has a URL and a trust domain of its own unless the resources have them,
// and an issuer or a credential whose keys are elsewhere has one that signs
// nothing. Their tokens can be tested by their claims.
//
// The package does no I/O and has no clock.
package policytest

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/watchword-mesh/watchword/dataplane/ruleset"
)

// Document is one file as it is written.
type Document struct {
	// Name of the file, for people.
	Name    string
	Content string
}

// Fault is one thing that is wrong with what was written.
type Fault struct {
	// File and Line (from 1) say where; either may be missing.
	File string
	Line int
	// What is wrong, and what would be right, with the resource and the field that
	// it is about. It holds no token and no secret.
	Message string
}

// String is FILE:LINE: MESSAGE.
func (f Fault) String() string {
	switch {
	case f.File == "":
		return f.Message
	case f.Line == 0:
		return f.File + ": " + f.Message
	}
	return fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Message)
}

// FaultsError is all that is wrong with a test file and its resources.
type FaultsError struct{ Faults []Fault }

func (e *FaultsError) Error() string {
	return strings.Join(each(e.Faults, Fault.String), "\n")
}

// Suite is a test file that can be run.
type Suite struct {
	file     string
	now      time.Time // zero: not said
	cases    []*testCase
	rulesets map[string]*ruleset.Ruleset
}

// Len is the number of cases.
func (s *Suite) Len() int { return len(s.cases) }

// Results runs the cases in order. now is the time of those for which the file
// says none.
func (s *Suite) Results(now time.Time) iter.Seq[Result] {
	if !s.now.IsZero() {
		now = s.now
	}
	return func(yield func(Result) bool) {
		for _, c := range s.cases {
			at := now
			if !c.now.IsZero() {
				at = c.now
			}
			if !yield(s.run(c, at)) {
				return
			}
		}
	}
}

// Result is what came of one case.
type Result struct {
	File    string
	Line    int
	Name    string
	Service string
	Passed  bool
	// Got says what was decided, in a few words.
	Got string
	// Differences are empty if it passed.
	Differences []Difference
	// Steps of the evaluation.
	Steps []ruleset.Step
}

// Difference is one thing that is not as expected. Tokens are not shown.
type Difference struct {
	// Field of expect, such as reason or headers.x-user.
	Field     string
	Got, Want string
}

// each applies a function to all entries of a list.
func each[T, U any](list []T, f func(T) U) []U {
	var out []U
	for v := range slices.Values(list) {
		out = append(out, f(v))
	}
	return out
}
