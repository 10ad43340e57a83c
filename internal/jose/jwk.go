package jose

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"unicode"
	"unicode/utf8"

	"github.com/lestrrat-go/jwx/v2/jwk"
)

// maxKeyIDBytes bounds a kid: it travels in the header of every token.
const maxKeyIDBytes = 256

const privateKeyFault = "holds a private key; publish only the public part, and replace the key, which is no longer secret"

// privateMembers of RFC 7518, sections 6.2.2 and 6.3.2, and of AKP keys.
var privateMembers = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "priv"}

// parsed is one JWK on its way to a Key, with all that is wrong with it.
type parsed struct {
	members  map[string][]byte
	kid      string
	kidKnown bool // kid was read, or is absent
	alg      *algorithm
	mat      material // raw is nil if it is unusable
	weak     bool     // weak keys are taken
	wrong    []string
}

func (p *parsed) fault(format string, args ...any) {
	p.wrong = append(p.wrong, fmt.Sprintf(format, args...))
}

func parseJWK(item []byte, weak bool) (p parsed) {
	p.weak = weak
	members, err := object(item)
	if errors.Is(err, errNotObject) {
		p.fault("not a JSON object; each key is one")
		return p
	}
	if err != nil {
		p.fault("%v", err)
		return p
	}
	p.members = make(map[string][]byte, len(members))
	for _, m := range members {
		p.members[m.name] = m.value
	}
	p.readKeyID()
	p.readUse()
	p.readAlgorithm()
	p.checkPublic()
	p.readMaterial()
	return p
}

// str is a member that must be a string if present.
func (p *parsed) str(name string) (s string, present, ok bool) {
	value, present := p.members[name]
	if !present {
		return "", false, true
	}
	if s, ok = text(value); !ok {
		p.fault("%s is not a string", name)
	}
	return s, true, ok
}

func (p *parsed) readKeyID() {
	kid, _, ok := p.str("kid")
	if !ok {
		return
	}
	if wrong := checkKeyID(kid); wrong != "" {
		p.fault("%s", wrong)
		return
	}
	p.kid, p.kidKnown = kid, true
}

func checkKeyID(kid string) string {
	if len(kid) > maxKeyIDBytes {
		return fmt.Sprintf("kid of %d bytes; at most %d", len(kid), maxKeyIDBytes)
	}
	if !utf8.ValidString(kid) {
		return "kid is not UTF-8; use printable text"
	}
	for _, r := range kid {
		if unicode.IsControl(r) {
			return "kid has a control character; use printable text"
		}
	}
	return ""
}

// readUse refuses keys that are not for signatures (RFC 7517, sections 4.2 and 4.3).
func (p *parsed) readUse() {
	if use, present, ok := p.str("use"); present && ok && use != "sig" {
		p.fault(`use is %s; a key that verifies tokens has "sig", or no use`, quote(use))
	}
	value, present := p.members["key_ops"]
	if !present {
		return
	}
	items, ok, err := (&walker{text: value}).topArray()
	if !ok || err != nil {
		p.fault(`key_ops is not an array; a key that verifies tokens has ["verify"], or no key_ops`)
		return
	}
	var ops []string
	for _, item := range items {
		op, ok := text(item)
		if !ok || slices.Contains(ops, op) {
			p.fault("key_ops must hold strings, each once")
			return
		}
		ops = append(ops, op)
	}
	if !slices.Contains(ops, "verify") {
		p.fault(`key_ops lacks "verify"; a key that verifies tokens has ["verify"], or no key_ops`)
	}
}

func (p *parsed) readAlgorithm() {
	name, present, ok := p.str("alg")
	if !present || !ok {
		return
	}
	if p.alg = algorithmByName[name]; p.alg == nil {
		p.fault("%s", unknownAlgorithm(name))
	}
}

func (p *parsed) checkPublic() {
	for _, name := range privateMembers {
		if _, has := p.members[name]; has {
			p.fault(privateKeyFault)
			return
		}
	}
}

// readMaterial hands jwx only the members that define the key, each checked before, and
// checks again what jwx made of them.
func (p *parsed) readMaterial() {
	clean, ok := p.cleanMembers()
	if !ok {
		return
	}
	raw, err := decodeKey(clean)
	if err != nil {
		p.fault("%s key cannot be read; check its members", clean["kty"])
		return
	}
	mat, err := newMaterial(raw, p.weak)
	if err != nil {
		p.fault("%v", err)
		return
	}
	p.mat = mat
}

func decodeKey(clean map[string]string) (any, error) {
	key, err := jwk.ParseKey([]byte(canonical(clean)))
	if err != nil {
		return nil, err
	}
	switch clean["kty"] {
	case ktyRSA:
		raw := new(rsa.PublicKey)
		return raw, key.Raw(raw)
	case ktyEC:
		raw := new(ecdsa.PublicKey)
		return raw, key.Raw(raw)
	case ktyOKP:
		var raw ed25519.PublicKey
		err := key.Raw(&raw)
		return raw, err
	}
	var raw []byte
	err = key.Raw(&raw)
	return raw, err
}

// cleanMembers are the members that define the key.
func (p *parsed) cleanMembers() (map[string]string, bool) {
	kty, present, ok := p.str("kty")
	if !present {
		p.fault("no kty; use RSA, EC, OKP or oct")
	}
	if !present || !ok {
		return nil, false
	}
	clean := map[string]string{"kty": kty}
	switch kty {
	case ktyRSA:
		n, okN := p.bytes("n")
		e, okE := p.bytes("e")
		if !okN || !okE || !p.checkExponent(e) {
			return nil, false
		}
		// Some issuers pad n with a zero byte; its value, and so the key, is the same.
		clean["n"], clean["e"] = encode(trimZeros(n)), encode(trimZeros(e))
		return clean, true
	case ktyEC, ktyOKP:
		return clean, p.readPoint(clean)
	case ktyOct:
		k, ok := p.bytes("k")
		clean["k"] = encode(k)
		return clean, ok
	}
	p.fault("kty %s is not supported; use RSA, EC, OKP or oct", quote(kty))
	return nil, false
}

func trimZeros(b []byte) []byte {
	for len(b) > 1 && b[0] == 0 {
		b = b[1:]
	}
	return b
}

// checkExponent keeps e in what Go and Envoy compute with: below 2^31.
func (p *parsed) checkExponent(e []byte) bool {
	if e = trimZeros(e); len(e) > 4 || len(e) == 4 && e[0] >= 0x80 {
		p.fault(largeExponent)
		return false
	}
	return true
}

var curves = map[string][]string{ktyEC: {"P-256", "P-384", "P-521"}, ktyOKP: {"Ed25519"}}

func (p *parsed) readPoint(clean map[string]string) bool {
	kty := clean["kty"]
	crv, present, ok := p.str("crv")
	if !ok {
		return false
	}
	if !present {
		p.fault("%s key without crv; use %s", kty, oneOf(curves[kty]))
		return false
	}
	if !slices.Contains(curves[kty], crv) {
		p.fault("crv %s is not supported for kty %s; use %s", quote(crv), kty, oneOf(curves[kty]))
		return false
	}
	clean["crv"] = crv
	axes := []string{"x", "y"}
	if kty == ktyOKP {
		axes = axes[:1]
	}
	sound := true
	for _, axis := range axes {
		b, ok := p.bytes(axis)
		if ok && len(b) != coordinateSize[crv] {
			p.fault("%s of %s is %d bytes; it must be %d, with leading zeros", axis, crv, len(b), coordinateSize[crv])
			ok = false
		}
		clean[axis], sound = encode(b), sound && ok
	}
	return sound
}

func oneOf(choices []string) string {
	s := choices[0]
	for i, c := range choices[1:] {
		if i == len(choices)-2 {
			s += " or " + c
		} else {
			s += ", " + c
		}
	}
	return s
}

// bytes is a required member in base64url. Messages never show its value.
func (p *parsed) bytes(name string) ([]byte, bool) {
	s, present, ok := p.str(name)
	if !present {
		p.fault("%s is missing", name)
	}
	if !present || !ok {
		return nil, false
	}
	b, err := decodeBase64(s)
	if err != nil {
		p.fault("%s is not canonical base64url (RFC 7515, section 2): no padding, no white space, no spare bits", name)
		return nil, false
	}
	if len(b) == 0 {
		p.fault("%s is empty", name)
		return nil, false
	}
	return b, true
}

// usual is what a key is used with if neither it nor the operator says.
func usual(m material) *algorithm { return fitting(m)[0] }

// keys are the Keys of sound material under the allow-list; nil means any algorithm.
func (p *parsed) keys(allowed []*algorithm) []Key {
	if p.mat.raw == nil {
		return nil
	}
	var out []Key
	for _, a := range p.choose(allowed) {
		out = append(out, newKey(p.kid, a, p.mat))
	}
	return out
}

func (p *parsed) choose(allowed []*algorithm) []*algorithm {
	if _, named := p.members["alg"]; named {
		if p.alg == nil { // said already
			return nil
		}
		return p.chooseNamed(allowed)
	}
	if allowed == nil {
		return p.strong([]*algorithm{usual(p.mat)})
	}
	var fit []*algorithm
	for _, a := range allowed {
		if a.fits(p.mat) && !slices.Contains(fit, a) {
			fit = append(fit, a)
		}
	}
	if len(fit) == 0 {
		p.fault("none of the allowed algorithms (%s) fits a key of type %s; allow one of %s", names(allowed), p.mat.typeName(), names(fitting(p.mat)))
		return nil
	}
	return p.strong(fit)
}

func (p *parsed) chooseNamed(allowed []*algorithm) []*algorithm {
	if !p.alg.fits(p.mat) {
		p.fault("alg %s does not fit a key of type %s; use %s", p.alg.name, p.mat.typeName(), names(fitting(p.mat)))
		return nil
	}
	if allowed != nil && !slices.Contains(allowed, p.alg) {
		p.fault("alg %s is not allowed here; allowed: %s", p.alg.name, names(allowed))
		return nil
	}
	return p.strong([]*algorithm{p.alg})
}

// strong leaves out HMAC algorithms for which the secret is too short.
func (p *parsed) strong(as []*algorithm) []*algorithm {
	var out []*algorithm
	for _, a := range as {
		if p.weak || a.strongEnough(p.mat) {
			out = append(out, a)
		}
	}
	if len(out) == 0 {
		p.fault("secret k of %d bytes is too short for %s; use at least %d random bytes", len(p.mat.raw.([]byte)), as[0].name, as[0].hash.Size())
	}
	return out
}

func (m material) typeName() string {
	if m.crv == "" {
		return m.kty
	}
	return m.kty + " " + m.crv
}
