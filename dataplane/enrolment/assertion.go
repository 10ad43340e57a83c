package enrolment

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"
)

// assertionLifetime is short, since an assertion is used at once and once.
const assertionLifetime = time.Minute

// assertion is a client assertion (RFC 7523 section 3). Its audience is the
// issuer, and not the address that it is sent to: that a server chooses, and one
// that has ill intent could choose another server's (draft-ietf-oauth-rfc7523bis).
func (k *keyPair) assertion(service, issuer string, now time.Time) (string, error) {
	claims, err := json.Marshal(struct {
		Issuer   string `json:"iss"`
		Subject  string `json:"sub"`
		Audience string `json:"aud"`
		ID       string `json:"jti"`
		IssuedAt int64  `json:"iat"`
		Expiry   int64  `json:"exp"`
	}{service, service, issuer, rand.Text(), now.Unix(), now.Add(assertionLifetime).Unix()})
	if err != nil {
		return "", fmt.Errorf("encoding a client assertion: %w", err)
	}
	return k.signer.Sign(claims)
}
