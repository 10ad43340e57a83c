package jose

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Object is a JSON object with its members in their order; each name is there once, at
// every depth.
type Object []Member

// Member of an Object. Value is nil (null), bool, float64, string, []any or Object.
type Member struct {
	Name  string
	Value any
}

// Get is the value of a member; nil also where there is none.
func (o Object) Get(name string) any {
	for i := range o {
		if o[i].Name == name {
			return o[i].Value
		}
	}
	return nil
}

// Has tells whether there is such a member, be it null.
func (o Object) Has(name string) bool {
	return slices.ContainsFunc(o, func(m Member) bool { return m.Name == name })
}

// MarshalJSON writes members sorted by name, as encoding/json does those of a map, and
// leaves <, > and & as they are.
func (o Object) MarshalJSON() ([]byte, error) {
	sorted := slices.SortedFunc(slices.Values(o), func(a, b Member) int { return strings.Compare(a.Name, b.Name) })
	out := []byte{'{'}
	for i, m := range sorted {
		if i > 0 {
			out = append(out, ',')
		}
		name, err := plainJSON(m.Name)
		if err != nil {
			return nil, err
		}
		value, err := plainJSON(m.Value)
		if err != nil {
			return nil, err
		}
		out = append(append(append(out, name...), ':'), value...)
	}
	return append(out, '}'), nil
}

func plainJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimRight(b.Bytes(), "\n"), err
}

var (
	errSyntax    = errors.New("syntax error")
	errSurrogate = errors.New("a string holds half of a surrogate pair")
)

// readObject reads a JSON object in one pass, as strictly as object does: the values, too.
// Texts share memory with s.
func readObject(s string) (Object, error) {
	if !utf8.ValidString(s) {
		return nil, errors.New("not JSON: not UTF-8 text")
	}
	r := reader{text: s}
	r.space()
	v, err := r.value(0)
	if r.space(); err == nil && r.at != len(s) {
		err = errSyntax
	}
	if errors.Is(err, errSyntax) {
		return nil, fmt.Errorf("not JSON: %w at byte %d", err, min(r.at+1, len(s)))
	}
	if err != nil {
		return nil, err
	}
	o, ok := v.(Object)
	if !ok {
		return nil, errNotObject
	}
	return o, nil
}

// reader goes over text that may be anything.
type reader struct {
	text string
	at   int
}

func (r *reader) space() {
	for r.at < len(r.text) {
		switch r.text[r.at] {
		case ' ', '\t', '\r', '\n':
			r.at++
		default:
			return
		}
	}
}

// take steps over c if it comes next.
func (r *reader) take(c byte) bool {
	if r.at < len(r.text) && r.text[r.at] == c {
		r.at++
		return true
	}
	return false
}

// value reads one value; depth counts the objects and lists around it.
func (r *reader) value(depth int) (any, error) {
	if r.at == len(r.text) {
		return nil, errSyntax
	}
	switch c := r.text[r.at]; {
	case c == '"':
		return r.string()
	case c == '{', c == '[':
		if depth == maxDepth {
			return nil, fmt.Errorf("JSON nested deeper than %d", maxDepth)
		}
		if r.at++; c == '{' {
			return r.object(depth + 1)
		}
		return r.list(depth + 1)
	case c == '-' || c >= '0' && c <= '9':
		return r.number()
	}
	for _, l := range [...]struct {
		text  string
		value any
	}{{"true", true}, {"false", false}, {"null", nil}} {
		if strings.HasPrefix(r.text[r.at:], l.text) {
			r.at += len(l.text)
			return l.value, nil
		}
	}
	return nil, errSyntax
}

func (r *reader) object(depth int) (Object, error) {
	o := Object{}
	if depth == 1 {
		o = make(Object, 0, 12)
	}
	if r.space(); r.take('}') {
		return o, nil
	}
	var many map[string]struct{} // for the hostile: else a look at each is cheaper
	for {
		name, err := r.name()
		if err != nil {
			return nil, err
		}
		const short = 16
		if many == nil && len(o) > short {
			many = make(map[string]struct{}, 2*short)
			for _, m := range o {
				many[m.Name] = struct{}{}
			}
		}
		_, twice := many[name]
		if twice || many == nil && o.Has(name) {
			return nil, fmt.Errorf("member %s appears twice in one object; parsers disagree on which counts", quote(name))
		}
		if many != nil {
			many[name] = struct{}{}
		}
		v, err := r.value(depth)
		if err != nil {
			return nil, err
		}
		o = append(o, Member{name, v})
		switch r.space(); {
		case r.take('}'):
			return o, nil
		case !r.take(','):
			return nil, errSyntax
		}
	}
}

// name reads up to the value that it names.
func (r *reader) name() (string, error) {
	r.space()
	if r.at == len(r.text) || r.text[r.at] != '"' {
		return "", errSyntax
	}
	name, err := r.string()
	if err != nil {
		return "", err
	}
	if r.space(); !r.take(':') {
		return "", errSyntax
	}
	r.space()
	return name, nil
}

func (r *reader) list(depth int) ([]any, error) {
	l := []any{}
	if r.space(); r.take(']') {
		return l, nil
	}
	for {
		r.space()
		v, err := r.value(depth)
		if err != nil {
			return nil, err
		}
		l = append(l, v)
		switch r.space(); {
		case r.take(']'):
			return l, nil
		case !r.take(','):
			return nil, errSyntax
		}
	}
}

// string stands on the quote before.
func (r *reader) string() (string, error) {
	start, escaped := r.at, false
	for r.at++; r.at < len(r.text); r.at++ {
		switch c := r.text[r.at]; {
		case c == '"':
			raw := r.text[start+1 : r.at]
			if r.at++; !escaped {
				return raw, nil
			}
			var s string
			err := json.Unmarshal([]byte(r.text[start:r.at]), &s)
			return s, err
		case c < ' ':
			return "", errSyntax
		case c == '\\':
			escaped = true
			if err := r.escape(); err != nil {
				return "", err
			}
		}
	}
	return "", errSyntax
}

// escape stands on a backslash, and goes to the last character that belongs to it.
func (r *reader) escape() error {
	if r.at++; r.at == len(r.text) {
		return errSyntax
	}
	switch r.text[r.at] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return nil
	case 'u':
	default:
		return errSyntax
	}
	c, ok := r.codeUnit()
	switch {
	case !ok:
		return errSyntax
	case c < 0xD800 || c > 0xDFFF:
		return nil
	case c > 0xDBFF || !strings.HasPrefix(r.text[r.at+1:], `\u`):
		return errSurrogate
	}
	r.at += 2
	low, ok := r.codeUnit()
	switch {
	case !ok:
		return errSyntax
	case low < 0xDC00 || low > 0xDFFF:
		return errSurrogate
	}
	return nil
}

// codeUnit reads the four digits behind the u that it stands on.
func (r *reader) codeUnit() (uint64, bool) {
	if len(r.text)-r.at < 5 {
		return 0, false
	}
	c, err := strconv.ParseUint(r.text[r.at+1:r.at+5], 16, 16)
	r.at += 4
	return c, err == nil
}

func (r *reader) digits() bool {
	start := r.at
	for r.at < len(r.text) && r.text[r.at] >= '0' && r.text[r.at] <= '9' {
		r.at++
	}
	return r.at > start
}

// number reads what RFC 8259, section 6, has.
func (r *reader) number() (float64, error) {
	start := r.at
	r.take('-')
	if !r.take('0') && !r.digits() {
		return 0, errSyntax
	}
	whole := r.text[start:r.at]
	if r.take('.') && !r.digits() {
		return 0, errSyntax
	}
	if r.take('e') || r.take('E') {
		if !r.take('+') {
			r.take('-')
		}
		if !r.digits() {
			return 0, errSyntax
		}
	}
	text := r.text[start:r.at]
	if text == whole && len(text) <= 15 && text[0] != '-' {
		n := 0
		for i := range len(text) {
			n = n*10 + int(text[i]-'0')
		}
		return float64(n), nil // exact up to 2^53
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return 0, errors.New("a number is too large")
	}
	return n, nil
}
