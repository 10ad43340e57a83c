package parity

import (
	"flag"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	"github.com/watchword-mesh/watchword/dataplane/ruleset"
)

var bytesCases = flag.Int("parity.bytes", 3_000, "requests that TestAnyBytes sends")

// pieces are what requests are put together from: names of places as they are and
// escaped, what separates them, tokens, and what is none of that.
var pieces = struct{ path, query, cookie, form, header, contentType []string }{
	path: []string{"a", "/", "/", "//", ".", "..", ";", "=", "&", "+", ":", "@", "*", "~", "%20", "%2f", "%2F", "%25", "%61", "%", "%zz", "%00", "\"", "'", "<", "{", "|", "\\", "^", "`", "!", "$", "(", ",", "[", "#", "\xc3\xa9", "\xff", "\x7f", "http://x"},
	query: []string{"tok", "out", "o%75t", "q[0]-%a", "q%5B0%5D-%25a", "p%25t%5Bk-", "p%t[k-", "a", "=", "=", "&", "&", ";", "?", "+", "%20", "%", "%4", "%zz", "%00", "%0d%0a", "\"", "/", "..", "#", "\x01",
		"Bearer+TOKEN", "Bearer%20TOKEN", "tok=TOKEN", "tok=BAD", "TOKEN", "\xc3\xa9", "\xff", "{", "'", ","},
	cookie:      []string{"session", "cout", "p-c", "a", "=", "=", ";", "; ", " ", "\t", "\"", ",", "session=TOKEN", "p-c=v1.TOKEN", "session=\"TOKEN\"", "p-c=\"v1.TOKEN\"", "session=BAD", "v1.", "TOKEN", "%20", "\\", "\xff", "$Path"},
	form:        []string{"ftok", "fout", "fo%75t", "pf[%]", "pf%5B%25%5D", "a", "=", "=", "&", "&", ";", "+", "%", "%4", "\x00", "\r\n", " ", "\t", "\xff", "ftok=TOKEN", "ftok=BAD", "pf[%]=JWT+TOKEN", "JWT%20TOKEN", "TOKEN"},
	header:      []string{"Bearer ", "Bearer TOKEN", "bearer TOKEN", "TOKEN", "BAD", "Basic ", " ", "\t", ",", ".", "=", "\"", "\xff", "\x7f", "x.y.z", "..", "eyJ9.eyJ9.", "%00", "{}"},
	contentType: []string{"application/x-www-form-urlencoded", "Application/X-WWW-Form-Urlencoded", ";charset=utf-8", " ; a=b", ",text/plain", "x", " ", "text/plain", "multipart/form-data;boundary=x"},
}

func anyOf(t *rapid.T, label string, from []string, most int) string {
	return strings.Join(rapid.SliceOfN(rapid.SampledFrom(from), 0, most).Draw(t, label), "")
}

// anyRequest may have anything anywhere that a request can hold.
func anyRequest(t *rapid.T, tokens *strings.Replacer) ruleset.Request {
	r := ruleset.Request{Method: pick(t, "method", []string{"GET", "POST", "PUT", "DELETE", "OPTIONS"}), Authority: "orders", Path: "/"}
	if chance(t, "path", 2) {
		r.Path += anyOf(t, "in path", pieces.path, 6)
	}
	if chance(t, "query", 2) {
		r.Path += "?" + tokens.Replace(anyOf(t, "in query", pieces.query, 10))
	}
	add := func(name string, from []string, most int) {
		for i := range rapid.IntRange(0, 2).Draw(t, name) {
			if v := strings.Trim(tokens.Replace(anyOf(t, fmt.Sprint(name, " ", i), from, most)), " \t"); v != "" {
				r.Header = append(r.Header, ruleset.Field{Name: name, Value: v})
			}
		}
	}
	add("Cookie", pieces.cookie, 10)
	add("Authorization", pieces.header, 3)
	add("X-Token", pieces.header, 3)
	add("X-Also", pieces.header, 3)
	for _, forged := range some(t, "forged", []string{"x-o", "x_o", "X-Watchword-Caller", "x_watchword_token-0000", "x-watchword-tokens-0", "x-watchword-out-0-0", "x-watchword-pass"}, 0, 2) {
		r.Header = append(r.Header, ruleset.Field{Name: forged, Value: "forged"})
	}
	if r.Method == "POST" || r.Method == "PUT" {
		add("Content-Type", pieces.contentType, 3)
		r.Body = []byte(tokens.Replace(anyOf(t, "form", pieces.form, 12)))
	}
	return r
}

// Whatever bytes are in the path, the query, the headers, the cookies and the form: a
// service whose scripts look everywhere and write everywhere answers, and as the
// reference says. What a server takes for no request at all is of a kind that is in
// unreadKinds.
func TestAnyBytes(t *testing.T) {
	const perCheck = 50
	checks := max(1, *bytesCases/perCheck)
	draw(t, checks)
	b := newBench()
	everywhere(b, b.rs.Routes[0], b.rs.Routes[0].Authentication.Rules[0])
	p := startPlanes(t)
	reference := b.load(t, p)
	tokens := strings.NewReplacer("TOKEN", b.hs.token(header(nil), b.claims(map[string]any{"o": "v&=%+"})), "BAD", b.hs.token(header(nil), b.claims(map[string]any{"exp": now(-1000)})))
	sent, read := 0, map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		for range perCheck {
			req := anyRequest(rt, tokens)
			sent++
			for _, a := range p.ask(t, reference, req) {
				if f := a.fault(req); f != "" && !(a.by == byEnvoy && lax(a)) {
					rt.Fatalf("%s: %s\nrequest:\n%q", a.by, f, show(req))
				}
				if !a.unread() {
					read[a.by]++
				}
			}
		}
	})
	t.Logf("%d requests, of which came through: %v", sent, read)
}

// lax says whether Envoy shows a known difference: it reads, or refuses for another
// reason, a token that the reference finds malformed, because of what stands right
// before or after it.
func lax(a answered) bool {
	got, want := a.got, a.want
	return got.Status < 500 && want.Reason == reason.TokenMalformed && (!got.Allowed && got.Reason != "" || got.Allowed && got.Forward.Header.Get("X-Watchword-Caller") == "alice")
}
