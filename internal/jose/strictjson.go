package jose

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxDepth is how deep JSON may nest; the outermost object counts as one.
const maxDepth = 32

// member is one name and value of a JSON object; value is the text as it stands.
type member struct {
	name  string
	value []byte
}

// checkText refuses what is not JSON. The walker below relies on it.
func checkText(b []byte) error {
	if !utf8.Valid(b) {
		return errors.New("not JSON: not UTF-8 text")
	}
	if json.Valid(b) {
		return nil
	}
	var syntax *json.SyntaxError
	if err := json.Unmarshal(b, new(json.RawMessage)); errors.As(err, &syntax) {
		return fmt.Errorf("not JSON: syntax error at byte %d", syntax.Offset)
	}
	return errors.New("not JSON")
}

// object reads a JSON object and refuses, at every depth, what two parsers may read in
// two ways: duplicate members and halves of surrogate pairs.
func object(b []byte) ([]member, error) {
	if err := checkText(b); err != nil {
		return nil, err
	}
	return (&walker{text: b, unique: true}).topObject()
}

// walker goes over text that is valid JSON.
type walker struct {
	text   []byte
	at     int
	unique bool // refuse duplicate members below the outermost object as well
}

var errNotObject = errors.New("not a JSON object")

func (w *walker) topObject() ([]member, error) {
	w.space()
	if w.text[w.at] != '{' {
		return nil, errNotObject
	}
	out := make([]member, 0, 8)
	err := w.object(1, true, func(name, value []byte) { out = append(out, member{string(name), value}) })
	return out, err
}

// topArray returns the texts of an array's items; ok is false if it is no array.
func (w *walker) topArray() (items [][]byte, ok bool, err error) {
	w.space()
	if w.text[w.at] != '[' {
		return nil, false, nil
	}
	err = w.array(1, func(v []byte) { items = append(items, v) })
	return items, true, err
}

func (w *walker) value(depth int) error {
	w.space()
	switch w.text[w.at] {
	case '{':
		return w.object(depth+1, w.unique, nil)
	case '[':
		return w.array(depth+1, nil)
	case '"':
		_, err := w.string(false)
		return err
	}
	for w.at < len(w.text) && !bytes.ContainsRune([]byte(",]} \t\r\n"), rune(w.text[w.at])) {
		w.at++
	}
	return nil
}

func (w *walker) object(depth int, unique bool, emit func(name, value []byte)) error {
	if depth > maxDepth {
		return fmt.Errorf("JSON nested deeper than %d", maxDepth)
	}
	var seen nameSet
	w.at++ // {
	for w.space(); w.text[w.at] != '}'; w.space() {
		if w.text[w.at] == ',' {
			w.at++
			w.space()
		}
		name, err := w.string(unique)
		if err != nil {
			return err
		}
		if unique && !seen.add(name) {
			return fmt.Errorf("member %s appears twice in one object; parsers disagree on which counts", quote(string(name)))
		}
		w.space()
		w.at++ // :
		w.space()
		start := w.at
		if err := w.value(depth); err != nil {
			return err
		}
		if emit != nil {
			emit(name, w.text[start:w.at])
		}
	}
	w.at++ // }
	return nil
}

func (w *walker) array(depth int, emit func(value []byte)) error {
	if depth > maxDepth {
		return fmt.Errorf("JSON nested deeper than %d", maxDepth)
	}
	w.at++ // [
	for w.space(); w.text[w.at] != ']'; w.space() {
		if w.text[w.at] == ',' {
			w.at++
			w.space()
		}
		start := w.at
		if err := w.value(depth); err != nil {
			return err
		}
		if emit != nil {
			emit(w.text[start:w.at])
		}
	}
	w.at++ // ]
	return nil
}

// string steps over a string, and returns what it means if decode is set.
func (w *walker) string(decode bool) ([]byte, error) {
	start := w.at
	escaped := false
	for w.at++; w.text[w.at] != '"'; w.at++ {
		if w.text[w.at] != '\\' {
			continue
		}
		escaped = true
		w.at++
		if err := w.surrogates(); err != nil {
			return nil, err
		}
	}
	w.at++
	raw := w.text[start:w.at]
	if !escaped {
		return raw[1 : len(raw)-1], nil
	}
	if !decode {
		return nil, nil
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return []byte(s), err
}

// surrogates refuses half of a pair: parsers replace it, each by something else, so two
// names could become one. It stands on the letter after a backslash.
func (w *walker) surrogates() error {
	r := w.escape(w.at)
	if r < 0xD800 || r > 0xDFFF {
		return nil
	}
	if r < 0xDC00 && w.text[w.at+5] == '\\' {
		if low := w.escape(w.at + 6); low >= 0xDC00 && low <= 0xDFFF {
			w.at += 10
			return nil
		}
	}
	return errors.New("a string holds half of a surrogate pair")
}

// escape is the code unit of the uXXXX at i, or -1.
func (w *walker) escape(i int) int {
	if w.text[i] != 'u' {
		return -1
	}
	r := 0
	for _, c := range w.text[i+1 : i+5] {
		digit := strings.IndexByte("0123456789abcdef", c|0x20)
		r = r<<4 | digit
	}
	return r
}

func (w *walker) space() {
	for w.at < len(w.text) {
		switch w.text[w.at] {
		case ' ', '\t', '\r', '\n':
			w.at++
		default:
			return
		}
	}
}

// nameSet is the names seen in one object: a short list, and a map only for the hostile.
type nameSet struct {
	few  [][]byte
	many map[string]struct{}
}

func (s *nameSet) add(name []byte) bool {
	const short = 16
	if s.many != nil {
		if _, dup := s.many[string(name)]; dup {
			return false
		}
		s.many[string(name)] = struct{}{}
		return true
	}
	for _, n := range s.few {
		if bytes.Equal(n, name) {
			return false
		}
	}
	if s.few == nil {
		s.few = make([][]byte, 0, short/2)
	}
	if s.few = append(s.few, name); len(s.few) > short {
		s.many = make(map[string]struct{}, 2*short)
		for _, n := range s.few {
			s.many[string(n)] = struct{}{}
		}
	}
	return true
}

// text is the value of a JSON string; ok is false if it is anything else. It has been
// through checkText.
func text(value []byte) (s string, ok bool) {
	if len(value) == 0 || value[0] != '"' {
		return "", false
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : len(value)-1]), true
	}
	return s, json.Unmarshal(value, &s) == nil
}

var strictBase64 = base64.RawURLEncoding.Strict()

// decodeBase64 takes exactly the one spelling that RFC 7515, section 2, allows.
func decodeBase64(s string) ([]byte, error) {
	// encoding/base64 skips line ends, even when strict.
	if strings.IndexByte(s, '\n') >= 0 || strings.IndexByte(s, '\r') >= 0 {
		return nil, errors.New("line break")
	}
	return strictBase64.DecodeString(s)
}
