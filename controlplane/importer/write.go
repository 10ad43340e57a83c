package importer

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// What a Service without any field is explained with.
const bareService = "Only the name is known from the original: calls, routes and inbound are yours to add."

// YAML is the resources as users write them, one document each, secrets in
// clear. (policy.Manifest redacts them, and knows no order of fields.)
func (r Result) YAML() ([]byte, error) {
	if len(r.Resources) == 0 {
		return nil, nil // of which the encoder can't be closed
	}
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	enc.CompactSeqIndent()
	for _, res := range r.Resources {
		if err := enc.Encode(document(res)); err != nil {
			return nil, fmt.Errorf("writing %s: %w", res.GetMetadata().GetName(), err)
		}
	}
	if err := enc.Close(); err != nil {
		return nil, fmt.Errorf("writing YAML: %w", err)
	}
	return out.Bytes(), nil
}

// kinds in the order in which they can be stored.
var kinds = []struct{ field, kind string }{
	{"issuer", "Issuer"},
	{"consumer", "Consumer"},
	{"service", "Service"},
	{"authentication_policy", "AuthenticationPolicy"},
	{"authorization_policy", "AuthorizationPolicy"},
}

func specField(r *policyv1.Resource) protoreflect.FieldDescriptor {
	m := r.ProtoReflect()
	return m.WhichOneof(m.Descriptor().Oneofs().ByName("spec"))
}

func rank(r *policyv1.Resource) int {
	return slices.IndexFunc(kinds, func(k struct{ field, kind string }) bool { return k.field == string(specField(r).Name()) })
}

func kindOf(r *policyv1.Resource) string { return kinds[rank(r)].kind }

func document(r *policyv1.Resource) *yaml.Node {
	spec := mapping(r.ProtoReflect().Get(specField(r)).Message())
	if len(spec.Content) > 0 {
		spec.Style = 0
	}
	doc := &yaml.Node{Kind: yaml.MappingNode}
	add(doc, "apiVersion", str(policy.APIVersion))
	add(doc, "kind", str(kindOf(r)))
	add(doc, "metadata", mapping(r.GetMetadata().ProtoReflect()))
	add(doc, "spec", spec)
	if r.GetService() != nil && len(spec.Content) == 0 {
		doc.Content[0].HeadComment = bareService
	}
	return doc
}

func add(m *yaml.Node, name string, value *yaml.Node) {
	m.Content = append(m.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name}, value)
}

// first are the fields of a rule that say whose tokens it is for; in the proto
// they stand where they were added.
var first = []protoreflect.Name{"issuer", "consumers", "services", "key_claim"}

// mapping writes the fields that are set, in the order of the proto.
func mapping(m protoreflect.Message) *yaml.Node {
	if l, ok := m.Interface().(*policyv1.TokenLocation); ok && l.GetPrefix() == "" {
		return str(l.GetName())
	}
	out := &yaml.Node{Kind: yaml.MappingNode}
	for _, fd := range ordered(m.Descriptor()) {
		if m.Has(fd) {
			add(out, fd.JSONName(), field(fd, m.Get(fd)))
		}
	}
	flow(out)
	return out
}

func ordered(d protoreflect.MessageDescriptor) []protoreflect.FieldDescriptor {
	var out, rest []protoreflect.FieldDescriptor
	if d.Name() == "JwtRule" {
		for _, name := range first {
			out = append(out, d.Fields().ByName(name))
		}
	}
	for i := range d.Fields().Len() {
		if fd := d.Fields().Get(i); !slices.Contains(out, fd) {
			rest = append(rest, fd)
		}
	}
	return append(out, rest...)
}

func field(fd protoreflect.FieldDescriptor, v protoreflect.Value) *yaml.Node {
	switch {
	case fd.IsMap():
		return labels(v.Map())
	case fd.IsList():
		out := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.List().Len() {
			out.Content = append(out.Content, single(fd, v.List().Get(i)))
		}
		flow(out)
		return out
	}
	return single(fd, v)
}

func labels(m protoreflect.Map) *yaml.Node {
	var keys []string
	m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, k.String())
		return true
	})
	slices.Sort(keys)
	out := &yaml.Node{Kind: yaml.MappingNode}
	for _, k := range keys {
		add(out, k, str(m.Get(protoreflect.ValueOfString(k).MapKey()).String()))
	}
	flow(out)
	return out
}

func single(fd protoreflect.FieldDescriptor, v protoreflect.Value) *yaml.Node {
	switch fd.Kind() {
	case protoreflect.MessageKind:
		switch m := v.Message().Interface().(type) {
		case *durationpb.Duration:
			return str(policy.DurationText(m))
		case *structpb.Value:
			return value(m)
		}
		return mapping(v.Message())
	case protoreflect.EnumKind:
		return str(string(fd.Enum().Values().ByNumber(v.Enum()).Name()))
	case protoreflect.BoolKind:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v.Bool())}
	case protoreflect.StringKind:
		return str(v.String())
	default:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: v.String()}
	}
}

// value writes what a claim is compared with.
func value(v *structpb.Value) *yaml.Node {
	switch k := v.GetKind().(type) {
	case *structpb.Value_BoolValue:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(k.BoolValue)}
	case *structpb.Value_NumberValue:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!float", Value: strconv.FormatFloat(k.NumberValue, 'g', -1, 64)}
	}
	return str(v.GetStringValue())
}

// oldBooleans are strings to some readers of YAML, and booleans to others.
var oldBooleans = []string{"y", "yes", "on", "n", "no", "off"}

func str(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	switch {
	case s == "" || strings.TrimSpace(s) != strings.TrimRight(s, "\n") || slices.Contains(oldBooleans, strings.ToLower(s)):
		n.Style = yaml.DoubleQuotedStyle
	case strings.Contains(s, "\n"):
		n.Style = yaml.LiteralStyle
	}
	return n
}

// flow writes on one line what is short enough to be read there.
func flow(n *yaml.Node) {
	const most = 96
	length := 0
	for _, c := range n.Content {
		if (c.Kind != yaml.ScalarNode && c.Style&yaml.FlowStyle == 0 && len(c.Content) > 0) || c.Style&yaml.LiteralStyle != 0 {
			return
		}
		length += width(c) + 2
	}
	if length <= most {
		n.Style |= yaml.FlowStyle
	}
}

func width(n *yaml.Node) int {
	sum := len(n.Value)
	for _, c := range n.Content {
		sum += width(c) + 2
	}
	return sum
}
