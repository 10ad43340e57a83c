package clientauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/watchword-mesh/watchword/internal/jose"
)

// AssertionType is the one value of client_assertion_type (RFC 7523 section 2.2).
const AssertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

const (
	// maxAssertionLife is how far ahead the end of an assertion may be. It is
	// also how long its ID has to be remembered.
	maxAssertionLife = 5 * time.Minute
	// skew is how much the clock of a client may differ from ours.
	skew = 30 * time.Second
	// maxIDBytes is the longest `jti`.
	maxIDBytes = 256
)

// AssertionAlgorithms are those that assertions are verified by.
func AssertionAlgorithms() []string { return []string{"ES256", "EdDSA"} }

// assertionTypes are the accepted `typ`: none, the usual one, and the one of
// draft-ietf-oauth-rfc7523bis. An access token that a service was sent is of
// none of these.
var assertionTypes = []string{"", "JWT", "client-authentication+jwt"}

// dummies are verified against where there is no key, so that it takes as long.
// They have no kid, which is how jose tries them for any.
var dummies = func() map[string]jose.Key {
	m := map[string]jose.Key{}
	for _, alg := range AssertionAlgorithms() {
		private, err := jose.GenerateKey(alg)
		if err == nil {
			private, err = private.WithID("")
		}
		if err != nil { // crypto/rand never fails
			panic(err)
		}
		m[alg] = private.Public()
	}
	return m
}()

var errUnproven = errors.New("unknown service or instance, or wrong signature")

// assertion is one that a client sent, read but not believed.
type assertion struct {
	token  *jose.Unverified
	claims map[string]json.RawMessage
}

// readAssertion reads it. Errors say nothing of what is in it.
func readAssertion(text string) (assertion, error) {
	u, err := jose.ParseUnverified(text)
	if err != nil {
		return assertion{}, fmt.Errorf("%w: the client assertion is not a signed JWT that can be read", ErrClient)
	}
	a := assertion{token: u}
	// By a map, since encoding/json fills the fields of a struct whatever the
	// case of a name is.
	if err := json.Unmarshal(u.Claims(), &a.claims); err != nil {
		return assertion{}, fmt.Errorf("%w: the claims of the client assertion are no JSON object", ErrClient)
	}
	return a, nil
}

// text is a claim that is a string; empty for any other.
func (a assertion) text(name string) string {
	var s *string
	if json.Unmarshal(a.claims[name], &s) != nil || s == nil {
		return ""
	}
	return *s
}

// time is a claim that is a NumericDate (RFC 7519 section 2), in seconds.
func (a assertion) time(name string) (at float64, present bool, err error) {
	raw, present := a.claims[name]
	if !present {
		return 0, false, nil
	}
	// raw is valid JSON, so what ParseFloat takes of it is a number.
	at, err = strconv.ParseFloat(string(raw), 64)
	if err != nil {
		return 0, true, fmt.Errorf("%w: %s of the client assertion is not a time", ErrClient, name)
	}
	return at, true, nil
}

// VerifyAssertion tells who made a client assertion (RFC 7523 section 3), and
// remembers it, so that it is good once. The error is an ErrClient.
//
// iss and sub are the service, kid is the instance, and the key is the one that
// the instance has enrolled, used with its own algorithm alone.
func (a Authenticator) VerifyAssertion(text string) (Identity, error) {
	got, err := readAssertion(text)
	if err != nil {
		return Identity{}, err
	}
	service, header := got.text("iss"), got.token.Header()
	if err := a.signed(got, service); err != nil {
		return Identity{}, err
	}
	if got.text("sub") != service {
		return Identity{}, fmt.Errorf("%w: iss and sub of the client assertion differ; both must be the service", ErrClient)
	}
	if !a.audience(got.claims["aud"]) {
		return Identity{}, fmt.Errorf("%w: aud of the client assertion must be the issuer's iss, and nothing else", ErrClient)
	}
	now := a.now()
	until, err := got.until(now)
	if err != nil {
		return Identity{}, err
	}
	id := got.text("jti")
	if id == "" || len(id) > maxIDBytes {
		return Identity{}, fmt.Errorf("%w: the client assertion must have a jti of at most %d bytes", ErrClient, maxIDBytes)
	}
	if err := a.Replays.use(header.KeyID, id, until, now); err != nil {
		return Identity{}, err
	}
	return Identity{Service: service, Instance: header.KeyID}, nil
}

// signed verifies the signature, and does the same work if there is no key: one
// verification by the algorithm that the client chose.
func (a Authenticator) signed(got assertion, service string) error {
	header := got.token.Header()
	key, known := dummies[header.Algorithm]
	if !known {
		return fmt.Errorf("%w: the client assertion must be signed by one of %v", ErrClient, AssertionAlgorithms())
	}
	known = false
	if a.Directory != nil && a.Replays != nil && a.Audience != "" && service != "" && header.KeyID != "" {
		enrolled, ok := a.Directory.InstanceKey(service, header.KeyID)
		if ok && enrolled.Algorithm() == header.Algorithm && enrolled.ID() == header.KeyID {
			key, known = enrolled, true
		}
	}
	verify := a.verifySignature
	if verify == nil {
		verify = (*jose.Unverified).Verify
	}
	// Of a type that isn't accepted nothing is verified, for whomever it is.
	if _, err := verify(got.token, []jose.Key{key}, jose.VerifyOptions{Types: assertionTypes}); err != nil || !known {
		return fmt.Errorf("%w: %w", ErrClient, errUnproven)
	}
	return nil
}

// audience tells whether an assertion is for us: `aud` is our `iss`, as a string
// or as the only one of a list. RFC 7523 section 3 would also take the URL of the
// token endpoint. But a client may learn that URL from a server that it asks, and
// one of ill intent could name another's, and pass the assertion on to it; so
// draft-ietf-oauth-rfc7523bis allows the issuer alone.
func (a Authenticator) audience(raw json.RawMessage) bool {
	var one *string
	if json.Unmarshal(raw, &one) == nil && one != nil {
		return *one == a.Audience
	}
	var list []*string
	return json.Unmarshal(raw, &list) == nil && len(list) == 1 && list[0] != nil && *list[0] == a.Audience
}

// until is when the assertion ends, and with it the need to remember it.
func (a assertion) until(now time.Time) (time.Time, error) {
	seconds := float64(now.UnixMilli()) / 1e3
	exp, ok, err := a.time("exp")
	switch {
	case err != nil:
		return time.Time{}, err
	case !ok:
		return time.Time{}, fmt.Errorf("%w: the client assertion has no exp", ErrClient)
	case exp <= seconds-skew.Seconds():
		return time.Time{}, fmt.Errorf("%w: the client assertion has expired; is the clock of the client right?", ErrClient)
	case exp > seconds+(maxAssertionLife+skew).Seconds():
		return time.Time{}, fmt.Errorf("%w: exp of the client assertion is more than %v ahead", ErrClient, maxAssertionLife)
	}
	for _, name := range []string{"iat", "nbf"} {
		at, _, err := a.time(name)
		if err != nil {
			return time.Time{}, err
		}
		if at > seconds+skew.Seconds() {
			return time.Time{}, fmt.Errorf("%w: %s of the client assertion is in the future; is the clock of the client right?", ErrClient, name)
		}
	}
	return time.Unix(int64(exp)+1, 0).Add(skew), nil
}
