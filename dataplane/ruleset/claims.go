package ruleset

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	"github.com/watchword-mesh/watchword/internal/jose"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// claims are those of a token. Numbers are float64, as in Envoy. nil is no token.
type claims jose.Object

func (c claims) get(name string) any { return jose.Object(c).Get(name) }

// lookup follows names through objects. null is no value.
func (c claims) lookup(path []string) (any, bool) {
	var v any = jose.Object(c)
	for _, name := range path {
		o, ok := v.(jose.Object)
		if !ok {
			return nil, false
		}
		v = o.Get(name)
	}
	return v, v != nil
}

func (c claims) has(name string) bool { return c.get(name) != nil }

// text is a claim that is a string; empty for all else.
func (c claims) text(name string) string {
	s, _ := c.get(name).(string)
	return s
}

// seconds is a claim that is a NumericDate (RFC 7519 section 2), without its
// fraction, as Envoy reads it; 0 if there is none. malformed has seen to its
// range.
func (c claims) seconds(name string) float64 {
	n, _ := c.get(name).(float64)
	return math.Floor(n)
}

// malformed is what is wrong with the types of registered claims (RFC 7519
// section 4.1), and empty if nothing is.
func (c claims) malformed() string {
	for i := range c {
		switch m := &c[i]; m.Name {
		case "iss", "sub", "jti":
			if _, ok := m.Value.(string); !ok {
				return m.Name + " is not a string"
			}
		case "iat", "nbf", "exp":
			if n, ok := m.Value.(float64); !ok || n < 0 || n >= 1<<64 {
				return m.Name + " is not a number of seconds since 1970"
			}
		case "aud":
			if wrong := malformedAudience(m.Value); wrong != "" {
				return wrong
			}
		}
	}
	return ""
}

func malformedAudience(aud any) string {
	if _, text := aud.(string); text {
		return ""
	}
	list, ok := aud.([]any)
	if !ok {
		return "aud is neither a string nor a list"
	}
	for _, v := range list {
		if _, ok := v.(string); !ok {
			return "aud has something that is not a string"
		}
	}
	return ""
}

// condition is a ClaimMatch.
type condition struct {
	path   []string
	op     dataplanev1.ClaimMatch_Operator
	values []any
}

// holds says whether the claims of a verified token are as they have to be.
// Without such a token (nil) nothing holds.
func (d *condition) holds(c claims) bool {
	if c == nil {
		return false
	}
	v, exists := c.lookup(d.path)
	switch d.op {
	case dataplanev1.ClaimMatch_IN:
		return d.in(v)
	case dataplanev1.ClaimMatch_NOT_IN:
		return !d.in(v)
	case dataplanev1.ClaimMatch_EXISTS:
		return exists
	case dataplanev1.ClaimMatch_NOT_EXISTS:
		return !exists
	}
	return false // Compile refuses the rest
}

func allHold(list []condition, c claims) bool {
	for i := range list {
		if !list[i].holds(c) {
			return false
		}
	}
	return true
}

// in says whether a claim is one of the values, or a list that holds one.
func (d *condition) in(v any) bool {
	switch v := v.(type) {
	case []any:
		for _, item := range v {
			if d.isValue(item) {
				return true
			}
		}
		return false
	case string:
		// RFC 8693 section 4.2: scope is a list, written with blanks between.
		if len(d.path) == 1 && d.path[0] == "scope" && strings.Trim(v, " ") != "" {
			return d.inScope(v)
		}
	}
	return d.isValue(v)
}

func (d *condition) inScope(scope string) bool {
	for s := range strings.SplitSeq(scope, " ") {
		if s != "" && d.isValue(s) {
			return true
		}
	}
	return false
}

// isValue compares type and value; lists and objects are equal to nothing.
func (d *condition) isValue(v any) bool {
	switch v.(type) {
	case string, float64, bool:
		for _, want := range d.values {
			if v == want {
				return true
			}
		}
	}
	return false
}

// claimText is a claim as text, for a header or another place: see OutputClaim.
// It is empty if there is nothing to say.
func claimText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case float64:
		if v >= 0 && v < 1<<64 && v == math.Trunc(v) {
			return strconv.FormatUint(uint64(v), 10)
		}
		return strconv.FormatFloat(v, 'f', 6, 64)
	case []any, jose.Object:
		var b strings.Builder
		enc := json.NewEncoder(&b)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(v) // it was JSON before
		return base64.StdEncoding.EncodeToString([]byte(strings.TrimSuffix(b.String(), "\n")))
	}
	return ""
}

// blankEnds says whether a text begins or ends with blanks, which are no part of
// the value of a header (RFC 9110 section 5.5): the service would be told of
// another.
func blankEnds(s string) bool { return strings.Trim(s, " \t") != s }

// control says whether a text can't be the value of a header (RFC 9110 section
// 5.5).
func control(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return true
		}
	}
	return false
}

// cookieOctets says whether a text can be the value of a cookie (RFC 6265
// section 4.1.1).
func cookieOctets(s string) bool {
	return only(s, func(c byte) bool { return c > ' ' && c < 0x7f && strings.IndexByte(`",;\`, c) < 0 })
}

// endless is the first number of seconds that is no time: beyond it JSON numbers
// are not exact (RFC 8259 section 6), and Envoy's sums overflow.
const endless = 1 << 53

// claimCheck is one thing that the claims of a token must not be.
type claimCheck struct {
	word reason.Word
	// hard ones refuse also where all else is only observed, since what is
	// forwarded has to be true.
	hard bool
	// what is wrong; empty if nothing is
	wrong func(*evaluation, *verified) string
}

// claimChecks are in the order of their words, in which Envoy applies them.
var claimChecks = []claimCheck{
	{reason.ClaimMalformed, true, (*evaluation).malformedOutput},
	{reason.ClaimMissing, false, (*evaluation).missingClaim},
	{reason.LifetimeExceeded, false, (*evaluation).exceededLifetime},
	{reason.SubjectForged, true, (*evaluation).forgedSubject},
	{reason.SubjectMalformed, true, (*evaluation).malformedSubject},
	{reason.TokenExpired, false, (*evaluation).expiredAlone},
	{reason.TokenMalformed, true, (*evaluation).criticalHeader},
	{reason.TokenNotYetValid, false, (*evaluation).notYetValidAlone},
	{reason.TypeNotAllowed, false, (*evaluation).wrongType},
}

// judge looks at the claims of a token that verified. It returns nil for a token
// that counts as none, and the word of a refusal; what is only observed it
// records.
func (e *evaluation) judge(a *authentication, v *verified, observe bool) (*verified, reason.Word) {
	permissive := a.mode == dataplanev1.Authentication_PERMISSIVE && !a.observe
	var observed reason.Word
	for i := range claimChecks {
		check := &claimChecks[i]
		why := check.wrong(e, v)
		if why == "" {
			continue
		}
		if permissive {
			if e.rec != nil {
				e.rec.add("claims", "the token counts as none", "%s: %s", check.word, why)
			}
			return nil, ""
		}
		enforced := check.hard || !observe
		if e.rec != nil {
			e.rec.claims(check.word, why, enforced)
		}
		if enforced {
			return v, check.word
		}
		if observed == "" {
			observed = check.word
		}
	}
	if observed != "" {
		e.observe(observed, "")
	} else if e.rec != nil {
		e.rec.add("claims", "ok", "all %d checks", len(claimChecks))
	}
	return v, ""
}

func (e *evaluation) malformedOutput(v *verified) string {
	for _, o := range v.rule.outputs {
		value, _ := v.claims.lookup(o.path)
		s, ok := value.(string)
		if !ok {
			continue // the text of all else is plain
		}
		if control(s) || o.place == inHeader && blankEnds(s) || o.place == inCookie && !cookieOctets(s) {
			return fmt.Sprintf("claim %s is %s, which can't be in %s %s", dotted(o.path), quote(s), o.place, o.name)
		}
	}
	if iss := v.claims.text("iss"); control(iss) || blankEnds(iss) {
		return fmt.Sprintf("iss is %s, which can't be in a header", quote(iss))
	}
	return ""
}

func (e *evaluation) missingExpiration(v *verified) string {
	if v.rule.expiration == dataplanev1.TimeCheck_REQUIRED && v.claims.seconds("exp") == 0 {
		return "exp is required, and there is none"
	}
	return ""
}

func (e *evaluation) missingClaim(v *verified) string {
	if why := e.missingExpiration(v); why != "" {
		return why
	}
	if v.rule.notBefore == dataplanev1.TimeCheck_REQUIRED && !v.claims.has("nbf") {
		return "nbf is required, and there is none"
	}
	for _, name := range v.rule.required {
		if !v.claims.has(name) {
			return name + " is required, and there is none"
		}
	}
	return ""
}

func (e *evaluation) exceededLifetime(v *verified) string {
	exp, _ := v.claims.get("exp").(float64)
	if exp < 1 && !math.IsInf(v.rule.maxLifetime, 1) {
		return "there is no exp, so that it lives longer than any time"
	}
	latest := float64(e.now) + v.rule.maxLifetime + v.rule.skew
	if exp > latest { // never, where any lifetime is right
		return fmt.Sprintf("exp is %s, later than %s", number(exp), number(latest))
	}
	if v.rule.expiration != dataplanev1.TimeCheck_NOT_CHECKED && exp >= endless {
		return fmt.Sprintf("exp is %s, which is no time", number(exp))
	}
	return ""
}

func (e *evaluation) forgedSubject(v *verified) string {
	sub := v.claims.text("sub")
	if v.credential != nil && v.credential.service != "" {
		if sub != v.credential.subject {
			return fmt.Sprintf("sub is %s, and service %s may sign only for %s", quote(sub), v.credential.service, quote(v.credential.subject))
		}
		return ""
	}
	own := e.rs.ownPrefix
	if own == "" || !strings.HasPrefix(sub, own) || v.rule.issuer != nil && v.rule.issuer.iss != "" && v.rule.issuer.iss == e.rs.ownIssuer {
		return ""
	}
	return fmt.Sprintf("sub is %s, and only %s may sign for %s*", quote(sub), quote(e.rs.ownIssuer), own)
}

func (e *evaluation) malformedSubject(v *verified) string {
	if sub := v.claims.text("sub"); control(sub) || blankEnds(sub) {
		return fmt.Sprintf("sub is %s, which can't be in a header", quote(sub))
	}
	return ""
}

// expiredAlone is the check of exp where nbf is not checked, or where there is no skew:
// else verify.go has done it.
func (e *evaluation) expiredAlone(v *verified) string {
	if v.rule.expiration == dataplanev1.TimeCheck_NOT_CHECKED || v.rule.notBefore != dataplanev1.TimeCheck_NOT_CHECKED && v.rule.skew >= leastSkew {
		return ""
	}
	return e.expired(v.token, v.rule.skew)
}

// notYetValidAlone is the check of nbf where exp is not checked, or where there is no
// skew, and that of iat.
func (e *evaluation) notYetValidAlone(v *verified) string {
	if v.rule.notBefore == dataplanev1.TimeCheck_NOT_CHECKED {
		return ""
	}
	if v.rule.expiration == dataplanev1.TimeCheck_NOT_CHECKED || v.rule.skew < leastSkew {
		if why := e.notYetValid(v.token, v.rule.skew); why != "" {
			return why
		}
	}
	if iat, _ := v.claims.get("iat").(float64); iat > float64(e.now)+v.rule.skew {
		return fmt.Sprintf("iat is %s; now is %d, clock skew %ss", number(iat), e.now, number(v.rule.skew))
	}
	return ""
}

func (e *evaluation) criticalHeader(v *verified) string {
	if v.header.Critical {
		return "the JOSE header has a critical extension"
	}
	return ""
}

func (e *evaluation) wrongType(v *verified) string {
	if len(v.rule.types) == 0 {
		return ""
	}
	typ := mediaType(v.header.Type)
	for _, t := range v.rule.types {
		if t == typ {
			return ""
		}
	}
	return fmt.Sprintf("typ is %s; accepted: %s", quote(v.header.Type), quoteAll(v.rule.types))
}

// mediaType is typ in the form in which it is compared (RFC 7515 section 4.1.9).
func mediaType(typ string) string {
	return strings.TrimPrefix(strings.ToLower(typ), "application/")
}
