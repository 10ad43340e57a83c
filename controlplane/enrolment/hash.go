package enrolment

import (
	"crypto/hmac"
	"crypto/sha256"

	"github.com/watchword-mesh/watchword/internal/jointoken"
)

// Hash is what is kept of the secret of a join token: an HMAC under the pepper,
// which covers the token's name and service. Secrets are random, so that it need
// not be slow. The words in front keep it apart from other uses of the pepper.
func Hash(pepper []byte, service string, t jointoken.Token) []byte {
	mac := hmac.New(sha256.New, pepper)
	mac.Write([]byte("watchword join token\x00" + service + "\x00" + t.ID + "\x00" + t.Secret()))
	return mac.Sum(nil)
}
