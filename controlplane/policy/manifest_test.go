package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// What is read back from a manifest, through JSON, is the resource: for every
// kind and every field that the protos have.
func TestManifestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := newResource(rapid.SampledFrom(Kinds).Draw(t, "kind"))
		draw(t, want.GetMetadata().ProtoReflect())
		draw(t, specOf(want))
		roundTrip(t, want)
	})
}

func roundTrip(t *rapid.T, want *policyv1.Resource) {
	text := jsonOf(t, want)
	redact(want) // which is what a manifest shows of secrets
	objects, faults := read(text)
	if len(objects) != 1 || len(faults) > 0 {
		t.Fatalf("Parse(%s) = %d objects, faults %s", text, len(objects), shown(faults))
	}
	if diff := cmp.Diff(want, objects[0].Resource, protocmp.Transform()); diff != "" {
		t.Fatalf("Parse(%s) -want +got:\n%s", text, diff)
	}
	if objects[0].Key != KeyOf(want) {
		t.Fatalf("Parse(%s) has the key %s, want %s", text, objects[0].Key, KeyOf(want))
	}
}

// texts has what YAML could take for something else.
var texts = []string{"", "a", "yes", "null", "~", "1", "-1.5", "1e3", ".inf", "true", "2020-01-01", "<<", "*a", "&a", "!x", "# c",
	"a: b", "- a", "[a]", "{a}", `"`, `'`, `\`, "a\nb\n", "\t", "\r\n", " a ", "é", "😀", "\u2028", "<&>", "%", "@", "`", "---", "..."}

// draw fills a message by its descriptor, so that a new field is tested on the
// day on which it is made.
func draw(t *rapid.T, m protoreflect.Message) {
	fds := m.Descriptor().Fields()
	for i := range fds.Len() {
		fd := fds.Get(i)
		label := string(fd.Name())
		if o := fd.ContainingOneof(); rapid.Bool().Draw(t, label+"?") || (o != nil && m.WhichOneof(o) != nil) {
			continue
		}
		switch {
		case fd.IsMap():
			for _, k := range rapid.SliceOfN(rapid.SampledFrom(texts), 0, 3).Draw(t, label) {
				m.Mutable(fd).Map().Set(protoreflect.ValueOfString(k).MapKey(), protoreflect.ValueOfString(rapid.SampledFrom(texts).Draw(t, label)))
			}
		case fd.IsList():
			list := m.Mutable(fd).List()
			for range rapid.IntRange(0, 3).Draw(t, label) {
				list.Append(one(t, label, fd, list.NewElement()))
			}
		default:
			m.Set(fd, one(t, label, fd, m.NewField(fd)))
		}
	}
}

// one draws a single value; fresh is an empty one for messages.
func one(t *rapid.T, label string, fd protoreflect.FieldDescriptor, fresh protoreflect.Value) protoreflect.Value {
	switch fd.Kind() {
	case protoreflect.StringKind:
		if fd.Name() == "jwks" { // of which a manifest redacts what it can't read
			return protoreflect.ValueOfString(`{"keys":[{"kty":"EC","x":"a"}], "z": 1e30}`)
		}
		return protoreflect.ValueOfString(rapid.SampledFrom(texts).Draw(t, label))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(rapid.Bool().Draw(t, label))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(rapid.Uint32().Draw(t, label))
	case protoreflect.Int64Kind: // JSON numbers are exact up to here
		return protoreflect.ValueOfInt64(rapid.Int64Range(0, 1<<53).Draw(t, label))
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(rapid.IntRange(1, fd.Enum().Values().Len()-1).Draw(t, label)))
	}
	switch v := fresh.Message().Interface().(type) {
	case *durationpb.Duration:
		d := rapid.SampledFrom([]time.Duration{0, 1, time.Microsecond, time.Second, time.Minute, 90 * time.Second, time.Hour, 10 * time.Hour,
			90 * time.Minute, -time.Second, 3661 * time.Second, 240 * time.Hour, 1500 * time.Millisecond}).Draw(t, label)
		proto.Merge(v, durationpb.New(d))
	case *structpb.Value:
		proto.Merge(v, rapid.SampledFrom([]*structpb.Value{structpb.NewBoolValue(true), structpb.NewBoolValue(false), structpb.NewNumberValue(0),
			structpb.NewNumberValue(-1.5), structpb.NewNumberValue(1e15), structpb.NewNumberValue(1<<53 - 1), structpb.NewStringValue("1"),
			structpb.NewStringValue(""), structpb.NewStringValue("true")}).Draw(t, label))
	default:
		draw(t, fresh.Message())
	}
	return fresh
}

const secretSet = `{"keys":[{"kty":"oct","kid":"s","alg":"HS256","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0MDE"}]}`

func withKeys(jwks string) *policyv1.Resource {
	return &policyv1.Resource{
		Metadata: &policyv1.Metadata{Name: "shared"},
		Spec:     &policyv1.Resource_Issuer{Issuer: &policyv1.IssuerSpec{Issuer: "https://shared", KeySet: &policyv1.KeySet{Source: &policyv1.KeySet_Jwks{Jwks: jwks}}}},
	}
}

// A shared secret never leaves, and what was shown in its place is refused when
// it is applied: a key set can't be lost by editing what `get` printed.
func TestManifestRedactsSecrets(t *testing.T) {
	r := withKeys(secretSet)
	if faults := Check(State{KeyOf(r): r}); len(faults) > 0 {
		t.Fatalf("faults of %s: %v", secretSet, faults)
	}
	before := proto.CloneOf(r)
	text := jsonOf(t, r)
	if strings.Contains(text, "c2VjcmV0") || !strings.Contains(text, Redacted) {
		t.Errorf("the manifest shows the secret, or not that it left it out:\n%s", text)
	}
	if !proto.Equal(before, r) {
		t.Errorf("Manifest changed the resource to %v", r)
	}
	if got := shown(faultsOf([]Document{{Source: "again.json", Content: text}})); !strings.Contains(got, "spec.keySet.jwks: holds [redacted]") {
		t.Errorf("applied again, %s has the faults %q; want that k is refused", text, got)
	}
}

// HasSecrets decides what is sealed at rest: a secret of any form, and all that
// can't be told.
func TestHasSecrets(t *testing.T) {
	for jwks, want := range map[string]bool{
		secretSet: true,
		`{"keys":[{"kty":"EC","x":"a","y":"b"}]}`:              false,
		`{"keys":[{"kty":"EC","x":"a"},{"kty":"EC","d":"b"}]}`: true,
		`{"keys":[{"kty":"RSA","dp":"b"}]}`:                    true,
		`{"keys":[]}`:                                          false,
		`{"keys":7}`:                                           true,
		`not JSON`:                                             true,
		`{"keys":[7]}`:                                         true,
	} {
		for where, r := range holders(&policyv1.KeySet{Source: &policyv1.KeySet_Jwks{Jwks: jwks}}) {
			if got := HasSecrets(r); got != want {
				t.Errorf("HasSecrets(%s in %s) = %t, want %t", jwks, where, got, want)
			}
			if text := jsonOf(t, r); want == strings.Contains(text, strings.ReplaceAll(jwks, `"`, `\"`)) {
				t.Errorf("the manifest of %s in %s is %s", jwks, where, text)
			}
		}
	}
	if r := (&policyv1.Resource{Spec: &policyv1.Resource_Service{}}); HasSecrets(r) {
		t.Error("HasSecrets of a Service = true")
	}
}

// holders are the resources that can hold a key set.
func holders(set *policyv1.KeySet) map[string]*policyv1.Resource {
	issuer := withKeys("")
	issuer.GetIssuer().KeySet = set
	return map[string]*policyv1.Resource{
		"an issuer": issuer,
		"a consumer": {Metadata: &policyv1.Metadata{Name: "c"}, Spec: &policyv1.Resource_Consumer{Consumer: &policyv1.ConsumerSpec{
			Username: "c", Credentials: []*policyv1.Credential{{Key: "first"}, {Key: "second", KeySet: set}}}}},
		"a self-issuing service": {Metadata: &policyv1.Metadata{Name: "s"}, Spec: &policyv1.Resource_Service{Service: &policyv1.ServiceSpec{
			SelfIssued: &policyv1.SelfIssued{Issuer: "s", KeySet: set}}}},
	}
}

// Every place of a secret: it is sealed, it isn't shown, what is shown in its
// place is refused, and the resource itself stays.
func TestSecretsInEveryPlace(t *testing.T) {
	const secret = "a-secret-of-thirty-two-characters"
	for name, tt := range map[string]struct {
		set   *policyv1.KeySet
		field string // where it is refused, after spec.keySet of an issuer
	}{
		"jwks":   {&policyv1.KeySet{Source: &policyv1.KeySet_Jwks{Jwks: `{"keys":[{"kty":"oct","k":"` + secret + `"}]}`}}, ".jwks"},
		"secret": {&policyv1.KeySet{Source: &policyv1.KeySet_Secret{Secret: &policyv1.SecretKeys{Keys: []*policyv1.SecretKey{{Secret: secret}}}}}, ".secret.keys[0].secret"},
		"jwksUri.clientKey": {&policyv1.KeySet{Source: &policyv1.KeySet_JwksUri{JwksUri: &policyv1.JwksUri{
			Uri: "https://a.example/", ClientCertificate: "c", ClientKey: secret}}}, ".jwksUri.clientKey"},
		"jwksUri.clientCertificate": {&policyv1.KeySet{Source: &policyv1.KeySet_JwksUri{JwksUri: &policyv1.JwksUri{
			Uri: "https://a.example/", ClientCertificate: "-----BEGIN PRIVATE KEY-----" + secret}}}, ".jwksUri.clientKey"},
		"pem": {&policyv1.KeySet{Source: &policyv1.KeySet_Pem{Pem: &policyv1.PemKeys{Keys: []*policyv1.PemKey{
			{Pem: "-----BEGIN PRIVATE KEY-----\n" + secret + "\n-----END PRIVATE KEY-----"}}}}}, ".pem.keys[0].pem"},
	} {
		for where, r := range holders(tt.set) {
			before := proto.CloneOf(r)
			text := jsonOf(t, r)
			if !HasSecrets(r) || strings.Contains(text, secret) || !strings.Contains(text, Redacted) {
				t.Errorf("%s in %s: HasSecrets = %t, the manifest is %s", name, where, HasSecrets(r), text)
			}
			if !proto.Equal(before, r) {
				t.Errorf("%s in %s: Manifest changed the resource to %v", name, where, r)
			}
			got := shown(faultsOf([]Document{{Source: "again.json", Content: text}}))
			if where == "an issuer" && !strings.Contains(got, "spec.keySet"+tt.field+": ") {
				t.Errorf("applied again, %s has the faults %q; want one of spec.keySet%s", text, got, tt.field)
			}
			if got == "" || strings.Contains(got, secret) {
				t.Errorf("applied again, %s has the faults %q; want that it is refused", text, got)
			}
			if faults := shown(Check(State{KeyOf(r): r})); strings.Contains(faults, secret) {
				t.Errorf("the faults of %s in %s show it: %s", name, where, faults)
			}
		}
	}
}
