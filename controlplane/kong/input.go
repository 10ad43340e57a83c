package kong

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/watchword-mesh/watchword/controlplane/policy"
)

// given is a field of a request: left out, null, or a value.
type given[T any] struct {
	there, null bool
	value       T
}

// set says whether the field has a value.
func (g given[T]) set() bool { return g.there && !g.null }

// input reads the fields of a body, and notes what is wrong with them.
type input struct {
	values map[string]any
	violations
}

type consumerInput struct {
	violations
	id, username, customID given[string]
	tags                   given[[]string]
	createdAt              given[int64]
	// What is left out is null: a PUT.
	whole bool
}

type credentialInput struct {
	violations
	id, key, secret, algorithm, publicKey given[string]
	base64                                given[bool]
	tags                                  given[[]string]
	createdAt                             given[int64]
	// The consumer, by one of id and username.
	consumer given[reference]
}

type reference struct{ field, value string }

func readConsumer(values map[string]any) consumerInput {
	in := &input{values: maps.Clone(values)}
	out := consumerInput{id: in.id(), username: in.text("username"), customID: in.text("custom_id"), tags: in.tags(), createdAt: in.seconds("created_at")}
	in.seconds("updated_at")
	out.violations = in.rest()
	return out
}

func readCredential(values map[string]any) credentialInput {
	in := &input{values: maps.Clone(values)}
	out := credentialInput{id: in.id(), key: in.text("key"), secret: in.text("secret"), algorithm: in.algorithm(), publicKey: in.text("rsa_public_key"),
		base64: in.flag("secret_is_base64"), tags: in.tags(), createdAt: in.seconds("created_at"), consumer: in.reference()}
	in.noReference("key", out.key)
	in.noReference("secret", out.secret)
	in.noReference("rsa_public_key", out.publicKey)
	out.violations = in.rest()
	return out
}

// noReference refuses what Kong or deck would put the value in for: taken as it
// is, whoever knows the reference would know the secret.
func (in *input) noReference(name string, g given[string]) {
	if strings.Contains(g.value, "{vault://") || strings.Contains(g.value, "${{") {
		in.add(name, "refers to a vault or the environment: give the value itself")
	}
}

// take removes a field, so that what is left is unknown.
func (in *input) take(name string) (value any, there bool) {
	value, there = in.values[name]
	delete(in.values, name)
	return value, there
}

func (in *input) rest() violations {
	for name := range in.values {
		if !utf8.ValidString(name) || len(name) > 64 {
			in.addEntity("a field has a name that can't be one")
			break
		}
		in.add(name, "unknown field")
	}
	return in.violations
}

func (in *input) text(name string) given[string] {
	value, there := in.take(name)
	if value == nil {
		return given[string]{there: there, null: true}
	}
	text, isText := value.(string)
	switch {
	case !isText:
		in.add(name, "expected a string")
	case text == "":
		in.add(name, "length must be at least 1")
	case !utf8.ValidString(text):
		in.add(name, "invalid utf-8")
	}
	return given[string]{there: true, value: text}
}

var uuidText = regexp.MustCompile(`^(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func isUUID(s string) bool { return uuidText.MatchString(s) }

func (in *input) id() given[string] {
	g := in.text("id")
	g.value = strings.ToLower(g.value)
	return g
}

func (in *input) algorithm() given[string] {
	g := in.text("algorithm")
	if g.set() && !slices.Contains(policy.Algorithms, g.value) {
		in.add("algorithm", "expected one of: %s", strings.Join(policy.Algorithms, ", "))
	}
	return g
}

func (in *input) flag(name string) given[bool] {
	value, there := in.take(name)
	switch v := value.(type) {
	case nil:
		return given[bool]{there: there, null: true}
	case bool:
		return given[bool]{there: true, value: v}
	case string: // of a form
		if v == "true" || v == "false" {
			return given[bool]{there: true, value: v == "true"}
		}
	}
	in.add(name, "expected a boolean")
	return given[bool]{}
}

// seconds reads a time that Kong has shown before.
func (in *input) seconds(name string) given[int64] {
	value, there := in.take(name)
	var text string
	switch v := value.(type) {
	case nil:
		return given[int64]{there: there, null: true}
	case json.Number:
		text = v.String()
	case string:
		text = v
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		in.add(name, "expected an integer")
	}
	return given[int64]{there: true, value: n}
}

// reference reads the consumer of a credential, by id or else by username.
func (in *input) reference() given[reference] {
	value, there := in.take("consumer")
	if value == nil {
		return given[reference]{there: there, null: true}
	}
	members, isRecord := value.(map[string]any)
	if !isRecord {
		in.add("consumer", "expected a record with id or username")
		return given[reference]{}
	}
	for _, field := range []string{"id", "username"} {
		if text, isText := members[field].(string); isText && text != "" && utf8.ValidString(text) {
			return given[reference]{there: true, value: reference{field, text}}
		}
	}
	in.add("consumer", "expected a record with id or username")
	return given[reference]{}
}

// tags reads a set: a list, or in a form one text, perhaps with commas, which
// no tag has.
func (in *input) tags() given[[]string] {
	value, there := in.take("tags")
	var list []any
	switch v := value.(type) {
	case nil:
		return given[[]string]{there: there, null: true}
	case string:
		for part := range strings.SplitSeq(v, ",") {
			list = append(list, part)
		}
	case []any:
		list = v
	default:
		in.add("tags", "expected a set")
	}
	out := []string{}
	for _, item := range list {
		tag, isText := item.(string)
		if !isText {
			in.add("tags", "expected a set of strings")
			break
		}
		if !validTag(tag) {
			in.add("tags", "invalid tag %q: expected printable ascii (except `,` and `/`) or valid utf-8 sequences", clip(tag))
			break
		}
		if !slices.Contains(out, tag) {
			out = append(out, tag)
		}
	}
	return given[[]string]{there: true, value: out}
}

func validTag(tag string) bool {
	return tag != "" && utf8.ValidString(tag) && !strings.ContainsFunc(tag, func(r rune) bool { return r < ' ' || r == 0x7f || r == ',' || r == '/' })
}

// clip shortens what a request said for an answer.
func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
