package policy

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Bounds of what is read: values and names of fields of one document, entries of
// one list, and faults, which nobody reads on after so many.
const (
	maxNodes   = 100_000
	maxEntries = 1024
	maxFaults  = 200
)

// reader fills proto messages from YAML nodes by their descriptors. It is used
// instead of protojson because that stops at the first fault and knows no
// lines.
type reader struct {
	source string
	key    Key
	lines  map[string]int
	faults []Fault
	// budget is how many values and names of fields may still be read, bytes how
	// much text they had; aliases count as what they stand for.
	budget, bytes int
	// exhausted ends reading: too much was read, or no fault would be kept.
	exhausted bool
}

func newResource(kind Kind) *policyv1.Resource {
	res := &policyv1.Resource{Metadata: &policyv1.Metadata{}}
	m := res.ProtoReflect()
	m.Mutable(m.Descriptor().Fields().ByName(protoreflect.Name(specField[kind])))
	return res
}

// specOf returns the spec that is set, for writing.
func specOf(res *policyv1.Resource) protoreflect.Message {
	m := res.ProtoReflect()
	fd := m.WhichOneof(m.Descriptor().Oneofs().ByName("spec"))
	return m.Mutable(fd).Message()
}

// fault keeps a fault. With the last that is kept reading ends.
func (r *reader) fault(n *yaml.Node, field, format string, args ...any) {
	if len(r.faults) == maxFaults {
		return
	}
	r.faults = append(r.faults, Fault{Source: r.source, Line: n.Line, Field: field, Message: fmt.Sprintf(format, args...)})
	r.exhausted = r.exhausted || len(r.faults) == maxFaults
}

// charge counts a value or the name of a field against what may be read; false
// if that is used up.
func (r *reader) charge(n *yaml.Node, field string) bool {
	r.budget--
	r.bytes += len(n.Value)
	switch {
	case r.exhausted:
	case r.budget <= 0:
		r.exhausted = true
		r.fault(n, field, "is too large: over %d values", maxNodes)
	case r.bytes > maxDocumentBytes:
		r.exhausted = true
		r.fault(n, field, "is too large: over %d KiB of text, with what aliases stand for", maxDocumentBytes>>10)
	}
	return !r.exhausted
}

// spend charges a value and follows an alias; nil if nothing more is to be read.
func (r *reader) spend(n *yaml.Node, field string) *yaml.Node {
	if !r.charge(n, field) {
		return nil
	}
	if n.Kind == yaml.AliasNode {
		return r.spend(n.Alias, field)
	}
	return n
}

// mapping returns the values of an object by name; a name that is repeated or
// not allowed is a fault. A nil list of names allows all.
func (r *reader) mapping(n *yaml.Node, path string, allowed []string) map[string]*yaml.Node {
	out := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, value := n.Content[i], n.Content[i+1]
		// Charged at the object: the name may be all that is too large.
		if !r.charge(name, path) {
			break
		}
		field := join(path, name.Value)
		switch {
		case out[name.Value] != nil:
			r.fault(name, field, "is given twice")
		case allowed != nil && !slices.Contains(allowed, name.Value):
			r.fault(name, field, "unknown field; the fields here are %s", strings.Join(allowed, ", "))
		default:
			r.lines[field] = name.Line
			out[name.Value] = value
		}
	}
	return out
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func (r *reader) message(n *yaml.Node, path string, m protoreflect.Message) {
	if n == nil {
		return
	}
	if n = r.spend(n, path); n == nil || r.null(n, path) {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.fault(n, path, "wants an object, not %s", r.describe(path, n))
		return
	}
	fds := m.Descriptor().Fields()
	var names []string
	for i := range fds.Len() {
		names = append(names, fds.Get(i).JSONName())
	}
	values := r.mapping(n, path, names)
	for i := range fds.Len() {
		fd := fds.Get(i)
		if v := values[fd.JSONName()]; v != nil {
			r.oneof(v, join(path, fd.JSONName()), m, fd)
			r.field(v, join(path, fd.JSONName()), m, fd)
		}
	}
}

// oneof refuses a second member of a choice.
func (r *reader) oneof(n *yaml.Node, path string, m protoreflect.Message, fd protoreflect.FieldDescriptor) {
	choice := fd.ContainingOneof()
	if choice == nil {
		return
	}
	if other := m.WhichOneof(choice); other != nil {
		r.fault(n, path, "can't be given together with %s", other.JSONName())
	}
}

func (r *reader) field(n *yaml.Node, path string, m protoreflect.Message, fd protoreflect.FieldDescriptor) {
	if n = r.spend(n, path); n == nil || r.null(n, path) {
		return
	}
	switch {
	case fd.IsMap():
		r.labels(n, path, m.Mutable(fd).Map())
	case fd.IsList():
		r.list(n, path, m.Mutable(fd).List(), fd)
	case fd.Message() != nil:
		m.Set(fd, r.nested(n, path, m.NewField(fd)))
	default:
		if v, ok := r.scalar(n, path, fd); ok {
			m.Set(fd, v)
		}
	}
}

// null refuses a field without a value. Taken for absent, a `from:` whose lines
// were lost would match every caller.
func (r *reader) null(n *yaml.Node, path string) bool {
	if !isScalar(n, "!!null") {
		return false
	}
	r.fault(n, path, "has no value: give one, or leave the field out")
	return true
}

func (r *reader) list(n *yaml.Node, path string, l protoreflect.List, fd protoreflect.FieldDescriptor) {
	if n.Kind != yaml.SequenceNode {
		r.fault(n, path, "wants a list, not %s", r.describe(path, n))
		return
	}
	switch {
	case len(n.Content) > maxEntries:
		r.fault(n, path, "has %d entries; at most %d", len(n.Content), maxEntries)
		return
	case len(n.Content) == 0 && path != "spec.rules":
		// A template that renders nothing must not widen a rule. (No rules at
		// all is narrower than any.)
		r.fault(n, path, "is an empty list: give entries, or leave the field out")
	}
	for i, c := range n.Content {
		at := path + "[" + strconv.Itoa(i) + "]"
		r.lines[at] = c.Line
		if c = r.spend(c, at); c == nil {
			return
		}
		if fd.Message() != nil {
			l.Append(r.nested(c, at, l.NewElement()))
		} else if v, ok := r.scalar(c, at, fd); ok {
			l.Append(v)
		}
	}
}

// nested reads a message, among them those that YAML writes as a scalar.
func (r *reader) nested(n *yaml.Node, path string, v protoreflect.Value) protoreflect.Value {
	switch msg := v.Message().Interface().(type) {
	case *durationpb.Duration:
		r.duration(n, path, msg)
	case *structpb.Value:
		r.value(n, path, msg)
	case *policyv1.TokenLocation:
		switch {
		case isScalar(n, "!!str"): // the short form: a name alone
			msg.Name = n.Value
		case n.Kind == yaml.MappingNode:
			r.message(n, path, v.Message())
		case !r.null(n, path):
			r.fault(n, path, "wants a name, or an object with name and prefix, not %s", r.describe(path, n))
		}
	default:
		r.message(n, path, v.Message())
	}
	return v
}

func (r *reader) labels(n *yaml.Node, path string, m protoreflect.Map) {
	if n.Kind != yaml.MappingNode {
		r.fault(n, path, "wants an object of strings, not %s", r.describe(path, n))
		return
	}
	values := r.mapping(n, path, nil)
	for _, name := range slices.Sorted(maps.Keys(values)) {
		v := r.spend(values[name], join(path, name))
		switch {
		case v == nil:
			return
		case !isScalar(v, "!!str"):
			r.fault(v, join(path, name), "wants a string, not %s%s", r.describe(path, v), quoteHint(v))
		default:
			m.Set(protoreflect.ValueOfString(name).MapKey(), protoreflect.ValueOfString(v.Value))
		}
	}
}

// isScalar says whether a node is a scalar of a tag; a tag alone may stand
// before an object too.
func isScalar(n *yaml.Node, tag string) bool { return n.Kind == yaml.ScalarNode && n.Tag == tag }

// describe says what a node is, for faults; of what may be a key or a secret,
// only its type.
func (r *reader) describe(path string, n *yaml.Node) string {
	secret := strings.Contains(path, "keySet") || strings.HasPrefix(path, "spec.credentials")
	if n.Kind == yaml.ScalarNode && secret {
		return "what is there"
	}
	return describe(n)
}

// describe says what a node is, for faults.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "an object"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.Tag {
	case "!!str":
		return "the string " + strconv.Quote(clip(n.Value))
	case "!!null":
		return "nothing"
	}
	what := map[string]string{"!!int": "number", "!!float": "number", "!!bool": "boolean"}[n.Tag]
	return "the " + cmp.Or(what, "value") + " " + clip(n.Value)
}

func clip(s string) string {
	const most = 40
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}

func (r *reader) scalar(n *yaml.Node, path string, fd protoreflect.FieldDescriptor) (protoreflect.Value, bool) {
	none := protoreflect.Value{}
	switch fd.Kind() {
	case protoreflect.StringKind:
		if isScalar(n, "!!str") {
			return protoreflect.ValueOfString(n.Value), true
		}
		r.fault(n, path, "wants a string, not %s%s", r.describe(path, n), quoteHint(n))
	case protoreflect.BoolKind:
		var b bool
		if isScalar(n, "!!bool") && n.Decode(&b) == nil {
			return protoreflect.ValueOfBool(b), true
		}
		r.fault(n, path, "wants true or false, not %s", r.describe(path, n))
	case protoreflect.Uint32Kind, protoreflect.Int64Kind:
		return r.integer(n, path, fd)
	case protoreflect.EnumKind:
		return r.enum(n, path, fd.Enum())
	default:
		r.fault(n, path, "has a type that this version can't read")
	}
	return none, false
}

func quoteHint(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode {
		return "; quote it"
	}
	return ""
}

func (r *reader) integer(n *yaml.Node, path string, fd protoreflect.FieldDescriptor) (protoreflect.Value, bool) {
	// 64-bit integers may be strings, as in the JSON form of protobuf.
	i, err := strconv.ParseInt(n.Value, 10, 64)
	if n.Kind != yaml.ScalarNode || err != nil || i < 0 || (fd.Kind() == protoreflect.Uint32Kind && i > math.MaxUint32) {
		r.fault(n, path, "wants a whole number, not %s", r.describe(path, n))
		return protoreflect.Value{}, false
	}
	if fd.Kind() == protoreflect.Uint32Kind {
		return protoreflect.ValueOfUint32(uint32(i)), true
	}
	return protoreflect.ValueOfInt64(i), true
}

func (r *reader) enum(n *yaml.Node, path string, ed protoreflect.EnumDescriptor) (protoreflect.Value, bool) {
	var names []string
	for i := 1; i < ed.Values().Len(); i++ {
		v := ed.Values().Get(i)
		if n.Kind == yaml.ScalarNode && n.Value == string(v.Name()) {
			return protoreflect.ValueOfEnum(v.Number()), true
		}
		names = append(names, string(v.Name()))
	}
	r.fault(n, path, "wants one of %s, not %s", strings.Join(names, ", "), r.describe(path, n))
	return protoreflect.Value{}, false
}

func (r *reader) duration(n *yaml.Node, path string, d *durationpb.Duration) {
	v, err := time.ParseDuration(n.Value)
	if n.Kind != yaml.ScalarNode || err != nil {
		r.fault(n, path, `wants a duration such as "30s", "5m" or "1h30m", not %s`, r.describe(path, n))
		return
	}
	proto.Merge(d, durationpb.New(v))
}

// value reads what a claim may be compared with.
func (r *reader) value(n *yaml.Node, path string, v *structpb.Value) {
	var b bool
	switch {
	case isScalar(n, "!!str"):
		proto.Merge(v, structpb.NewStringValue(n.Value))
	case isScalar(n, "!!bool") && n.Decode(&b) == nil:
		proto.Merge(v, structpb.NewBoolValue(b))
	case isScalar(n, "!!int") || isScalar(n, "!!float"):
		r.number(n, path, v)
	default:
		r.fault(n, path, wantsValue, r.describe(path, n))
	}
}

const wantsValue = "wants a string, a number or a boolean, not %s"

// number reads a number as JSON has it. From 2^53 on several integers are one
// there, so that rounding can't hide what is too large: 2^53 + 1 becomes 2^53.
func (r *reader) number(n *yaml.Node, path string, v *structpb.Value) {
	var f float64
	switch err := n.Decode(&f); {
	case err != nil || math.IsInf(f, 0) || math.IsNaN(f):
		r.fault(n, path, wantsValue, r.describe(path, n))
	case math.Abs(f) >= 1<<53:
		r.fault(n, path, "%s can't be compared exactly: numbers in JSON are exact below 2^53", clip(n.Value))
	default:
		proto.Merge(v, structpb.NewNumberValue(f))
	}
}
