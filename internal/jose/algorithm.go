package jose

import (
	"crypto"
	_ "crypto/sha256" // links the hashes of the table below
	_ "crypto/sha512"
	"fmt"
	"strings"
)

// The key types of RFC 7518, section 6.1, and RFC 8037.
const (
	ktyRSA = "RSA"
	ktyEC  = "EC"
	ktyOKP = "OKP"
	ktyOct = "oct"
)

// family is how an algorithm signs.
type family int

const (
	familyHMAC family = iota
	familyPKCS1
	familyPSS
	familyECDSA
	familyEdDSA
)

// algorithm is one entry of RFC 7518, section 3.1 (EdDSA: RFC 8037), and the only key it fits.
type algorithm struct {
	name   string
	family family
	kty    string
	crv    string // empty: the key type has no curve
	hash   crypto.Hash
	// size of a signature in bytes; 0 if it depends on the key
	size int
}

// algorithms are all that Watchword verifies, in the order in which messages name them.
var algorithms = []*algorithm{
	{name: "RS256", family: familyPKCS1, kty: ktyRSA, hash: crypto.SHA256},
	{name: "RS384", family: familyPKCS1, kty: ktyRSA, hash: crypto.SHA384},
	{name: "RS512", family: familyPKCS1, kty: ktyRSA, hash: crypto.SHA512},
	{name: "PS256", family: familyPSS, kty: ktyRSA, hash: crypto.SHA256},
	{name: "PS384", family: familyPSS, kty: ktyRSA, hash: crypto.SHA384},
	{name: "PS512", family: familyPSS, kty: ktyRSA, hash: crypto.SHA512},
	{name: "ES256", family: familyECDSA, kty: ktyEC, crv: "P-256", hash: crypto.SHA256, size: 64},
	{name: "ES384", family: familyECDSA, kty: ktyEC, crv: "P-384", hash: crypto.SHA384, size: 96},
	{name: "ES512", family: familyECDSA, kty: ktyEC, crv: "P-521", hash: crypto.SHA512, size: 132},
	{name: "EdDSA", family: familyEdDSA, kty: ktyOKP, crv: "Ed25519", size: 64},
	{name: "HS256", family: familyHMAC, kty: ktyOct, hash: crypto.SHA256, size: 32},
	{name: "HS384", family: familyHMAC, kty: ktyOct, hash: crypto.SHA384, size: 48},
	{name: "HS512", family: familyHMAC, kty: ktyOct, hash: crypto.SHA512, size: 64},
}

var algorithmByName = func() map[string]*algorithm {
	m := make(map[string]*algorithm, len(algorithms))
	for _, a := range algorithms {
		m[a.name] = a
	}
	return m
}()

// fits tells whether a key of this type and curve can be used with the algorithm at all.
func (a *algorithm) fits(m material) bool { return a.kty == m.kty && a.crv == m.crv }

// strongEnough tells whether an oct secret is as long as the hash (RFC 7518, section 3.2).
func (a *algorithm) strongEnough(m material) bool {
	return a.family != familyHMAC || len(m.raw.([]byte)) >= a.hash.Size()
}

// unknownAlgorithm is what is wrong with a name that is not in the table.
func unknownAlgorithm(name string) string {
	if strings.EqualFold(name, "none") {
		return fmt.Sprintf("alg %s means no signature at all and is never accepted; name the algorithm the key signs with", quote(name))
	}
	return fmt.Sprintf("alg %s is not known; use one of %s", quote(name), names(algorithms))
}

func names(as []*algorithm) string {
	out := make([]string, len(as))
	for i, a := range as {
		out[i] = a.name
	}
	return strings.Join(out, ", ")
}

// fitting are all algorithms that a key of this material can be used with.
func fitting(m material) []*algorithm {
	var out []*algorithm
	for _, a := range algorithms {
		if a.fits(m) {
			out = append(out, a)
		}
	}
	return out
}

// quote shows a stranger's text in a message: escaped, and never more than a few words of it.
func quote(s string) string {
	const most = 48
	if len(s) > most {
		return fmt.Sprintf("%q...", s[:most])
	}
	return fmt.Sprintf("%q", s)
}
