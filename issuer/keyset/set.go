package keyset

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/watchword-mesh/watchword/internal/jose"
)

// typeAccessToken is the `typ` of what a Set signs (RFC 9068 section 2.1).
const typeAccessToken = "at+jwt"

// Set is the keys of the issuer at one moment: those that sign, and all that are
// published. It doesn't change and may be shared.
type Set struct {
	open    Open
	signers map[string]*jose.Signer // by key ID: active keys
	keys    []jose.Key
	jwks    []byte
}

// NewSet makes a Set of all stored records. It refuses records that don't agree with
// themselves, and an Open that names a key which isn't active: an issuer that signs
// with a key that it doesn't publish, or guesses between two, is worse than one that
// doesn't start. Revoked keys are not published and not looked at.
func NewSet(k Keys) (*Set, error) {
	s := &Set{open: k.Open, signers: map[string]*jose.Signer{}}
	for _, kid := range slices.Sorted(maps.Keys(k.Records)) {
		r := k.Records[kid]
		if r.State == Revoked {
			continue
		}
		private, err := r.parse()
		if err != nil {
			return nil, err
		}
		if r.KeyID != kid {
			return nil, fmt.Errorf("signing key %s is there under the ID %s", r.KeyID, kid)
		}
		if r.State == Active {
			s.signers[kid] = private.Signer(typeAccessToken)
		}
		s.keys = append(s.keys, private.Public())
	}
	if k.Open.Active == "" {
		return nil, errors.New("no signing key is open")
	}
	for _, kid := range append(slices.Sorted(maps.Values(k.Open.Except)), k.Open.Active) {
		if s.signers[kid] == nil {
			return nil, fmt.Errorf("signing key %s is to sign, and is not an active key", kid)
		}
	}
	s.jwks = encode(s.keys)
	return s, nil
}

// encode joins JWKs that are JSON already (RFC 7517 section 5).
func encode(keys []jose.Key) []byte {
	jwks := make([]string, len(keys))
	for i, k := range keys {
		jwks[i] = k.JWK()
	}
	return []byte(`{"keys":[` + strings.Join(jwks, ",") + `]}`)
}

// SignerFor signs access tokens (`typ: at+jwt`) for an audience.
func (s *Set) SignerFor(audience string) *jose.Signer { return s.signers[s.open.For(audience)] }

// Keys are the published public keys, in the order of their IDs.
func (s *Set) Keys() []jose.Key { return slices.Clone(s.keys) }

// JWKS is the published key set (RFC 7517 section 5), in the order of the key
// IDs: equal keys give equal bytes.
func (s *Set) JWKS() []byte { return slices.Clone(s.jwks) }
