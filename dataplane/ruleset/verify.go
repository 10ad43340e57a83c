package ruleset

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	"github.com/watchword-mesh/watchword/internal/jose"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// authentication is what a route wants to know of its callers.
type authentication struct {
	mode  dataplanev1.Authentication_Mode
	rules []*tokenRule
	// what mode refuses is recorded, and let in
	observe   bool
	anonymous *consumer // nil: none
	headers   []consumerHeader
	// whether the token may be taken out of cookies, too
	rewriteCookies bool
	// fields of forms that output claims replace: nothing of the caller's own
	// stays there
	outputPlaces []location
	endStreams   bool
}

// tokenRule is a TokenRule with what it names.
type tokenRule struct {
	issuer    *issuer        // either this
	set       *credentialSet // or this
	keyClaim  string
	sources   []dataplanev1.KeyClaim_Source
	locations []location // never empty
	// seconds
	skew        float64
	maxLifetime float64 // +Inf: any
	// in the form of comparableAudience
	audiences             []string
	audienceUnchecked     bool
	expiration, notBefore dataplanev1.TimeCheck
	required, types       []string
	outputs               []output
	payloadHeader         string
	keepToken             bool
	consumers             []consumerMatch
}

func (r *tokenRule) String() string {
	if r.issuer != nil {
		return fmt.Sprintf("issuer %q", r.issuer.name)
	}
	return fmt.Sprintf("credential set %q", r.set.name)
}

// issuer is who signs tokens. An empty iss is not looked at.
type issuer struct {
	name, iss string
	keys      jose.KeySet
}

type credentialSet struct {
	name  string
	byKey map[string]*credential
}

// credential belongs to a consumer, or to a service that signs for itself.
type credential struct {
	key              string
	keys             jose.KeySet
	consumer         *consumer
	service, subject string
}

// token is a token that could be read.
type token struct {
	*jose.Unverified
	text   string
	header jose.Header
	claims claims
	// by is the key that has verified it; the zero Key for one that is new.
	by jose.Key
}

// verified is a token that a rule has verified.
type verified struct {
	*token
	rule       *tokenRule
	credential *credential // nil: the issuer's own keys
	found      []found
}

// assumed is a token that is not in the request: one that nobody has signed, or
// a whole one.
type assumed struct {
	header map[string]any
	claims []byte
	signed *string // nil: made of header and claims
}

// unsigned says whether the token is one that nobody has signed.
func (e *evaluation) unsigned() bool { return e.assumed != nil && e.assumed.signed == nil }

// text is the token as it would be sent. What is not JSON makes a token that is
// malformed.
func (a *assumed) text() string {
	if a.signed != nil {
		return *a.signed
	}
	header := map[string]any{"alg": "ES256"}
	for k, v := range a.header {
		header[k] = v
	}
	h, _ := json.Marshal(header)
	b64 := base64.RawURLEncoding
	return b64.EncodeToString(h) + "." + b64.EncodeToString(a.claims) + "."
}

// authenticate looks for a token that verifies, and at its claims. It returns
// nil without one, and the word of a refusal.
func (e *evaluation) authenticate(a *authentication, observe bool) (*verified, reason.Word) {
	if a.mode == dataplanev1.Authentication_OFF {
		if e.rec != nil {
			e.rec.add("authentication", "let in", "mode OFF: no token is looked at")
		}
		return nil, ""
	}
	v, word, torn := e.tryRules(a)
	if v != nil {
		return e.judge(a, v, observe)
	}
	permissive := a.mode == dataplanev1.Authentication_PERMISSIVE && !a.observe
	if torn && !permissive {
		if e.rec != nil {
			e.rec.add("authentication", string(word), "of several tokens some verify and some don't: a service may read another one than we do")
		}
		return nil, word
	}
	wanted := word
	if a.mode == dataplanev1.Authentication_PERMISSIVE || a.mode == dataplanev1.Authentication_OPTIONAL && word == reason.TokenMissing {
		wanted = ""
	}
	if e.rec != nil {
		e.rec.unverified(a, word, wanted, observe)
	}
	if wanted != "" && observe {
		e.observe(wanted, "")
		wanted = ""
	}
	return nil, wanted
}

// tryRules takes the first rule that verifies. If there is none, the word is that
// of the first rule that was for such a token, else of the first that saw one. A
// rule that verifies some of its tokens and not others ends the search: only
// where everything is let in is such a request, without a caller.
func (e *evaluation) tryRules(a *authentication) (v *verified, word reason.Word, torn bool) {
	var unknown, other reason.Word
	for i, r := range a.rules {
		v, word, torn := e.try(r)
		if e.rec != nil {
			e.rec.rule(i, r, word)
		}
		if torn {
			return nil, word, true
		}
		switch word {
		case "":
			return v, "", false
		case reason.TokenMissing:
		case reason.IssuerUnknown, reason.CredentialUnknown:
			if unknown == "" {
				unknown = word
			}
		default:
			if other == "" {
				other = word
			}
		}
	}
	switch {
	case other != "":
		return nil, other, false
	case unknown != "":
		return nil, unknown, false
	}
	return nil, reason.TokenMissing, false
}

// try verifies all tokens at the places of a rule: a service may read another
// one than we do. Envoy takes them from the back, so the first one counts.
func (e *evaluation) try(r *tokenRule) (v *verified, word reason.Word, torn bool) {
	all := e.locate(r)
	if len(all) == 0 {
		return nil, reason.TokenMissing, false
	}
	v = &e.verified
	if e.verified.rule != nil { // of another rule, or of what is only observed
		v = new(verified)
	}
	*v = verified{rule: r, found: all}
	same := e.sameCredential(r, all)
	for i := range slices.Backward(all) {
		if i < len(all)-1 && all[i].text == all[i+1].text {
			continue // as the one before
		}
		if v.token, word = e.parse(all[i].text); word == "" && !same {
			word = reason.CredentialUnknown
		}
		if word == "" {
			v.credential, word = e.verify(r, v.token)
		}
		if word != "" {
			return nil, word, i < len(all)-1
		}
	}
	return v, "", false
}

// sameCredential says whether all tokens want to be verified with one credential:
// Envoy looks for one alone. (A set of one, found by `iss`, is to Envoy an
// issuer, and needs no looking for.)
func (e *evaluation) sameCredential(r *tokenRule, all []found) bool {
	if r.set == nil || len(all) < 2 || len(r.set.byKey) == 1 && r.keyClaim == "iss" && slices.Equal(r.sources, []dataplanev1.KeyClaim_Source{dataplanev1.KeyClaim_PAYLOAD}) {
		return true
	}
	first := r.wanted(all[0].text)
	return !slices.ContainsFunc(all[1:], func(f found) bool { return r.wanted(f.text) != first })
}

// wanted is the key that a text asks for, whatever else is wrong with it.
func (r *tokenRule) wanted(text string) string {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return ""
	}
	for _, s := range r.sources {
		part := parts[1]
		if s == dataplanev1.KeyClaim_HEADER {
			part = parts[0]
		}
		var members map[string]any
		if b, err := base64.RawURLEncoding.DecodeString(part); err != nil || json.Unmarshal(b, &members) != nil {
			continue
		}
		if key, _ := members[r.keyClaim].(string); key != "" {
			return key
		}
	}
	return ""
}

// parsedToken is what came out of parsing a text: several rules may look at one
// place.
type parsedToken struct {
	text  string
	token *token
	word  reason.Word
}

func (e *evaluation) parse(text string) (*token, reason.Word) {
	i := slices.IndexFunc(e.parsed, func(p parsedToken) bool { return p.text == text })
	if i < 0 {
		t, word := e.remembered(text), reason.Word("")
		if t == nil {
			t, word = e.read(text)
		}
		i = len(e.parsed)
		e.parsed = append(e.parsed, parsedToken{text, t, word})
	}
	return e.parsed[i].token, e.parsed[i].word
}

// read parses a token, and looks at the types of its claims.
func (e *evaluation) read(text string) (*token, reason.Word) {
	if !e.unsigned() && emptySegment(text) {
		if e.rec != nil {
			e.rec.add("parse", string(reason.TokenMalformed), "a segment is empty")
		}
		return nil, reason.TokenMalformed
	}
	if e.memo != nil {
		text = strings.Clone(text) // it may be a piece of something large, which would be kept with it
	}
	u, err := jose.ParseUnverified(text)
	if err != nil {
		word := reason.TokenMalformed
		if errors.Is(err, jose.ErrAlgorithm) {
			word = reason.AlgorithmNotAllowed
		}
		if e.rec != nil {
			e.rec.add("parse", string(word), "%v", err)
		}
		return nil, word
	}
	t := &token{Unverified: u, text: text, header: u.Header(), claims: claims(u.Object())}
	wrong := t.claims.malformed()
	if wrong != "" {
		wrong = "claims: " + wrong
	}
	if e.rec != nil {
		e.rec.parsed(t, wrong)
	}
	if wrong != "" {
		return nil, reason.TokenMalformed
	}
	return t, ""
}

// emptySegment is what makes a token malformed before anything in it is read: an
// unsigned one, too.
func emptySegment(token string) bool {
	return strings.HasPrefix(token, ".") || strings.HasSuffix(token, ".") || strings.Contains(token, "..")
}

// verify looks at one token as one rule does.
func (e *evaluation) verify(r *tokenRule, t *token) (*credential, reason.Word) {
	c, keys, word := e.owner(r, t)
	if word != "" {
		return nil, word
	}
	if word := e.checkTimes(r, t); word != "" {
		return nil, word
	}
	if !r.audienceUnchecked {
		ok := r.acceptsAudience(t.claims.get("aud"))
		if e.rec != nil {
			e.rec.audience(r, t, ok)
		}
		if !ok {
			return nil, reason.AudienceMismatch
		}
	}
	return c, e.checkSignature(t, keys)
}

// owner finds whose keys a token has to be verified with.
func (e *evaluation) owner(r *tokenRule, t *token) (*credential, *jose.KeySet, reason.Word) {
	if r.set != nil {
		key, source := r.key(t)
		c := r.set.byKey[key]
		if key == "" {
			c = nil
		}
		if e.rec != nil {
			e.rec.credential(r, key, source, c)
		}
		if c == nil {
			return nil, nil, reason.CredentialUnknown
		}
		return c, &c.keys, ""
	}
	known := r.issuer.iss == "" || r.issuer.iss == t.claims.text("iss")
	if e.rec != nil {
		e.rec.issuer(r.issuer, t, known)
	}
	if !known {
		return nil, nil, reason.IssuerUnknown
	}
	return nil, &r.issuer.keys, ""
}

// key is what the key claim says, by the first source that says something.
func (r *tokenRule) key(t *token) (string, dataplanev1.KeyClaim_Source) {
	for _, s := range r.sources {
		key := ""
		if s == dataplanev1.KeyClaim_HEADER {
			key, _ = t.HeaderText(r.keyClaim)
		} else {
			key = t.claims.text(r.keyClaim)
		}
		if key != "" {
			return key, s
		}
	}
	return "", dataplanev1.KeyClaim_SOURCE_UNSPECIFIED
}

// farFuture is how far ahead, in seconds, even an nbf that is not looked at may be:
// Envoy can't leave it out, but only allow for a very large clock skew.
const farFuture = 4_000_000_000

// leastSkew, in seconds, is what Envoy's jwt_authn allows for a rule without clock skew:
// 0 is its default of a minute. Claims.go refuses what came through in that second.
const leastSkew = 1

// checkTimes looks at nbf and exp, if both are to be looked at. Else claims.go
// looks at the other one: Envoy's jwt_authn can only leave out both.
func (e *evaluation) checkTimes(r *tokenRule, t *token) reason.Word {
	if t.claims.seconds("nbf") > float64(e.now)+farFuture {
		return reason.TokenNotYetValid
	}
	if r.expiration == dataplanev1.TimeCheck_NOT_CHECKED || r.notBefore == dataplanev1.TimeCheck_NOT_CHECKED {
		return ""
	}
	skew := max(r.skew, leastSkew)
	word, why := reason.TokenNotYetValid, e.notYetValid(t, skew)
	if why == "" {
		word, why = reason.TokenExpired, e.expired(t, skew)
	}
	if why == "" {
		word = ""
	}
	if e.rec != nil {
		e.rec.times(e, r, t, word)
	}
	return word
}

// notYetValid is why a token is not valid yet (RFC 7519 section 4.1.5).
func (e *evaluation) notYetValid(t *token, skew float64) string {
	if nbf := t.claims.seconds("nbf"); nbf > float64(e.now)+skew {
		return fmt.Sprintf("nbf is %s; now is %d, clock skew %ss", number(nbf), e.now, number(skew))
	}
	return ""
}

// expired is why a token is no longer valid (RFC 7519 section 4.1.4). An exp of 0
// is none, as in Envoy; whoever cares requires one.
func (e *evaluation) expired(t *token, skew float64) string {
	if exp := t.claims.seconds("exp"); exp != 0 && float64(e.now) > exp+skew {
		return fmt.Sprintf("exp is %s; now is %d, clock skew %ss", number(exp), e.now, number(skew))
	}
	return ""
}

// acceptsAudience takes a claim of the right type: malformed has seen to it.
func (r *tokenRule) acceptsAudience(aud any) bool {
	switch aud := aud.(type) {
	case string:
		return slices.Contains(r.audiences, comparableAudience(aud))
	case []any:
		return slices.ContainsFunc(aud, r.acceptsAudience)
	}
	return false
}

// comparableAudience is an audience as Envoy compares it: without scheme and
// without a slash at the end.
func comparableAudience(s string) string {
	rest, ok := strings.CutPrefix(s, "http://")
	if !ok {
		rest = strings.TrimPrefix(s, "https://")
	}
	return strings.TrimSuffix(rest, "/")
}

// checkSignature verifies with the keys of whoever the token is from. A critical
// extension is a matter of the claims, of a token that is known to be right.
func (e *evaluation) checkSignature(t *token, keys *jose.KeySet) reason.Word {
	if keys.Has(t.by) {
		return ""
	}
	if e.unsigned() {
		if e.rec != nil {
			e.rec.add("signature", "assumed", "key and signature are not looked at")
		}
		return ""
	}
	by, err := t.Verify(keys.Candidates(t.header.KeyID), jose.VerifyOptions{})
	word := reason.SignatureInvalid
	switch {
	case err == nil, errors.Is(err, jose.ErrCritical):
		word = ""
	case errors.Is(err, jose.ErrKeyUnknown), errors.Is(err, jose.ErrAlgorithm):
		word = reason.KeyUnknown
	}
	if e.rec != nil {
		e.rec.signature(by, err, word)
	}
	if err == nil {
		e.remember(t, by.Key)
	}
	return word
}
