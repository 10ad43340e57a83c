package jose

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// asMaps is an Object as encoding/json has it.
func asMaps(v any) any {
	switch v := v.(type) {
	case Object:
		m := map[string]any{}
		for _, e := range v {
			m[e.Name] = asMaps(e.Value)
		}
		return m
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = asMaps(v[i])
		}
		return out
	}
	return v
}

// checkReadObject compares the one pass with the three that it replaces: syntax and
// duplicates by object, values by encoding/json.
func checkReadObject(t *testing.T, text string) {
	t.Helper()
	got, err := readObject(text)
	_, strict := object([]byte(text))
	var want map[string]any
	lax := json.Unmarshal([]byte(text), &want)
	var tooLarge *json.UnmarshalTypeError
	switch wanted := errors.Join(strict, lax); {
	case (err == nil) != (wanted == nil):
		t.Errorf("readObject(%q): error %v, want %v", text, err, wanted)
	case err != nil && strict == nil && !errors.As(lax, &tooLarge):
		t.Errorf("readObject(%q): %v, and encoding/json %v", text, err, lax)
	case err == nil && !reflect.DeepEqual(asMaps(got), any(want)):
		t.Errorf("readObject(%q) = %v, want %v", text, got, want)
	case err == nil:
		ours, _ := got.MarshalJSON()
		theirs, _ := plainJSON(want)
		if string(ours) != string(theirs) {
			t.Errorf("readObject(%q) is written as %s, want %s", text, ours, theirs)
		}
	}
}

var objectTexts = []string{
	``, `{}`, ` { } `, `[]`, `null`, `1`, `"a"`, `{"a":1}`, `{"a":1,}`, `{"a":1}x`, `{"a":1} {}`, `{a:1}`, `{"a" 1}`, `{"a":}`, `{"a":1 "b":2}`,
	`{"a":1,"a":2}`, `{"a":{"b":1,"b":2}}`, `{"a":[{"b":1,"\u0062":2}]}`, `{"a":"b","\u0061":"c"}`,
	`{"a":[1,2,[3,{"x":null}],true,false]}`, `{"a":[1,]}`, `{"a":[,1]}`, `{"a":[1 2]}`, `{"a":[`, `{"a":[1`, `{"a":"`, `{"a":"\`, `{"a":"\u12`,
	`{"a":"\ud83d\ude00"}`, `{"a":"\ud83d"}`, `{"a":"\ud83dx"}`, `{"a":"\ude00"}`, `{"a":"\ud83d\n"}`, `{"a":"\ud83d\u0041"}`, `{"\ud83d":1}`, `{"a":"\ud83d\u12"}`,
	`{"a":"\"\\\/\b\f\n\r\t\u00e9"}`, `{"a":"\x"}`, "{\"a\":\"\x00\"}", "{\"a\":\"\n\"}", "{\"a\":\"\x7f\"}", "{\"a\":\"\xff\"}", `{"a":"é<>&"}`,
	`{"a":0}`, `{"a":-0}`, `{"a":00}`, `{"a":01}`, `{"a":-}`, `{"a":1.}`, `{"a":.5}`, `{"a":1.5e3}`, `{"a":1e+3,"b":1E-3}`, `{"a":1e}`, `{"a":+1}`, `{"a":1e400}`, `{"a":-1e400}`,
	`{"a":999999999999999}`, `{"a":9999999999999999}`, `{"a":123456789012345678901234567890}`, `{"a":1e-400}`, `{"a":tru}`, `{"a":truex}`, `{"a":nul}`, `{"a":NaN}`,
	`{"a":` + strings.Repeat("[", 31) + strings.Repeat("]", 31) + `}`, `{"a":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + `}`,
	`{"a":` + strings.Repeat(`{"a":`, 31) + `1` + strings.Repeat("}", 31) + `}`, `{"a":` + strings.Repeat(`{"a":`, 32) + `1` + strings.Repeat("}", 32) + `}`,
	numbered(40, ""), numbered(40, `"m3":1`), numbered(17, `"m16":1`), benchClaims,
}

func numbered(n int, more string) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(`"m` + strings.TrimLeft(string(rune('0'+i/10)), "0") + string(rune('0'+i%10)) + `":0,`)
	}
	if more == "" {
		more = `"z":0`
	}
	return "{" + b.String() + more + "}"
}

// One pass reads what three did before, and refuses the same.
func TestReadObject(t *testing.T) {
	for _, text := range objectTexts {
		checkReadObject(t, text)
	}
}

func FuzzReadObject(f *testing.F) {
	for _, text := range objectTexts {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) { checkReadObject(t, text) })
}

func BenchmarkReadObject(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := readObject(benchClaims); err != nil {
			b.Fatal(err)
		}
	}
}
