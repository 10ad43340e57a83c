package importer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Bounds of what is read, values and names of fields; what an alias stands for
// counts each time.
const (
	maxValues = 1_000_000
	maxDepth  = 64
	maxFaults = 200
)

// run is one import: what was read so far, and what there is to say of it.
type run struct {
	files     []string
	resources []*policyv1.Resource
	// The Services, also those that the user has already.
	present map[string]*policyv1.ServiceSpec
	// By kind and name: what the name was made from.
	names                  map[string]map[string]string
	faults, left, warnings []Note
	// What may still be read.
	budget int
}

// reserved is the key of names that are not to be given.
const reserved = "\x00"

func newRun(files []File) *run {
	r := &run{present: map[string]*policyv1.ServiceSpec{}, names: map[string]map[string]string{"Issuer": {policy.BuiltinIssuer: reserved}}, budget: maxValues}
	for _, f := range files {
		r.files = append(r.files, f.Name)
	}
	return r
}

// source is the first file, for what is said of no place.
func (r *run) source() string {
	if len(r.files) == 0 {
		return "no file"
	}
	return r.files[0]
}

// node is a value of a file with its place.
type node struct {
	yaml   *yaml.Node
	source string
	// what stands before the path in notes, such as RequestAuthentication/jwt.
	what, path string
}

func (n node) note(format string, args ...any) Note {
	line := 0
	if n.yaml != nil {
		line = n.yaml.Line
	}
	place := n.what
	if n.what != "" && n.path != "" {
		place += ": "
	}
	return Note{Source: n.source, Line: line, Place: place + n.path, Message: fmt.Sprintf(format, args...)}
}

func (r *run) fault(n node, format string, args ...any) {
	if len(r.faults) < maxFaults {
		r.faults = append(r.faults, n.note(format, args...))
	}
}

// leave says that something is not carried over.
func (r *run) leave(n node, format string, args ...any) {
	r.left = append(r.left, n.note(format, args...))
}

func (r *run) warn(n node, format string, args ...any) {
	r.warnings = append(r.warnings, n.note(format, args...))
}

// child is the value of a field or an entry.
func (n node) child(y *yaml.Node, step string) node {
	path := n.path + step
	if n.path == "" {
		path = strings.TrimPrefix(step, ".")
	}
	return node{yaml: y, source: n.source, what: n.what, path: path}
}

// documents reads the YAML documents of all files.
func (r *run) documents(files []File) []node {
	var out []node
	for _, f := range files {
		out = append(out, r.documentsOf(f)...)
	}
	return out
}

func (r *run) documentsOf(f File) []node {
	var out []node
	dec := yaml.NewDecoder(bytes.NewReader(f.Content))
	for {
		var y yaml.Node
		err := dec.Decode(&y)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			line, text := policy.SyntaxError(err)
			r.faults = append(r.faults, Note{Source: f.Name, Line: line, Message: "not YAML or JSON: " + text})
			return out
		}
		if y.Kind == yaml.DocumentNode && len(y.Content) > 0 && !null(y.Content[0]) {
			out = append(out, node{yaml: y.Content[0], source: f.Name})
		}
	}
}

func null(y *yaml.Node) bool { return y.Kind == yaml.ScalarNode && y.Tag == "!!null" }

// follow counts a value against the budget and follows aliases; ok is false
// for what is absent, null, or too much.
func (r *run) follow(n node) (node, bool) {
	for hops := 0; n.yaml != nil && n.yaml.Kind == yaml.AliasNode; hops++ {
		if hops > maxDepth {
			return n, false
		}
		alias := *n.yaml.Alias // reported where it is used
		alias.Line = n.yaml.Line
		n.yaml = &alias
	}
	if n.yaml == nil || null(n.yaml) {
		return n, false
	}
	return n, r.spend(n)
}

// spend counts a value or the name of a field; false if there were too many.
func (r *run) spend(n node) bool {
	r.budget--
	if r.budget == 0 {
		r.fault(n, "too large: over %d values, with what aliases stand for", maxValues)
	}
	return r.budget > 0
}

// describe says what a value is without showing it: it may be a secret.
func describe(y *yaml.Node) string {
	switch {
	case y.Kind == yaml.MappingNode:
		return "an object"
	case y.Kind == yaml.SequenceNode:
		return "a list"
	case y.Tag == "!!str":
		return "a string"
	case y.Tag == "!!int", y.Tag == "!!float":
		return "a number"
	case y.Tag == "!!bool":
		return "a boolean"
	}
	return "what is there"
}

// object is a mapping whose fields are read by name.
type object struct {
	node
	r      *run
	fields map[string]node
	keys   []string
}

// object reads a mapping; an absent one has no fields. Fields that are not
// known are left over; without any known ones all are taken.
func (r *run) object(n node, known ...string) object {
	o := object{node: n, r: r, fields: map[string]node{}}
	n, ok := r.follow(n)
	if !ok {
		return o
	}
	if n.yaml.Kind != yaml.MappingNode {
		r.fault(n, "wants an object, not %s", describe(n.yaml))
		return o
	}
	o.read(n, 0)
	for _, key := range o.keys {
		if len(known) > 0 && !slices.Contains(known, key) {
			r.unknown(o.fields[key], known)
		}
	}
	return o
}

// unknown says that a field is not known, and which are if they are few.
func (r *run) unknown(n node, known []string) {
	if len(known) > 8 {
		r.leave(n, "unknown field")
		return
	}
	r.leave(n, "unknown field; the known ones here are %s", strings.Join(known, ", "))
}

// read takes the fields of a mapping, those that it merges (`<<`) last.
func (o *object) read(n node, depth int) {
	var merged []*yaml.Node
	own := map[string]bool{}
	for i := 0; i+1 < len(n.yaml.Content); i += 2 {
		key, value := n.yaml.Content[i], n.yaml.Content[i+1]
		if !o.r.spend(n) {
			return
		}
		if key.Tag == "!!merge" {
			merged = append(merged, value)
			continue
		}
		at := n.child(value, "."+key.Value)
		if own[key.Value] {
			o.r.fault(at, "is given twice")
		}
		own[key.Value] = true
		if _, there := o.fields[key.Value]; !there {
			o.fields[key.Value] = at
			o.keys = append(o.keys, key.Value)
		}
	}
	for _, m := range merged {
		o.merge(n.child(m, ""), depth)
	}
}

func (o *object) merge(n node, depth int) {
	n, ok := o.r.follow(n)
	switch {
	case !ok:
	case depth > maxDepth:
		o.r.fault(n, "merges too deep")
	case n.yaml.Kind == yaml.SequenceNode:
		for _, m := range n.yaml.Content {
			o.merge(n.child(m, ""), depth+1)
		}
	case n.yaml.Kind == yaml.MappingNode:
		o.read(n, depth+1)
	default:
		o.r.fault(n, "<< wants an object, not %s", describe(n.yaml))
	}
}

// at is the value of a field; ok is false where it is absent or null.
func (o object) at(name string) (node, bool) {
	n, there := o.fields[name]
	if !there {
		return o.child(o.yaml, "."+name), false
	}
	return o.r.follow(n)
}

func (o object) has(name string) bool {
	n, there := o.fields[name]
	return there && !null(n.yaml)
}

// object is the object in a field.
func (o object) object(name string, known ...string) object {
	n, ok := o.at(name)
	if !ok {
		n.yaml = nil
	}
	return o.r.object(n, known...)
}

// text is a string, empty where it is absent.
func (o object) text(name string) string {
	n, ok := o.at(name)
	if !ok {
		return ""
	}
	s, _ := o.r.text(n)
	return s
}

func (r *run) text(n node) (string, bool) {
	n, ok := r.follow(n)
	if ok && n.yaml.Kind == yaml.ScalarNode && n.yaml.Tag == "!!str" {
		return n.yaml.Value, true
	}
	if r.budget <= 0 {
		return "", false
	}
	hint := ""
	if ok && n.yaml.Kind == yaml.ScalarNode {
		hint = "; quote it"
	}
	what := "nothing"
	if ok {
		what = describe(n.yaml)
	}
	r.fault(n, "wants a string, not %s%s", what, hint)
	return "", false
}

// need is a string that must be there.
func (o object) need(name string) string {
	s := o.text(name)
	if s == "" && !o.broken(name) {
		o.r.fault(o.node, "%s is missing", name)
	}
	return s
}

// broken says that a field is there, but no string: a fault of its own.
func (o object) broken(name string) bool {
	n, ok := o.at(name)
	return ok && (n.yaml.Kind != yaml.ScalarNode || n.yaml.Tag != "!!str")
}

// flag is a boolean.
func (o object) flag(name string, otherwise bool) bool {
	n, ok := o.at(name)
	if !ok {
		return otherwise
	}
	var b bool
	if n.yaml.Kind != yaml.ScalarNode || n.yaml.Tag != "!!bool" || n.yaml.Decode(&b) != nil {
		o.r.fault(n, "wants true or false, not %s", describe(n.yaml))
	}
	return b
}

// seconds is a whole number of seconds, at least 0.
func (o object) seconds(name string) (time.Duration, bool) {
	n, ok := o.at(name)
	if !ok {
		return 0, false
	}
	v, err := strconv.ParseFloat(n.yaml.Value, 64)
	if n.yaml.Kind != yaml.ScalarNode || (n.yaml.Tag != "!!int" && n.yaml.Tag != "!!float") || err != nil || v < 0 || v > 1e9 || v != float64(int64(v)) {
		o.r.fault(n, "wants a whole number of seconds")
		return 0, false
	}
	return time.Duration(v) * time.Second, true
}

// list is the entries of a list.
func (o object) list(name string) []node {
	n, ok := o.at(name)
	if !ok {
		return nil
	}
	return o.r.list(n)
}

func (r *run) list(n node) []node {
	n, ok := r.follow(n)
	if !ok {
		return nil
	}
	if n.yaml.Kind != yaml.SequenceNode {
		r.fault(n, "wants a list, not %s", describe(n.yaml))
		return nil
	}
	var out []node
	for i, y := range n.yaml.Content {
		out = append(out, n.child(y, "["+strconv.Itoa(i)+"]"))
	}
	return out
}

// textAt is a string of a list with its place.
type textAt struct {
	node
	text string
}

// texts is a list of strings.
func (o object) texts(name string) []textAt {
	var out []textAt
	for _, n := range o.list(name) {
		if s, ok := o.r.text(n); ok {
			out = append(out, textAt{n, s})
		}
	}
	return out
}

func plain(list []textAt) []string {
	var out []string
	for _, t := range list {
		if !slices.Contains(out, t.text) {
			out = append(out, t.text)
		}
	}
	return out
}

// inside reads a text that stands as a string in a file, such as JSON.
func (r *run) inside(n node, text string) (node, bool) {
	var y yaml.Node
	if err := yaml.Unmarshal([]byte(text), &y); err != nil || len(y.Content) == 0 {
		r.fault(n, "holds neither JSON nor YAML")
		return n, false
	}
	place(y.Content[0], n.yaml.Line, 0)
	return node{yaml: y.Content[0], source: n.source, what: n.what, path: n.path}, true
}

// place gives all nodes the line of the string that they stand in.
func place(y *yaml.Node, line, depth int) {
	y.Line = line
	if depth > maxDepth {
		return
	}
	for _, c := range y.Content {
		place(c, line, depth+1)
	}
}

// clip shortens what is shown of a value.
func clip(s string) string {
	const most = 60
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}
