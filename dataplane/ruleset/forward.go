package ruleset

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
)

// Headers that tell the service who called.
const (
	// CallerHeader has the `sub` claim.
	CallerHeader = "x-watchword-caller"
	// IssuerHeader has the `iss` claim.
	IssuerHeader = "x-watchword-issuer"
	// ConsumerHeader has the name of the consumer, also of an anonymous one.
	ConsumerHeader = "x-watchword-consumer"

	headerPrefix = "x-watchword-"
)

// output is a claim that is copied to somewhere.
type output struct {
	path []string
	location
	// what the caller sent in a header of this name stays
	keep bool
}

// strip removes the headers that only we may set.
func (e *evaluation) strip() {
	ours := func(f Field) bool { return e.rs.ours.has(f.Name) }
	if e.rec != nil {
		e.rec.stripped(e.req.Header, ours)
	}
	if slices.ContainsFunc(e.req.Header, ours) {
		e.req.Header = slices.DeleteFunc(slices.Clone(e.req.Header), ours)
	}
}

// forward makes the request for the service.
func (e *evaluation) forward() Request {
	c := &e.caller
	f := &forwarded{Request: e.req, rec: e.rec}
	f.Header = slices.Clone(e.req.Header)
	for _, l := range slices.Concat(e.rs.outputPlaces, e.route.enforced.outputPlaces) {
		f.remove(l, "only we may set it")
	}
	if v := c.verified; v != nil {
		f.removeToken(v, e.route.enforced.rewriteCookies)
		for _, o := range v.rule.outputs {
			value, _ := v.claims.lookup(o.path)
			f.add(o.location, claimText(value), o.path)
		}
		f.add(location{place: inHeader, name: v.rule.payloadHeader}, v.rule.payload(v.Claims()), nil)
	}
	for _, h := range e.route.enforced.headers {
		f.header(h.name, h.value(c))
	}
	f.header(CallerHeader, c.Subject)
	f.header(IssuerHeader, c.Iss)
	f.header(ConsumerHeader, c.Consumer)
	if e.rec != nil {
		e.rec.add("decision", "allowed", "sent to the service")
	}
	return f.Request
}

// payload is what the payload header holds: the claims as they were signed.
func (r *tokenRule) payload(claims []byte) string {
	if r.payloadHeader == "" {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString(claims)
}

// forwarded is a request that is being changed; its header section is its own.
type forwarded struct {
	Request
	rec *recorder
}

// removeToken takes the tokens of a rule out of the request. Cookies are left
// alone unless they may be rewritten.
func (f *forwarded) removeToken(v *verified, rewriteCookies bool) {
	if v.rule.keepToken {
		return
	}
	for _, t := range v.found {
		if t.at.place != inCookie || rewriteCookies {
			f.remove(t.at, "the token was there")
		}
	}
	for _, l := range v.rule.locations {
		if l.place == inForm { // without the prefix of a token it is none of the service's business either
			f.remove(l, "a token may be there")
		}
	}
}

// remove takes out all that has a name at a place, and nothing else.
func (f *forwarded) remove(l location, why string) {
	changed := false
	switch l.place {
	case inHeader:
		before := len(f.Header)
		f.Header = slices.DeleteFunc(f.Header, func(h Field) bool { return strings.EqualFold(h.Name, l.name) })
		changed = len(f.Header) < before
	case inParam:
		path, query, ok := strings.Cut(f.Path, "?")
		if _, found := firstPair(query, l.name); ok && found {
			if query = withoutPair(query, l.name); query != "" {
				path += "?" + query
			}
			f.Path, changed = path, true
		}
	case inCookie:
		changed = f.removeCookie(l.name)
	case inForm:
		if body := string(f.Body); isForm(f.Request) {
			if _, changed = firstPair(body, l.name); changed {
				f.setBody(withoutPair(body, l.name))
			}
		}
	}
	if changed && f.rec != nil {
		f.rec.add("forward", "removed", "%s %s: %s", l.place, l.name, why)
	}
}

// removeCookie takes out a cookie however servers may read its name: most leave
// out blanks around it, and some take one that has no value.
func (f *forwarded) removeCookie(name string) (changed bool) {
	named := func(c string) bool {
		k, _, _ := strings.Cut(c, "=")
		return strings.Trim(k, " \t") == name
	}
	out := f.Header[:0]
	for _, h := range f.Header {
		if strings.EqualFold(h.Name, "cookie") {
			kept := slices.Collect(cookies(h.Value))
			if before := len(kept); before > 0 {
				if kept = slices.DeleteFunc(kept, named); len(kept) < before {
					h.Value, changed = strings.Join(kept, "; "), true
				}
				if len(kept) == 0 {
					continue
				}
			}
		}
		out = append(out, h)
	}
	f.Header = out
	return changed
}

// setBody keeps the length true that the request states.
func (f *forwarded) setBody(body string) {
	f.Body = []byte(body)
	for i, h := range f.Header {
		if strings.EqualFold(h.Name, "content-length") {
			f.Header[i].Value = strconv.Itoa(len(body))
		}
	}
}

// add puts the text of a claim where it has to go; nothing for an empty text, or
// where there is no such place. Without a claim path it is all claims.
func (f *forwarded) add(l location, value string, claim []string) {
	if value == "" || l.name == "" {
		return
	}
	switch l.place {
	case inHeader:
		f.Header = append(f.Header, Field{l.name, trim(value)})
	case inParam:
		separator := "?"
		if strings.Contains(f.Path, "?") {
			separator = "&"
		}
		f.Path += separator + encode(l.name) + "=" + encode(value)
	case inCookie:
		f.addCookie(l.name + "=" + value)
	case inForm:
		if !isForm(f.Request) {
			return
		}
		body := string(f.Body)
		if body != "" {
			body += "&"
		}
		f.setBody(body + encode(l.name) + "=" + encode(value))
	}
	if f.rec == nil {
		return
	}
	if claim == nil {
		f.rec.add("forward", "added", "%s %s: all claims, in base64url", l.place, l.name)
	} else {
		f.rec.add("forward", "added", "%s %s: %s, from claim %s", l.place, l.name, quote(value), dotted(claim))
	}
}

// addCookie puts a cookie behind all others.
func (f *forwarded) addCookie(pair string) {
	for i, h := range slices.Backward(f.Header) {
		if strings.EqualFold(h.Name, "cookie") && h.Value != "" {
			f.Header[i].Value += "; " + pair
			return
		}
	}
	f.Header = append(f.Header, Field{"cookie", pair})
}

// header tells the service something that is not a claim by itself.
func (f *forwarded) header(name, value string) {
	if value == "" {
		return
	}
	f.Header = append(f.Header, Field{name, trim(value)})
	if f.rec != nil {
		f.rec.add("forward", "added", "header %s: %s", name, quote(value))
	}
}

// trim leaves out the blanks that are not part of a header's value (RFC 9110
// section 5.5): they would be lost on the way.
func trim(value string) string { return strings.Trim(value, " ") }

// encode escapes what is not plain in a query and in a form (WHATWG URL section
// 5.2), a blank as %20, which is right in both.
func encode(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if unreserved(c) && c != '~' || c == '*' {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(hex[c>>4])
		b.WriteByte(hex[c&15])
	}
	return b.String()
}
