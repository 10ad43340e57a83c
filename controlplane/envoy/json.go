package envoy

import (
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/structpb"
)

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
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, fmt.Errorf("showing a resource of type %s: %w", typeURL, err)
	}
	out, err := structpb.NewStruct(redact(fields).(map[string]any))
	if err != nil {
		return nil, fmt.Errorf("showing a resource of type %s: %w", typeURL, err)
	}
	return out, nil
}
