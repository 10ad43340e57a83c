package policy

import (
	"encoding/json"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Redacted stands where a secret was left out. No field accepts it, so that
// what was read with redaction can't be applied by accident.
const Redacted = "[redacted]"

// Manifest returns the form that users write, secrets redacted.
func Manifest(r *policyv1.Resource) *structpb.Struct {
	r = proto.CloneOf(r)
	redact(r)
	fields := map[string]*structpb.Value{
		"apiVersion": structpb.NewStringValue(APIVersion),
		"kind":       structpb.NewStringValue(string(KeyOf(r).Kind)),
		"metadata":   structpb.NewStructValue(structOf(r.GetMetadata().ProtoReflect())),
		"spec":       structpb.NewStructValue(structOf(specOf(r))),
	}
	return &structpb.Struct{Fields: fields}
}

func structOf(m protoreflect.Message) *structpb.Struct {
	out := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		out.Fields[fd.JSONName()] = valueOf(fd, v)
		return true
	})
	return out
}

func valueOf(fd protoreflect.FieldDescriptor, v protoreflect.Value) *structpb.Value {
	switch {
	case fd.IsMap():
		fields := map[string]*structpb.Value{}
		v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
			fields[k.String()] = structpb.NewStringValue(v.String())
			return true
		})
		return structpb.NewStructValue(&structpb.Struct{Fields: fields})
	case fd.IsList():
		list := &structpb.ListValue{}
		for i := range v.List().Len() {
			list.Values = append(list.Values, singleOf(fd, v.List().Get(i)))
		}
		return structpb.NewListValue(list)
	}
	return singleOf(fd, v)
}

func singleOf(fd protoreflect.FieldDescriptor, v protoreflect.Value) *structpb.Value {
	switch fd.Kind() {
	case protoreflect.MessageKind:
		switch m := v.Message().Interface().(type) {
		case *durationpb.Duration:
			return structpb.NewStringValue(DurationText(m))
		case *structpb.Value:
			return m
		}
		return structpb.NewStructValue(structOf(v.Message()))
	case protoreflect.EnumKind:
		return structpb.NewStringValue(string(fd.Enum().Values().ByNumber(v.Enum()).Name()))
	case protoreflect.BoolKind:
		return structpb.NewBoolValue(v.Bool())
	case protoreflect.StringKind:
		return structpb.NewStringValue(v.String())
	case protoreflect.Uint32Kind:
		return structpb.NewNumberValue(float64(v.Uint()))
	default:
		return structpb.NewNumberValue(float64(v.Int()))
	}
}

// DurationText is Go's form without the zeros at its end: 5m, not 5m0s.
func DurationText(d *durationpb.Duration) string {
	s := d.AsDuration().String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// HasSecrets says whether the resource holds shared secrets or private keys,
// which must not be stored or shown in clear.
func HasSecrets(r *policyv1.Resource) bool {
	return slices.ContainsFunc(keySets(r), func(set *policyv1.KeySet) bool { return redactSet(proto.CloneOf(set)) })
}

func redact(r *policyv1.Resource) {
	for _, set := range keySets(r) {
		redactSet(set)
	}
}

// keySets returns the key sets of a resource.
func keySets(r *policyv1.Resource) []*policyv1.KeySet {
	sets := []*policyv1.KeySet{r.GetIssuer().GetKeySet(), r.GetService().GetSelfIssued().GetKeySet()}
	for _, c := range r.GetConsumer().GetCredentials() {
		sets = append(sets, c.GetKeySet())
	}
	return slices.DeleteFunc(sets, func(set *policyv1.KeySet) bool { return set == nil })
}

// redactSet replaces the secrets of a key set; found says that there was one.
func redactSet(set *policyv1.KeySet) (found bool) {
	hide := func(text *string, secret bool) {
		if secret && *text != "" {
			*text, found = Redacted, true
		}
	}
	switch s := set.GetSource().(type) {
	case *policyv1.KeySet_Jwks:
		s.Jwks, found = redactJWKS(s.Jwks)
	case *policyv1.KeySet_Pem:
		for _, k := range s.Pem.GetKeys() {
			hide(&k.Pem, strings.Contains(k.GetPem(), "PRIVATE KEY"))
		}
	case *policyv1.KeySet_Secret:
		for _, k := range s.Secret.GetKeys() {
			hide(&k.Secret, true)
		}
	case *policyv1.KeySet_JwksUri:
		hide(&s.JwksUri.ClientKey, true)
		hide(&s.JwksUri.ClientCertificate, strings.Contains(s.JwksUri.GetClientCertificate(), "PRIVATE KEY"))
	}
	return found
}

// harmless are the members of a key with a secret that may be shown.
var harmless = []string{"kty", "kid", "alg", "use", "key_ops"}

// holdsPrivate says whether a key has a private or symmetric member (RFC 7518
// section 6), whatever its type says.
func holdsPrivate(k map[string]any) bool {
	for _, member := range []string{"k", "d", "p", "q", "dp", "dq", "qi", "oth"} {
		if _, ok := k[member]; ok {
			return true
		}
	}
	return false
}

// redactJWKS replaces the secrets of symmetric keys, and leaves a text without
// any as it is. One that does not parse counts as secret whole.
func redactJWKS(text string) (string, bool) {
	if text == "" {
		return "", false
	}
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if err := json.Unmarshal([]byte(text), &set); err != nil {
		return Redacted, true
	}
	secret := false
	for _, k := range set.Keys {
		if k["kty"] != "oct" && !holdsPrivate(k) {
			continue
		}
		secret = true
		for member := range k {
			if !slices.Contains(harmless, member) {
				k[member] = Redacted
			}
		}
	}
	if !secret {
		return text, false
	}
	out, err := json.Marshal(set)
	if err != nil {
		return Redacted, true
	}
	return string(out), true
}
