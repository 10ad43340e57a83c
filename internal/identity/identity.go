// Package identity names who takes part in a mesh, by SPIFFE IDs (the SPIFFE-ID
// standard, section 2):
//
//	spiffe://TRUST-DOMAIN/SERVICE            a service: the `sub` of its tokens
//	spiffe://TRUST-DOMAIN/SERVICE/INSTANCE   an enrolled instance: its certificate
//	spiffe://TRUST-DOMAIN/_control-plane     a replica of the control plane
//
// No service can have the name of the last: theirs begin with a letter or digit.
package identity

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"regexp"
	"strings"
)

const scheme = "spiffe://"

// controlPlane stands where services have their name.
const controlPlane = "_control-plane"

// ID is a service, or one instance of it.
type ID struct {
	TrustDomain string
	Service     string
	// Instance is empty for the service itself.
	Instance string
}

// String is the SPIFFE ID.
func (id ID) String() string {
	if id.Instance == "" {
		return scheme + id.TrustDomain + "/" + id.Service
	}
	return scheme + id.TrustDomain + "/" + id.Service + "/" + id.Instance
}

// ControlPlane is the SPIFFE ID of all replicas of the control plane.
func ControlPlane(trustDomain string) string { return scheme + trustDomain + "/" + controlPlane }

var (
	domain = regexp.MustCompile(`^[a-z0-9._-]{1,255}$`)
	label  = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
)

// IsName tells whether a Service, an instance, or what else is named as they are,
// may be called so: a label of RFC 1123 section 2.1 in lower case, of 1 to 63
// characters.
func IsName(text string) bool { return label.MatchString(text) }

// Parse reads the ID of a service or an instance. It refuses every other
// spelling of it, so that equal IDs are equal texts.
func Parse(text string) (ID, error) {
	rest, ok := strings.CutPrefix(text, scheme)
	parts := strings.Split(rest, "/")
	if !ok || len(parts) < 2 || len(parts) > 3 || !domain.MatchString(parts[0]) {
		return ID{}, fmt.Errorf("%q is not spiffe://TRUST-DOMAIN/SERVICE[/INSTANCE]", text)
	}
	for _, p := range parts[1:] {
		if !IsName(p) {
			return ID{}, fmt.Errorf("%q is not spiffe://TRUST-DOMAIN/SERVICE[/INSTANCE]: %q has other characters than lower-case letters, digits and dashes", text, p)
		}
	}
	id := ID{TrustDomain: parts[0], Service: parts[1]}
	if len(parts) == 3 {
		id.Instance = parts[2]
	}
	return id, nil
}

var lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// InstanceOf is the name of the instance that has a public key, given as the DER
// of its SubjectPublicKeyInfo (RFC 5280 section 4.1.2.7): 128 bits of its SHA-256.
// Who enrols a key again is the same instance.
func InstanceOf(publicKey []byte) string {
	sum := sha256.Sum256(publicKey)
	return lower.EncodeToString(sum[:16])
}
