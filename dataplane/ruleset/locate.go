package ruleset

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// place is a part of a request that tokens are looked for in.
type place int

const (
	inHeader place = iota
	inParam
	inCookie
	inForm
)

func (p place) String() string {
	return [...]string{"header", "query parameter", "cookie", "form field"}[p]
}

// location is where a token may be. A value that does not begin with the prefix
// is no token.
type location struct {
	place        place
	name, prefix string
}

// newLocations are in the order in which tokens are found: by place, and within
// one as Envoy has them, by name and prefix.
func newLocations(r *dataplanev1.TokenRule) []location {
	var out []location
	for p, list := range [][]*dataplanev1.TokenLocation{r.GetFromHeaders(), r.GetFromParams(), r.GetFromCookies(), r.GetFromForm()} {
		for _, l := range list {
			name := l.GetName()
			if place(p) == inHeader {
				name = strings.ToLower(name)
			}
			out = append(out, location{place(p), name, l.GetPrefix()})
		}
	}
	slices.SortStableFunc(out, func(a, b location) int {
		return cmp.Or(cmp.Compare(a.place, b.place), strings.Compare(a.name+a.prefix, b.name+b.prefix))
	})
	return slices.Compact(out)
}

// found is a text that should be a token, and where it was.
type found struct {
	at   location
	text string
}

// locate finds what is at the places of a rule.
func (e *evaluation) locate(r *tokenRule) []found {
	if e.assumed != nil {
		f := found{r.locations[0], e.assumed.text()}
		if e.rec != nil {
			e.rec.assumed(f)
		}
		return []found{f}
	}
	out := e.foundRoom[:0]
	if e.verified.rule != nil { // it may be in use
		out = nil
	}
	for _, l := range r.locations {
		n := len(out)
		if l.place == inHeader {
			out = e.inHeader(out, l)
		} else if v, ok := e.first(l); ok {
			out = l.cut(out, v)
		}
		if e.rec != nil {
			e.rec.location(l, out[n:])
		}
	}
	return out
}

// cut adds the token that a value is, if it begins with the prefix.
func (l location) cut(out []found, value string) []found {
	if text, ok := strings.CutPrefix(value, l.prefix); ok {
		return append(out, found{l, text})
	}
	return out
}

// inHeader takes all values of a field, in order.
func (e *evaluation) inHeader(out []found, l location) []found {
	if l.name == authorizationField {
		if v, ok := joined(e.req.Header, l.name); ok {
			return l.cut(out, v)
		}
		return out
	}
	for _, f := range e.req.Header {
		if strings.EqualFold(f.Name, l.name) {
			out = l.cut(out, strings.Trim(f.Value, " \t"))
		}
	}
	return out
}

func (e *evaluation) first(l location) (string, bool) {
	switch l.place {
	case inParam:
		_, query, _ := strings.Cut(e.req.Path, "?")
		return firstPair(query, l.name)
	case inCookie:
		return firstCookie(e.req.Header, l.name)
	case inForm:
		if isForm(e.req) {
			return firstPair(string(e.req.Body), l.name)
		}
	}
	return "", false
}

// authorizationField is one that nobody should send twice (RFC 9110 section 11.6.2).
const authorizationField = "authorization"

// joined is all values of a field as one, with commas, as Envoy reads several
// Authorization fields.
func joined(fields []Field, name string) (value string, ok bool) {
	for _, f := range fields {
		if !strings.EqualFold(f.Name, name) {
			continue
		}
		if v := strings.Trim(f.Value, " \t"); ok {
			value += "," + v
		} else {
			value, ok = v, true
		}
	}
	return value, ok
}

// header is the first value of a field.
func header(fields []Field, name string) string {
	for _, f := range fields {
		if strings.EqualFold(f.Name, name) {
			return strings.Trim(f.Value, " \t")
		}
	}
	return ""
}

// pairs are the parts between `&` of a query or a form, as they are written.
func pairs(s string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for p := range strings.SplitSeq(s, "&") {
			if p != "" && !yield(p) {
				return
			}
		}
	}
}

// firstPair is the decoded value of the first pair with a name.
func firstPair(s, name string) (string, bool) {
	for p := range pairs(s) {
		if k, v, _ := strings.Cut(p, "="); decode(k) == name {
			return decode(v), true
		}
	}
	return "", false
}

// withoutPair leaves out all pairs with a name, and nothing else.
func withoutPair(s, name string) string {
	var b strings.Builder
	for p := range strings.SplitSeq(s, "&") {
		if k, _, _ := strings.Cut(p, "="); p != "" && decode(k) == name {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p)
	}
	return b.String()
}

// decode is what is written in a query or a form. A per cent sign that escapes
// nothing is itself.
func decode(s string) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	b := make([]byte, 0, len(s))
	for s != "" {
		c, n := pathByte(s)
		if n == 1 && c == '+' {
			c = ' '
		}
		b, s = append(b, c), s[n:]
	}
	return string(b)
}

// isForm says whether the body has fields (WHATWG URL section 5).
func isForm(r Request) bool {
	mediaType := header(r.Header, "content-type")
	if i := strings.IndexAny(mediaType, ";,"); i >= 0 { // a comma, where there are two
		mediaType = mediaType[:i]
	}
	return strings.EqualFold(strings.Trim(mediaType, " \t"), "application/x-www-form-urlencoded")
}

// cookies are the cookies of one field, as they are written, without blanks
// before (RFC 6265 section 5.4).
func cookies(field string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for c := range strings.SplitSeq(field, ";") {
			if c = strings.TrimLeft(c, " "); c != "" && !yield(c) {
				return
			}
		}
	}
}

// firstCookie is the value of the first cookie of a name, without the quotes
// that it may have (RFC 6265 section 4.1.1). What has no `=` is no cookie.
func firstCookie(fields []Field, name string) (string, bool) {
	for _, f := range fields {
		if !strings.EqualFold(f.Name, "cookie") {
			continue
		}
		for c := range cookies(f.Value) {
			k, v, ok := strings.Cut(c, "=")
			if !ok || k != name {
				continue
			}
			if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
				v = v[1 : len(v)-1]
			}
			return v, true
		}
	}
	return "", false
}
