package envoy

import (
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/structpb"
)

// redacted stands where a shared secret is.
const redacted = "[redacted]"

// JSON is what an operator is shown of a resource: the names of fields as in
// Envoy's config dump, what is inside an Any with its type, and no shared
// secret. Types that this package never makes are an error.
func JSON(typeURL string, body []byte) (*structpb.Struct, error) {
	t, err := protoregistry.GlobalTypes.FindMessageByURL(typeURL)
	if err != nil {
		return nil, fmt.Errorf("showing a resource of type %s: %w", typeURL, err)
	}
	m := t.New().Interface()
	if err := proto.Unmarshal(body, m); err != nil {
		return nil, fmt.Errorf("decoding a resource of type %s: %w", typeURL, err)
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("showing a resource of type %s: %w", typeURL, err)
	}
	out := new(structpb.Struct)
	if err := protojson.Unmarshal(text, out); err != nil {
		return nil, fmt.Errorf("showing a resource of type %s: %w", typeURL, err)
	}
	redact(structpb.NewStructValue(out))
	return out, nil
}

// redact looks for local_jwks anywhere below v.
func redact(v *structpb.Value) {
	for _, e := range v.GetListValue().GetValues() {
		redact(e)
	}
	for name, f := range v.GetStructValue().GetFields() {
		if name != "local_jwks" {
			redact(f)
			continue
		}
		for source, text := range f.GetStructValue().GetFields() {
			f.GetStructValue().Fields[source] = structpb.NewStringValue(redactJWKS(source, text.GetStringValue()))
		}
	}
}

// redactJWKS leaves out `k` (RFC 7518 section 6.4.1), and whatever a key must
// not have when it is only to verify. What can't be read is left out whole.
func redactJWKS(source, text string) string {
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if source != "inline_string" || json.Unmarshal([]byte(text), &set) != nil {
		return redacted
	}
	for _, key := range set.Keys {
		for _, member := range []string{"k", "d", "p", "q", "dp", "dq", "qi", "oth"} {
			if _, ok := key[member]; ok {
				key[member] = redacted
			}
		}
	}
	out, err := json.Marshal(set)
	if err != nil {
		return redacted
	}
	return string(out)
}
