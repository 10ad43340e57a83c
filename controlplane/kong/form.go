package kong

import (
	"cmp"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// form gathers the fields of a form. Kong writes lists as tags[]=a&tags[]=b,
// tags[1]=a&tags[2]=b or tags=a&tags=b, and members of a record as consumer.id=x.
type form struct {
	entries []entry
}

type entry struct {
	// written is the name as it came, with an index.
	written, name, value string
	// index in a list, as far as the name has one.
	index  int
	inList bool
}

var listName = regexp.MustCompile(`^(.+)\[(\d{0,6})\]$`)

func (f *form) add(name, value string) {
	e := entry{written: name, name: name, value: value, index: math.MaxInt}
	if m := listName.FindStringSubmatch(name); m != nil {
		e.name, e.inList = m[1], true
		if i, err := strconv.Atoi(m[2]); err == nil {
			e.index = i
		}
	}
	f.entries = append(f.entries, e)
}

// fields returns what the form says in the form of JSON; an empty value is null,
// as in Kong.
func (f *form) fields() map[string]any {
	// Names in order, so that the same form is always read alike.
	slices.SortStableFunc(f.entries, func(a, b entry) int {
		return cmp.Or(strings.Compare(a.name, b.name), cmp.Compare(a.index, b.index), strings.Compare(a.written, b.written))
	})
	out := map[string]any{}
	for _, e := range f.entries {
		into, name := out, e.name
		if outer, inner, nested := strings.Cut(name, "."); nested && outer != "" && inner != "" {
			into, name = record(out, outer), inner
		}
		put(into, name, e)
	}
	return out
}

// record returns the record of a name. A field that is also said to be plain
// text becomes a list, which no schema takes for a record.
func record(out map[string]any, name string) map[string]any {
	switch had := out[name].(type) {
	case map[string]any:
		return had
	case nil:
		made := map[string]any{}
		out[name] = made
		return made
	default:
		out[name] = []any{had}
		return map[string]any{}
	}
}

func put(into map[string]any, name string, e entry) {
	var value any
	if e.value != "" {
		value = e.value
	}
	had, there := into[name]
	list, isList := had.([]any)
	switch {
	case isList:
		into[name] = append(list, value)
	case there:
		into[name] = []any{had, value}
	case e.inList:
		into[name] = []any{value}
	default:
		into[name] = value
	}
}
