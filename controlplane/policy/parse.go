package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// maxDocumentBytes is the largest source text of one document.
const maxDocumentBytes = 256 << 10

// Document is a text with any number of YAML documents; JSON is YAML.
type Document struct {
	// Source names the text in faults, such as a file.
	Source  string
	Content string
	// Nodes are read in place of Content: resources that stand in a document of
	// another kind.
	Nodes []*yaml.Node
}

// Object is one resource as it was read, with the lines of its fields.
type Object struct {
	Key      Key
	Resource *policyv1.Resource
	Source   string
	lines    map[string]int
}

// Line returns the line of a field such as spec.calls[0].service, or of the
// nearest field around it.
func (o *Object) Line(field string) int {
	for {
		if line, ok := o.lines[field]; ok {
			return line
		}
		cut := bytes.LastIndexAny([]byte(field), ".[")
		if cut < 0 {
			return o.lines[""]
		}
		field = field[:cut]
	}
}

// Parse reads all documents. The objects are only complete if there are no
// faults.
func Parse(docs []Document) ([]*Object, []Fault) {
	var objects []*Object
	var faults []Fault
	for _, d := range docs {
		if len(faults) >= maxFaults {
			break
		}
		o, f := parseSource(d)
		objects, faults = append(objects, o...), append(faults, f...)
	}
	return objects, append(faults, repeated(objects)...)
}

// repeated finds resources that are given twice: which one would win?
func repeated(objects []*Object) []Fault {
	var faults []Fault
	first := map[Key]*Object{}
	for _, o := range objects {
		if o.Key.Name == "" {
			continue // a fault of its own
		}
		if p := first[o.Key]; p != nil {
			faults = append(faults, Fault{Source: o.Source, Line: o.Line(""), Key: o.Key,
				Message: fmt.Sprintf("given twice; the first is at %s:%d", p.Source, p.Line(""))})
			continue
		}
		first[o.Key] = o
	}
	return faults
}

func parseSource(d Document) ([]*Object, []Fault) {
	var objects []*Object
	var faults []Fault
	add := func(resources []*yaml.Node) {
		for _, resource := range resources {
			if len(faults) >= maxFaults {
				return
			}
			o, f := parseObject(d.Source, resource)
			faults = append(faults, f...)
			if o != nil {
				objects = append(objects, o)
			}
		}
	}
	if add(d.Nodes); d.Nodes != nil {
		return objects, faults
	}
	dec := yaml.NewDecoder(bytes.NewReader([]byte(d.Content)))
	for len(faults) < maxFaults {
		var n yaml.Node
		err := dec.Decode(&n)
		if errors.Is(err, io.EOF) {
			return objects, faults
		}
		if err != nil {
			line, text := SyntaxError(err)
			return objects, append(faults, Fault{Source: d.Source, Line: line, Message: "not YAML: " + text})
		}
		if isNull(&n) {
			continue
		}
		add(list(n.Content[0]))
	}
	return objects, faults
}

// list takes a document that is a list of resources, as `get -o json` prints
// them, apart.
func list(n *yaml.Node) []*yaml.Node {
	if n.Kind == yaml.SequenceNode {
		return n.Content
	}
	return []*yaml.Node{n}
}

func isNull(n *yaml.Node) bool {
	return n.Kind == 0 || (n.Kind == yaml.DocumentNode && (len(n.Content) == 0 || isScalar(n.Content[0], "!!null")))
}

// parseObject reads one document: the envelope first, since the kind decides
// what the spec may hold.
func parseObject(source string, n *yaml.Node) (*Object, []Fault) {
	r := &reader{source: source, lines: map[string]int{"": n.Line}, budget: maxNodes}
	if n.Kind != yaml.MappingNode {
		r.fault(n, "", "wants a resource with apiVersion, kind, metadata and spec, not %s", describe(n))
		return nil, r.faults
	}
	fields := r.mapping(withoutStatus(n), "", []string{"apiVersion", "kind", "metadata", "spec"})
	kind := r.envelope(n, fields)
	if kind == "" {
		return nil, r.faults
	}
	res := newResource(kind)
	r.message(fields["metadata"], "metadata", res.Metadata.ProtoReflect())
	r.key = Key{kind, res.Metadata.Name}
	r.message(fields["spec"], "spec", specOf(res))
	r.size(n)
	for i := range r.faults {
		r.faults[i].Key = r.key
	}
	return &Object{Key: r.key, Resource: res, Source: source, lines: r.lines}, r.faults
}

// withoutStatus leaves out what `get` shows of a resource beside what was
// written: who applies that again means the rest.
func withoutStatus(n *yaml.Node) *yaml.Node {
	out := *n
	out.Content = nil
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != "status" {
			out.Content = append(out.Content, n.Content[i], n.Content[i+1])
		}
	}
	return &out
}

// envelope checks apiVersion and kind, and that there is a name and a spec.
func (r *reader) envelope(n *yaml.Node, fields map[string]*yaml.Node) Kind {
	if v := scalarText(fields["apiVersion"]); v != APIVersion {
		r.fault(or(fields["apiVersion"], n), "apiVersion", "wants %q", APIVersion)
	}
	kind := Kind(scalarText(fields["kind"]))
	if _, known := specField[kind]; !known {
		r.fault(or(fields["kind"], n), "kind", "unknown kind %q; the kinds are %s", clip(string(kind)), KindNames())
		return ""
	}
	if fields["metadata"] == nil {
		r.fault(n, "metadata", "is missing; it holds the name")
	}
	if fields["spec"] == nil {
		r.fault(n, "spec", "is missing")
	}
	return kind
}

// size holds the document to what one transaction can carry.
func (r *reader) size(n *yaml.Node) {
	if text := textSize(n, maxNodes); text > maxDocumentBytes {
		r.fault(n, "", "is too large (%d KiB of text; at most %d KiB): split it, or take out what is not needed", text>>10, maxDocumentBytes>>10)
	}
}

// textSize sums the scalars; indentation does not count.
func textSize(n *yaml.Node, depth int) int {
	if n == nil || depth == 0 {
		return 0
	}
	size := len(n.Value)
	for _, c := range n.Content {
		size += textSize(c, depth-1)
	}
	return size
}

// scalarText is the text of a node that may be missing, or an alias.
func scalarText(n *yaml.Node) string {
	switch {
	case n == nil:
		return ""
	case n.Kind == yaml.AliasNode:
		return n.Alias.Value
	}
	return n.Value
}

func or(a, b *yaml.Node) *yaml.Node {
	if a != nil {
		return a
	}
	return b
}
