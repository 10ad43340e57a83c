package keyset

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/watchword-mesh/watchword/internal/jose"
)

// typeAccessToken is the `typ` of what a Set signs (RFC 9068 section 2.1).
const typeAccessToken = "at+jwt"

// Set is the keys of the issuer at one moment: one that signs, and all that
// are published. It doesn't change and may be shared.
type Set struct {
	signer *jose.Signer
	keys   []jose.Key
	jwks   []byte
}

// NewSet makes a Set of all stored records. It refuses records that don't
// agree with themselves, a key that is there twice, and anything but exactly
// one active key: an issuer that signs with a key that it doesn't publish, or
// guesses between two, is worse than one that doesn't start.
func NewSet(records []Record) (*Set, error) {
	records = slices.SortedFunc(slices.Values(records), func(a, b Record) int {
		return cmp.Compare(a.KeyID, b.KeyID)
	})
	s := &Set{}
	for i, r := range records {
		if i > 0 && records[i-1].KeyID == r.KeyID {
			return nil, fmt.Errorf("signing key %s is there twice", r.KeyID)
		}
		private, err := r.parse()
		if err != nil {
			return nil, err
		}
		if s.signer != nil {
			return nil, fmt.Errorf("signing keys %s and %s are both active; exactly one may be", records[i-1].KeyID, r.KeyID)
		}
		s.signer = private.Signer(typeAccessToken)
		s.keys = append(s.keys, private.Public())
	}
	if s.signer == nil {
		return nil, errors.New("there is no active signing key")
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

// Signer signs access tokens (`typ: at+jwt`) with the active key.
func (s *Set) Signer() *jose.Signer { return s.signer }

// Keys are the published public keys, in the order of their IDs.
func (s *Set) Keys() []jose.Key { return slices.Clone(s.keys) }

// JWKS is the published key set (RFC 7517 section 5), in the order of the key
// IDs: equal keys give equal bytes.
func (s *Set) JWKS() []byte { return slices.Clone(s.jwks) }
