package clientauth

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/watchword-mesh/watchword/internal/jose"
)

// What a caller of Authenticate decides on.
var (
	// ErrRequest: the client authenticated in a way that no request may; RFC
	// 6749 section 5.2 calls it invalid_request.
	ErrRequest = errors.New("malformed client authentication")
	// ErrClient: it isn't known who asks; RFC 6749 section 5.2 calls it
	// invalid_client.
	ErrClient = errors.New("client authentication failed")
)

// Directory knows the secrets of services and the keys of their instances. It
// is asked on every request and answers from memory.
type Directory interface {
	// ClientSecrets gives the secrets of a service; none if it isn't known.
	ClientSecrets(service string) []Secret
	// InstanceKey gives the key that an instance of a service has enrolled, with
	// the instance as its ID; false if it isn't known, or no more.
	InstanceKey(service, instance string) (jose.Key, bool)
}

// Authenticator authenticates clients at the token endpoint. The zero value
// knows nobody.
type Authenticator struct {
	// Pepper is the one the secrets were made with, at least [MinPepper] bytes.
	Pepper    []byte
	Directory Directory
	// Audience is what client assertions must be for: the `iss` of the issuer.
	Audience string
	// Replays remembers the assertions that were used. Without it, and without an
	// Audience, none is accepted.
	Replays *Replays
	// Now is the clock; nil means time.Now.
	Now func() time.Time

	// verifySignature is that of jose, or what a test counts with.
	verifySignature func(*jose.Unverified, []jose.Key, jose.VerifyOptions) (jose.Token, error)
	// hash is digest, or what a test counts with.
	hash func(pepper []byte, service, secret string) []byte
}

// Identity is a client that proved who it is.
type Identity struct {
	Service string
	// SecretID is the ID of the secret that it used; empty if it was none.
	SecretID string
	// Instance is the one that proved its key; empty if none did.
	Instance string
}

// Authenticate tells who sent a request with these values of the Authorization
// header and this body. It takes client_secret_basic and client_secret_post
// (RFC 6749 section 2.3.1) and private_key_jwt (RFC 7523 section 2.2), one of
// them. The error is an ErrRequest or an
// ErrClient, for the operator; it holds nothing that the client sent.
func (a Authenticator) Authenticate(authorization []string, form url.Values) (Identity, error) {
	c, err := read(authorization, form)
	if err != nil {
		return Identity{}, err
	}
	if c.assertion == "" {
		return a.verify(c)
	}
	found, err := a.VerifyAssertion(c.assertion)
	if err == nil && c.id != "" && c.id != found.Service {
		return Identity{}, fmt.Errorf("%w: client_id differs from the client assertion", ErrClient)
	}
	return found, err
}

// Claimed gives the client_id of a request that may not have been
// authenticated, for audit only; empty if there is none. It is what a stranger
// says, and may even be a secret in the wrong place.
func Claimed(authorization []string, form url.Values) string {
	c, _ := read(authorization, form)
	if c.id != "" || c.assertion == "" {
		return c.id
	}
	asserted, _ := readAssertion(c.assertion)
	return asserted.text("iss")
}

func (a Authenticator) now() time.Time {
	if a.Now == nil {
		return time.Now()
	}
	return a.Now()
}

// verify does the same work whoever asks: one HMAC, then at least one
// comparison in constant time.
func (a Authenticator) verify(c credentials) (Identity, error) {
	hash := a.hash
	if hash == nil {
		hash = digest
	}
	got := hash(a.Pepper, c.id, c.secret)
	var known []Secret
	if a.Directory != nil && len(a.Pepper) >= MinPepper {
		known = a.Directory.ClientSecrets(c.id)
	}
	if len(known) == 0 {
		known = []Secret{{Hash: make([]byte, len(got))}}
	}
	found := Identity{}
	for _, s := range known {
		if subtle.ConstantTimeCompare(got, s.Hash) == 1 && s.Service == c.id {
			found = Identity{Service: s.Service, SecretID: s.ID}
		}
	}
	if found.Service == "" {
		return Identity{}, fmt.Errorf("%w: unknown service or wrong secret", ErrClient)
	}
	return found, nil
}

// credentials is what the client says of itself: a secret or an assertion.
type credentials struct{ id, secret, assertion string }

// read finds the credentials of the one method that the request uses.
func read(authorization []string, form url.Values) (credentials, error) {
	if len(authorization) > 1 {
		return credentials{}, fmt.Errorf("%w: more than one Authorization header", ErrRequest)
	}
	for _, name := range []string{"client_id", "client_secret", "client_assertion", "client_assertion_type"} {
		if len(form[name]) > 1 {
			return credentials{}, fmt.Errorf("%w: more than one %s", ErrRequest, name)
		}
	}
	posted := credentials{id: form.Get("client_id"), secret: form.Get("client_secret")}
	asserted := form.Get("client_assertion") != "" || form.Get("client_assertion_type") != ""
	if len(authorization) == 1 {
		if posted.secret != "" || asserted {
			return credentials{}, fmt.Errorf("%w: both an Authorization header and credentials in the body", ErrRequest)
		}
		return readBasic(authorization[0], posted.id)
	}
	if asserted && posted.secret != "" {
		return credentials{}, fmt.Errorf("%w: both client_assertion and client_secret", ErrRequest)
	}
	if asserted {
		return posted.readAssertion(form)
	}
	if posted.id == "" || posted.secret == "" {
		return posted, fmt.Errorf("%w: client_id or client_secret is missing", ErrClient)
	}
	return posted, nil
}

// readAssertion takes the assertion that comes with a client_id, or without: it
// says itself who it is of (RFC 7521 section 4.2).
func (c credentials) readAssertion(form url.Values) (credentials, error) {
	c.assertion = form.Get("client_assertion")
	if c.assertion == "" {
		return c, fmt.Errorf("%w: client_assertion is missing", ErrClient)
	}
	if form.Get("client_assertion_type") != AssertionType {
		return c, fmt.Errorf("%w: client_assertion_type must be %s", ErrClient, AssertionType)
	}
	return c, nil
}

// readBasic reads id and secret, each form-encoded, then joined by a colon and
// encoded as base64 (RFC 6749 section 2.3.1). Clients may repeat their id in
// the body, if it is the same.
func readBasic(authorization, postedID string) (credentials, error) {
	scheme, encoded, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Basic") {
		return credentials{}, fmt.Errorf("%w: the Authorization header is not of the scheme Basic", ErrClient)
	}
	pair, err := base64.StdEncoding.Strict().DecodeString(strings.Trim(encoded, " "))
	if err != nil {
		return credentials{}, fmt.Errorf("%w: the Basic credentials are not base64", ErrClient)
	}
	encodedID, encodedSecret, _ := strings.Cut(string(pair), ":")
	id, errID := url.QueryUnescape(encodedID)
	secret, errSecret := url.QueryUnescape(encodedSecret)
	if errID != nil || errSecret != nil {
		return credentials{}, fmt.Errorf("%w: the Basic credentials are not form-encoded", ErrClient)
	}
	if id == "" || secret == "" {
		return credentials{id: id}, fmt.Errorf("%w: the Basic credentials lack the id or the secret", ErrClient)
	}
	if postedID != "" && postedID != id {
		return credentials{}, fmt.Errorf("%w: client_id differs from the Authorization header", ErrRequest)
	}
	return credentials{id: id, secret: secret}, nil
}
