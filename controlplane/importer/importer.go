// Package importer turns configurations of other products into resources:
// Istio's RequestAuthentication and AuthorizationPolicy, Higress' jwt-auth,
// Kong's jwt plugin, and the JWT authentication of Function Compute's custom
// domains.
//
// Two rules hold for all of them. What is imported means what it meant: a
// check that the original does not make is written out as one that is not
// made, with a warning. And nothing gets lost in silence: what has no place
// here is named with its place and the reason, and what an ALLOW or a DENY
// would mean without it is never guessed; the rule is left out whole.
//
// The package is pure: no clock, no I/O. What it returns holds the secrets of
// the original in clear.
package importer

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// File is a text to import, YAML or JSON.
type File struct {
	// Name stands before the line in notes.
	Name    string
	Content []byte
}

// Workload says which labels belong to a Service.
type Workload struct {
	Service string
	Labels  map[string]string
}

// Options are what the originals do not say themselves. The zero value is
// useful.
type Options struct {
	// OmitServices leaves out the Services, for who has them already. Policies
	// name them all the same.
	OmitServices bool

	// Workloads resolve the label selectors of Istio. Without any, the value of
	// the label app or app.kubernetes.io/name is the name of the Service.
	Workloads []Workload
	// Namespace to import from Istio. Default: the only one.
	Namespace string
	// RootNamespace is where Istio keeps what holds in all namespaces. Default
	// istio-system.
	RootNamespace string
	// AllowNetworks are the address ranges (CIDR) of JWKS URIs that are not
	// public, for Istio.
	AllowNetworks []string

	// Gateway is the name of the Service that stands for a Higress gateway.
	// Default gateway.
	Gateway string
	// Routes says what the routes that Higress rules name match: a mapping from
	// their names to hosts, paths and methods in the form of Watchword's routes.
	Routes *File
}

// Result is what became of an import.
type Result struct {
	// In the order in which they can be stored one by one.
	Resources []*policyv1.Resource
	// What could not be carried over, in the order of the files.
	Left []Note
	// What was carried over and should be looked at: mostly what the original
	// does not check.
	Warnings []Note
}

// Note is about one place of the original.
type Note struct {
	// File and line; the line is 0 where it is not known.
	Source string
	Line   int
	// Place in the file, such as services[0].plugins[1].config.
	Place   string
	Message string
}

// String is FILE:LINE: PLACE: MESSAGE, without what is not known.
func (n Note) String() string { return n.As("") }

// As is String with what kind of note it is behind the line, as compilers have
// it.
func (n Note) As(kind string) string {
	at := n.Source
	if n.Line > 0 {
		at += fmt.Sprintf(":%d", n.Line)
	}
	for _, part := range []string{kind, n.Place} {
		if part != "" {
			at += ": " + part
		}
	}
	return at + ": " + n.Message
}

// InputError is returned for files that are not what the import is for.
type InputError struct {
	Faults []Note
}

// Error names all faults, one a line.
func (e *InputError) Error() string {
	var lines []string
	for _, f := range e.Faults {
		lines = append(lines, f.String())
	}
	return strings.Join(lines, "\n")
}

// result checks and sorts what was gathered, or returns the faults.
func (r *run) result() (Result, error) {
	if len(r.faults) == 0 {
		slices.SortStableFunc(r.resources, func(a, b *policyv1.Resource) int { return cmp.Compare(rank(a), rank(b)) })
		r.check()
	}
	order := map[string]int{}
	for i, f := range r.files {
		order[f] = i
	}
	byPlace := func(a, b Note) int {
		return cmp.Or(cmp.Compare(order[a.Source], order[b.Source]), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Place, b.Place))
	}
	for _, notes := range [][]Note{r.faults, r.left, r.warnings} {
		slices.SortStableFunc(notes, byPlace)
	}
	if len(r.faults) > 0 {
		return Result{}, &InputError{Faults: slices.Compact(r.faults)}
	}
	return Result{Resources: r.resources, Left: slices.Compact(r.left), Warnings: slices.Compact(r.warnings)}, nil
}
