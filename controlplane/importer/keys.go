package importer

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/watchword-mesh/watchword/internal/jose"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// weakWarning is what is said of every key set that needs allowWeakKeys.
const weakWarning = "has weak keys (RSA below 2048 bits, or a secret shorter than its hash), which are taken as they are: allowWeakKeys"

// jwks takes over a JWK set (RFC 7517) as it is written; keys that can't be
// used are left out and named. ok is false if none is left.
func (r *run) jwks(n node, text string) (set *policyv1.KeySet, ok bool) {
	text = strings.TrimSpace(text)
	_, faults := jose.ParseSet([]byte(text), jose.SetOptions{})
	if len(faults) == 0 {
		r.withoutAlgorithm(n, text)
		return keySet(text, false), true
	}
	usable, weakFaults := jose.ParseSet([]byte(text), jose.SetOptions{AllowWeak: true})
	var bad []int
	for _, f := range weakFaults {
		if f.Index < 0 {
			r.leave(n, "no key can be used: %s", f.Message)
			return nil, false
		}
		bad = append(bad, f.Index)
		r.leave(n, "a key is left out: %s", f.Error())
	}
	if len(usable) == 0 {
		return nil, false
	}
	if len(bad) > 0 {
		text = withoutKeys(text, bad)
	}
	_, faults = jose.ParseSet([]byte(text), jose.SetOptions{})
	if len(faults) > 0 {
		r.warn(n, "%s", weakWarning)
	}
	r.withoutAlgorithm(n, text)
	return keySet(text, len(faults) > 0), true
}

func keySet(jwks string, weak bool) *policyv1.KeySet {
	if strings.Contains(jwks, "\n") {
		jwks += "\n"
	}
	return &policyv1.KeySet{Source: &policyv1.KeySet_Jwks{Jwks: jwks}, AllowWeakKeys: weak}
}

type rawSet struct {
	Keys []json.RawMessage `json:"keys"`
}

// withoutKeys leaves keys out of a set that was parsed before.
func withoutKeys(text string, bad []int) string {
	var set rawSet
	if json.Unmarshal([]byte(text), &set) != nil {
		return text
	}
	var keys []string
	for i, k := range set.Keys {
		if !slices.Contains(bad, i) {
			keys = append(keys, compact(k))
		}
	}
	return setText(keys)
}

// setText is a JWK set with one key a line.
func setText(keys []string) string {
	return "{\"keys\": [\n  " + strings.Join(keys, ",\n  ") + "\n]}"
}

func compact(raw []byte) string {
	var out bytes.Buffer
	if json.Compact(&out, raw) != nil {
		return string(raw)
	}
	return out.String()
}

// withoutAlgorithm warns of keys that other products use with every algorithm
// of their type, and we with one.
func (r *run) withoutAlgorithm(n node, text string) {
	var set struct {
		Keys []struct{ Kty, Alg string } `json:"keys"`
	}
	if json.Unmarshal([]byte(text), &set) != nil {
		return
	}
	usual := map[string]string{"RSA": "RS256", "oct": "HS256"}
	for i, k := range set.Keys {
		if alg := usual[k.Kty]; alg != "" && k.Alg == "" {
			r.warn(n, "key %d says no alg, so that it verifies %s alone; if it is for another one, add \"alg\" to it", i, alg)
		}
	}
}

// keySetText is the JWK set in a field, which may be a string or an object.
func (o object) keySetText(name string) (string, node, bool) {
	n, ok := o.at(name)
	if !ok {
		return "", n, false
	}
	if n.yaml.Kind == yaml.ScalarNode {
		text, ok := o.r.text(n)
		return text, n, ok
	}
	set := o.r.object(n)
	list, ok := set.at("keys")
	if !ok || list.yaml.Kind != yaml.SequenceNode {
		o.r.fault(n, "wants a JWK set: {\"keys\": [...]}")
		return "", n, false
	}
	var keys []string
	for _, k := range o.r.list(list) {
		var b strings.Builder
		if err := o.r.json(&b, k, 0); err != nil {
			o.r.fault(k, "%v", err)
			return "", n, false
		}
		keys = append(keys, b.String())
	}
	return setText(keys), n, true
}

// json writes a value as JSON, members in their order.
func (r *run) json(b *strings.Builder, n node, depth int) error {
	if depth > maxDepth {
		return errors.New("is nested too deep")
	}
	if n.yaml != nil && null(n.yaml) {
		b.WriteString("null")
		return nil
	}
	n, ok := r.follow(n)
	if !ok {
		return errors.New("can't be read")
	}
	switch n.yaml.Kind {
	case yaml.MappingNode:
		return r.jsonObject(b, n, depth)
	case yaml.SequenceNode:
		b.WriteByte('[')
		for i, c := range n.yaml.Content {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := r.json(b, n.child(c, ""), depth+1); err != nil {
				return err
			}
		}
		b.WriteByte(']')
		return nil
	}
	return jsonScalar(b, n.yaml)
}

func (r *run) jsonObject(b *strings.Builder, n node, depth int) error {
	b.WriteByte('{')
	for i := 0; i+1 < len(n.yaml.Content); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		writeString(b, n.yaml.Content[i].Value)
		b.WriteByte(':')
		if err := r.json(b, n.child(n.yaml.Content[i+1], ""), depth+1); err != nil {
			return err
		}
	}
	b.WriteByte('}')
	return nil
}

func jsonScalar(b *strings.Builder, y *yaml.Node) error {
	if y.Tag == "!!str" {
		writeString(b, y.Value)
		return nil
	}
	if !json.Valid([]byte(y.Value)) {
		return errors.New("holds a value that JSON does not have; quote it")
	}
	b.WriteString(y.Value)
	return nil
}

func writeString(b *strings.Builder, s string) { b.WriteString(quoted(s)) }

// quoted is a string in JSON, without the escapes that HTML wants.
func quoted(s string) string {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // a string can't fail
	return strings.TrimSuffix(out.String(), "\n")
}
