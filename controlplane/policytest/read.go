package policytest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Bounds of a test file: values and names of fields, with what aliases stand
// for, how deep they stand in each other, and faults, which nobody reads on after
// so many.
const (
	maxValues = 1_000_000
	maxDepth  = 100
	maxFaults = 200
)

// reader reads YAML strictly, and goes on after a fault.
type reader struct {
	file   string
	budget int
	faults []Fault
	// within is the case that is being read, for faults.
	within string
}

func (r *reader) fault(n *yaml.Node, field, format string, args ...any) {
	r.faultAt(n.Line, field, format, args...)
}

func (r *reader) faultAt(line int, field, format string, args ...any) {
	if len(r.faults) == maxFaults {
		return
	}
	message := fmt.Sprintf(format, args...)
	for _, part := range []string{field, r.within} {
		if part != "" {
			message = part + ": " + message
		}
	}
	r.faults = append(r.faults, Fault{File: r.file, Line: line, Message: message})
	if len(r.faults) == maxFaults {
		r.budget = 0 // what is read now, nobody would hear of
	}
}

// spend counts a value or the name of a field; false if there were too many.
func (r *reader) spend(n *yaml.Node, field string) bool {
	if r.budget--; r.budget == 0 {
		r.fault(n, field, "is too large: over %d values, with what aliases stand for", maxValues)
	}
	return r.budget > 0
}

// resolved follows aliases; nil if there were too many values.
func (r *reader) resolved(n *yaml.Node, field string) *yaml.Node {
	for n != nil && r.spend(n, field) {
		if n.Kind != yaml.AliasNode {
			return n
		}
		n = n.Alias
	}
	return nil
}

// value refuses a field without a value: of a condition whose text was lost
// nobody should think that it was tested.
func (r *reader) value(n *yaml.Node, field string) *yaml.Node {
	if n = r.resolved(n, field); n != nil && isNull(n) {
		r.fault(n, field, "has no value: give one, or leave the field out")
		return nil
	}
	return n
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// entry is a field of an object.
type entry struct {
	name  string
	line  int
	value *yaml.Node // not nil
}

// entries are the fields of an object, in order.
func (r *reader) entries(n *yaml.Node, field string) []entry {
	if n = r.value(n, field); n == nil {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		r.fault(n, field, "wants an object, not %s", describe(n))
		return nil
	}
	var out []entry
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		if !r.spend(name, field) {
			break
		}
		for depth := 0; name.Kind == yaml.AliasNode && depth < maxDepth; depth++ {
			name = name.Alias
		}
		switch at := join(field, name.Value); {
		case name.Kind != yaml.ScalarNode:
			r.fault(name, field, "has a field whose name is %s", describe(name))
		case name.Tag == "!!merge":
			r.fault(name, field, "merge keys (<<) are not read: write the fields out")
		case seen[name.Value]:
			r.fault(name, at, "is given twice")
		default:
			seen[name.Value] = true
			out = append(out, entry{name.Value, name.Line, value})
		}
	}
	return out
}

// object reads an object with known fields.
func (r *reader) object(n *yaml.Node, field string, fields map[string]func(*yaml.Node, string)) {
	for _, e := range r.entries(n, field) {
		read, known := fields[e.name]
		if !known {
			r.faultAt(e.line, join(field, e.name), "unknown field; the fields here are %s", strings.Join(sortedKeys(fields), ", "))
			continue
		}
		read(e.value, join(field, e.name))
	}
}

// list returns the entries of a list, of which there must be one.
func (r *reader) list(n *yaml.Node, field string) []*yaml.Node {
	if n = r.value(n, field); n == nil {
		return nil
	}
	switch {
	case n.Kind != yaml.SequenceNode:
		r.fault(n, field, "wants a list, not %s", describe(n))
		return nil
	case len(n.Content) == 0:
		r.fault(n, field, "is an empty list: give entries, or leave the field out")
	}
	return n.Content
}

// text reads a string; an empty one is one.
func (r *reader) text(n *yaml.Node, field string) (string, bool) {
	if n = r.value(n, field); n == nil {
		return "", false
	}
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		return n.Value, true
	}
	hint := ""
	if n.Kind == yaml.ScalarNode {
		hint = "; quote it"
	}
	r.fault(n, field, "wants a string, not %s%s", describe(n), hint)
	return "", false
}

// filled reads a string that must not be empty.
func (r *reader) filled(n *yaml.Node, field string) string {
	s, ok := r.text(n, field)
	if ok && s == "" {
		r.fault(n, field, "is empty: give it, or leave the field out")
	}
	return s
}

// texts reads a string, or a list of them.
func (r *reader) texts(n *yaml.Node, field string) []string {
	if n = r.value(n, field); n == nil {
		return nil
	}
	list := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		list = r.list(n, field)
	}
	var out []string
	for i, c := range list {
		at := field
		if n.Kind == yaml.SequenceNode {
			at = index(field, i)
		}
		if s, ok := r.text(c, at); ok {
			out = append(out, s)
		}
	}
	return out
}

// time reads a point in time (RFC 3339).
func (r *reader) time(n *yaml.Node, field string) time.Time {
	if n = r.value(n, field); n == nil {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, n.Value)
	if n.Kind != yaml.ScalarNode || err != nil || t.IsZero() {
		r.fault(n, field, "wants a time such as 2026-11-25T12:00:00Z, not %s", describe(n))
		return time.Time{}
	}
	return t
}

// json reads any value as JSON has it: numbers keep all their digits.
func (r *reader) json(n *yaml.Node, field string, depth int) any {
	if n = r.resolved(n, field); n == nil || isNull(n) {
		return nil
	}
	if depth == maxDepth {
		r.fault(n, field, "stands in over %d others", maxDepth)
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		out := map[string]any{}
		for _, e := range r.entries(n, field) {
			out[e.name] = r.json(e.value, join(field, e.name), depth+1)
		}
		return out
	case yaml.SequenceNode:
		out := []any{}
		for i, c := range n.Content {
			out = append(out, r.json(c, index(field, i), depth+1))
		}
		return out
	}
	return r.scalar(n, field)
}

func (r *reader) scalar(n *yaml.Node, field string) any {
	var number float64
	switch n.Tag {
	case "!!str", "!!timestamp": // JSON has no times; a date is its text
		return n.Value
	case "!!bool":
		var b bool
		if n.Decode(&b) == nil {
			return b
		}
	case "!!int", "!!float":
		if json.Valid([]byte(n.Value)) { // not 0x10, 1_000 or .5
			return json.Number(n.Value)
		}
		if n.Decode(&number) == nil && !math.IsNaN(number) && !math.IsInf(number, 0) {
			return number
		}
	}
	r.fault(n, field, "%s can't be in JSON", describe(n))
	return nil
}

// describe says what a node is, for faults. What is long may be a token, and is
// not shown.
func describe(n *yaml.Node) string {
	const most = 40
	switch {
	case n.Kind == yaml.MappingNode:
		return "an object"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case len(n.Value) > most:
		return fmt.Sprintf("a text of %d bytes", len(n.Value))
	case n.Tag == "!!str":
		return "the string " + strconv.Quote(n.Value)
	}
	what := map[string]string{"!!int": "number", "!!float": "number", "!!bool": "boolean", "!!timestamp": "time"}[n.Tag]
	return "the " + cmp.Or(what, "value") + " " + strconv.Quote(n.Value)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func index(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
