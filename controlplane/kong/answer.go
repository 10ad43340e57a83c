package kong

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// problem is an answer that is not the one that was hoped for.
type problem struct {
	status int
	body   any
}

// fault is the body of an error that Kong's data layer finds.
type fault struct {
	Code    int            `json:"code"`
	Name    string         `json:"name"`
	Message string         `json:"message"`
	Fields  map[string]any `json:"fields,omitempty"`
}

// The codes of such errors.
const (
	schemaViolation     = 2
	primaryKeyViolation = 3
	foreignKeyViolation = 4
	uniqueViolation     = 5
	entityNotFound      = 6
	invalidOffset       = 7
	invalidSize         = 9
	invalidOptions      = 11
)

func said(status int, format string, args ...any) *problem {
	return &problem{status, map[string]string{"message": fmt.Sprintf(format, args...)}}
}

func notFound() *problem { return said(http.StatusNotFound, "Not found") }

// taken is the answer to a value that another entity has.
func taken(field, value string) *problem {
	return &problem{http.StatusConflict, fault{uniqueViolation, "unique constraint violation",
		fmt.Sprintf("UNIQUE violation detected on '{%s=%q}'", field, value), map[string]any{field: value}}}
}

func takenID(id string) *problem {
	return &problem{http.StatusBadRequest, fault{primaryKeyViolation, "primary key violation",
		fmt.Sprintf("primary key violation on key '{id=%q}'", id), map[string]any{"id": id}}}
}

// nothingToUpdate is the answer to a PATCH of an entity that is not there.
func nothingToUpdate(ref, endpointKey string) *problem {
	f := fault{entityNotFound, "not found", fmt.Sprintf("could not find the entity with primary key '{id=%q}'", ref), map[string]any{"id": ref}}
	if !isUUID(ref) {
		f.Message, f.Fields = fmt.Sprintf("could not find the entity with '{%s=%q}'", endpointKey, ref), map[string]any{endpointKey: ref}
	}
	return &problem{http.StatusNotFound, f}
}

// noConsumer is the answer to a credential of a consumer that is not there.
func noConsumer(field, value string) *problem {
	return &problem{http.StatusBadRequest, fault{foreignKeyViolation, "foreign key violation",
		fmt.Sprintf("the foreign key '{%s=%q}' does not reference an existing 'consumers' entity.", field, value),
		map[string]any{"consumer": map[string]string{field: value}}}}
}

// violations are what is wrong with an entity: by field, and as a whole.
type violations struct {
	fields map[string]string
	entity []string
}

func (v *violations) add(field, format string, args ...any) {
	if v.fields == nil {
		v.fields = map[string]string{}
	}
	if v.fields[field] == "" {
		v.fields[field] = fmt.Sprintf(format, args...)
	}
}

func (v *violations) addEntity(format string, args ...any) {
	v.entity = append(v.entity, fmt.Sprintf(format, args...))
}

// problem is nil if nothing is wrong.
func (v *violations) problem() *problem {
	texts := slices.Clone(v.entity)
	fields := map[string]any{}
	if len(v.entity) > 0 {
		fields["@entity"] = v.entity
	}
	for _, name := range slices.Sorted(maps.Keys(v.fields)) {
		fields[name] = v.fields[name]
		texts = append(texts, name+": "+v.fields[name])
	}
	if len(texts) == 0 {
		return nil
	}
	message := fmt.Sprintf("%d schema violations (%s)", len(texts), strings.Join(texts, "; "))
	if len(texts) == 1 {
		message = fmt.Sprintf("schema violation (%s)", texts[0])
	}
	return &problem{http.StatusBadRequest, fault{schemaViolation, "schema violation", message, fields}}
}

// write sends an answer; 204 has no body.
func write(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Cache-Control", "no-store")
	if status == http.StatusNoContent {
		w.WriteHeader(status)
		return
	}
	var text bytes.Buffer
	enc := json.NewEncoder(&text)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil { // can't be: bodies are plain
		status, text = http.StatusInternalServerError, *bytes.NewBufferString(`{"message":"An unexpected error occurred"}`)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(bytes.TrimSuffix(text.Bytes(), []byte("\n")))
}
