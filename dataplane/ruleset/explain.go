package ruleset

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	"github.com/watchword-mesh/watchword/internal/jose"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// Step is one thing that was looked at. It may hold values of claims and of the
// request, and never a token, a key or a secret.
type Step struct {
	// Name of the step, such as "route" or "audience"; "observed " before it where
	// nothing is enforced.
	Name string
	// Detail says what was looked at and what it was compared with.
	Detail string
	// Outcome is what came of it; a word of dataplane/reason where it was refused.
	Outcome string
}

// recorder keeps the steps of one evaluation. Callers ask whether it is nil
// before they make words for it.
type recorder struct {
	prefix string
	steps  []Step
}

func (r *recorder) add(name, outcome, format string, args ...any) {
	r.steps = append(r.steps, Step{Name: r.prefix + name, Detail: fmt.Sprintf(format, args...), Outcome: outcome})
}

// inside marks the steps until the returned function is called. It may be called
// without a recorder.
func (r *recorder) inside(prefix string) (end func()) {
	if r == nil {
		return func() {}
	}
	r.prefix = prefix
	return func() { r.prefix = "" }
}

func (r *recorder) stripped(fields []Field, ours func(Field) bool) {
	var names []string
	for _, f := range fields {
		if ours(f) {
			names = append(names, quote(f.Name))
		}
	}
	if len(names) == 0 {
		r.add("strip", "ok", "no header that only we may set")
		return
	}
	r.add("strip", "removed", "headers that only we may set: %s", strings.Join(names, ", "))
}

func (r *recorder) guard(e *evaluation, word reason.Word) {
	switch {
	case word == reason.HostAmbiguous:
		r.add("guard", string(word), "host %s is no plain host, and rules look at hosts", quote(e.req.Authority))
	case word == reason.PathAmbiguous:
		r.add("guard", string(word), "path %s can be read in two ways, and rules look at paths", quote(e.view.path))
	case e.rs.looksAtHosts && e.rs.looksAtPaths:
		r.add("guard", "ok", "host %s and path %s are plain", quote(e.req.Authority), quote(e.view.path))
	case e.rs.looksAtHosts:
		r.add("guard", "ok", "host %s is plain", quote(e.req.Authority))
	case e.rs.looksAtPaths:
		r.add("guard", "ok", "path %s is plain", quote(e.view.path))
	default:
		r.add("guard", "ok", "no rule looks at hosts or paths")
	}
}

func (r *recorder) route(rt *route, p part, v *view) {
	name := "the rest of the service"
	if rt.name != "" {
		name = strconv.Quote(rt.name)
	}
	if p == partNone {
		r.add("route", "selected", "%s", name)
		return
	}
	r.add("route", "no match", "%s: %s", name, rt.match.why(p, v))
}

// why says in words what fails.
func (m *requestMatch) why(p part, v *view) string {
	hosts := func(list []hostPattern) string {
		return strings.Join(each(list, func(h hostPattern) string { return h.text }), ", ")
	}
	paths := func(list []pathPattern) string {
		return strings.Join(each(list, func(p pathPattern) string { return p.text }), ", ")
	}
	switch p {
	case partHosts:
		return fmt.Sprintf("host %s is none of %s", quote(v.authority), hosts(m.hosts))
	case partPaths:
		return fmt.Sprintf("path %s is none of %s", quote(v.path), paths(m.paths))
	case partMethods:
		return fmt.Sprintf("method %s is none of %s", quote(v.method), strings.Join(m.methods, ", "))
	case partNotHosts:
		return fmt.Sprintf("host %s is one of those excluded: %s", quote(v.authority), hosts(m.notHosts))
	case partNotPaths:
		return fmt.Sprintf("path %s is one of those excluded: %s", quote(v.path), paths(m.notPaths))
	case partNotMethods:
		return fmt.Sprintf("method %s is one of those excluded: %s", quote(v.method), strings.Join(m.notMethods, ", "))
	}
	return ""
}

// where is a location in words.
func (l location) where() string {
	where := fmt.Sprintf("%s %s", l.place, l.name)
	if l.prefix != "" {
		where += fmt.Sprintf(" with prefix %q", l.prefix)
	}
	return where
}

func (r *recorder) assumed(f found) {
	r.add("token", "given", "taken to be in %s: %d bytes", f.at.where(), len(f.text))
}

func (r *recorder) location(l location, all []found) {
	where := l.where()
	if len(all) == 0 {
		r.add("token", "not there", "%s", where)
	}
	for _, f := range all {
		r.add("token", "found", "%s: %d bytes", where, len(f.text))
	}
}

func (r *recorder) parsed(t *token, wrong string) {
	outcome := "ok"
	detail := "alg " + t.header.Algorithm
	if t.header.KeyID != "" {
		detail += ", kid " + quote(t.header.KeyID)
	}
	if t.header.Type != "" {
		detail += ", typ " + quote(t.header.Type)
	}
	if wrong != "" {
		outcome, detail = string(reason.TokenMalformed), detail+"; "+wrong
	}
	r.add("parse", outcome, "%s", detail)
}

func (r *recorder) issuer(is *issuer, t *token, known bool) {
	iss := "there is no iss"
	if jose.Object(t.claims).Has("iss") {
		iss = "iss is " + show(t.claims.get("iss"))
	}
	switch {
	case is.iss == "":
		r.add("issuer", "ok", "%s; issuer %q takes any", iss, is.name)
	case known:
		r.add("issuer", "ok", "%s, that of issuer %q", iss, is.name)
	default:
		r.add("issuer", string(reason.IssuerUnknown), "%s; issuer %q has %s", iss, is.name, quote(is.iss))
	}
}

func (r *recorder) credential(rule *tokenRule, key string, source dataplanev1.KeyClaim_Source, c *credential) {
	where := "claim"
	if source == dataplanev1.KeyClaim_HEADER {
		where = "header parameter"
	}
	switch {
	case key == "":
		r.add("credential", string(reason.CredentialUnknown), "no %s in the token, which names a credential of set %q", rule.keyClaim, rule.set.name)
	case c == nil:
		r.add("credential", string(reason.CredentialUnknown), "%s %s is %s, which is no credential of set %q", where, rule.keyClaim, quote(key), rule.set.name)
	case c.service != "":
		r.add("credential", "ok", "%s %s is %s, a credential of service %q", where, rule.keyClaim, quote(key), c.service)
	default:
		r.add("credential", "ok", "%s %s is %s, a credential of consumer %q", where, rule.keyClaim, quote(key), c.consumer.name)
	}
}

func (r *recorder) times(e *evaluation, rule *tokenRule, t *token, word reason.Word) {
	outcome := "ok"
	if word != "" {
		outcome = string(word)
	}
	r.add("time", outcome, "nbf %s, exp %s; now %d, clock skew %ss", show(t.claims.get("nbf")), show(t.claims.get("exp")), e.now, number(rule.skew))
}

func (r *recorder) audience(rule *tokenRule, t *token, ok bool) {
	outcome := "ok"
	if !ok {
		outcome = string(reason.AudienceMismatch)
	}
	r.add("audience", outcome, "aud %s; accepted: %s", show(t.claims.get("aud")), quoteAll(rule.audiences))
}

func (r *recorder) signature(by jose.Token, err error, word reason.Word) {
	switch {
	case word != "":
		r.add("signature", string(word), "%v", err)
	case err != nil: // a critical extension
		r.add("signature", "ok", "verified by a key of the right kid and alg")
	case by.Key.ID() == "":
		r.add("signature", "ok", "verified by a key without kid (%s)", by.Key.Algorithm())
	default:
		r.add("signature", "ok", "verified by key %s (%s)", quote(by.Key.ID()), by.Key.Algorithm())
	}
}

func (r *recorder) rule(i int, rule *tokenRule, word reason.Word) {
	outcome := "verified"
	if word != "" {
		outcome = string(word)
	}
	r.add("rule", outcome, "token rule %d, %s", i, rule)
}

func (r *recorder) unverified(a *authentication, word, wanted reason.Word, observe bool) {
	outcome := "let in without a caller"
	switch {
	case wanted != "" && observe:
		outcome = "let in without a caller, observed " + string(wanted)
	case wanted != "":
		outcome = string(wanted)
	}
	r.add("authentication", outcome, "mode %s: no rule has verified a token (%s)", a.mode, word)
}

func (r *recorder) claims(word reason.Word, why string, enforced bool) {
	outcome := string(word)
	if !enforced {
		outcome = "observed " + outcome
	}
	r.add("claims", outcome, "%s", why)
}

func (r *recorder) caller(e *evaluation, c *identity) {
	var parts []string
	for _, p := range []struct{ name, value string }{
		{"issuer", c.Issuer}, {"service", c.Service}, {"consumer", c.Consumer}, {"credential", c.Credential}, {"sub", c.Subject},
	} {
		if p.value != "" {
			parts = append(parts, p.name+" "+quote(p.value))
		}
	}
	switch {
	case c.Anonymous:
		r.add("caller", "anonymous", "%s", strings.Join(parts, ", "))
	case c.verified == nil:
		r.add("caller", "unknown", "no token was verified")
	default:
		r.add("caller", "known", "%s", strings.Join(parts, ", "))
	}
}

func (r *recorder) authorizationRule(kind string, rule *authorizationRule, m miss, c *identity, v *view) {
	why := ""
	switch m {
	case missNone:
		outcome := "allowed"
		if kind == "deny" {
			outcome = string(reason.ConsumerDenied)
		}
		r.add(kind, outcome, "rule %s matches", rule.name)
		return
	case missFrom:
		why = "the caller is none of " + principals(rule.from)
	case missNotFrom:
		why = "the caller is one of those excluded: " + principals(rule.notFrom)
	case missTo:
		why = rule.to.why(rule.to.fails(v), v)
	case missWhen:
		i := slices.IndexFunc(rule.when, func(d condition) bool { return !d.holds(c.claims()) })
		why = rule.when[i].why(c.claims())
	}
	r.add(kind, "no match", "rule %s: %s", rule.name, why)
}

func principals(list []principal) string {
	return strings.Join(each(list, func(p principal) string {
		var parts []string
		for _, part := range []struct{ name, value string }{
			{"issuer", p.issuer}, {"subject", p.subject}, {"service", p.service}, {"consumer", p.consumer},
		} {
			if part.value != "" {
				parts = append(parts, part.name+" "+strconv.Quote(part.value))
			}
		}
		return strings.Join(parts, " ")
	}), ", ")
}

// why says in words what keeps a condition from holding.
func (d *condition) why(c claims) string {
	if c == nil {
		return "no token was verified, and claim " + dotted(d.path) + " is asked for"
	}
	v, _ := c.lookup(d.path)
	return fmt.Sprintf("claim %s is %s, not %s", dotted(d.path), show(v), d)
}

func (d *condition) String() string {
	op := strings.ToLower(strings.ReplaceAll(d.op.String(), "_", " "))
	if len(d.values) == 0 {
		return op
	}
	return op + " " + strings.Join(each(d.values, show), ", ")
}

func (r *recorder) refused(d *Decision) {
	if d.GRPCStatus != 0 {
		r.add("decision", string(d.Reason), "grpc-status %d, grpc-message %s", d.GRPCStatus, quote(d.GRPCMessage))
		return
	}
	r.add("decision", string(d.Reason), "status %d, %s", d.Status, d.ContentType)
}

// show is the value of a claim, as a person reads it.
func show(v any) string {
	switch v := v.(type) {
	case nil:
		return "absent"
	case string:
		return quote(v)
	case float64:
		return number(v)
	case bool:
		return strconv.FormatBool(v)
	case []any:
		return "[" + strings.Join(each(v[:min(len(v), shown)], show), ", ") + more(len(v)) + "]"
	}
	return "an object"
}

// shown is how many items of a list are shown, and how many times ten bytes of a
// text: both may be a stranger's.
const shown = 10

func more(n int) string {
	if n > shown {
		return fmt.Sprintf(", and %d more", n-shown)
	}
	return ""
}

func number(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

// quote shows a text with all that is not plain in it escaped.
func quote(s string) string {
	if most := 10 * shown; len(s) > most {
		return strconv.QuoteToASCII(s[:most]) + "..."
	}
	return strconv.QuoteToASCII(s)
}

func quoteAll(list []string) string { return strings.Join(each(list, quote), ", ") }

// dotted is the path of a claim; a name that has a dot itself is quoted.
func dotted(path []string) string {
	return strings.Join(each(path, func(s string) string {
		if strings.Contains(s, ".") {
			return strconv.Quote(s)
		}
		return s
	}), ".")
}
