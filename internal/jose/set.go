package jose

import (
	"errors"
	"fmt"
	"strings"
)

// The largest JWK set or PEM text, in bytes and keys. A token without kid may cost one
// signature check per key.
const (
	maxSetBytes = 64 << 10
	maxSetKeys  = 100
)

// SetOptions says how the keys of a set may be used. The zero value is useful.
type SetOptions struct {
	// Algorithms is the allow-list, and what a key without alg is used with. Empty: what
	// each key says, or the usual one for its type: RS256, ES256, ES384, ES512, EdDSA, HS256.
	Algorithms []string
	// AllowWeak takes RSA keys of 1024 bits and more, and secrets of any length.
	AllowWeak bool
}

// Fault is one thing wrong with a set or PEM text. It never shows key material.
type Fault struct {
	// Index is the key's position from 0, or -1 if the set (or text) itself is at fault.
	Index   int
	KeyID   string // kid, if it could be read
	Message string // what is wrong and what would be right
}

// Error names the key and what is wrong with it.
func (f Fault) Error() string {
	switch {
	case f.Index < 0:
		return f.Message
	case f.KeyID == "":
		return fmt.Sprintf("key %d: %s", f.Index, f.Message)
	}
	return fmt.Sprintf("key %d (kid %s): %s", f.Index, quote(f.KeyID), f.Message)
}

// ParseSet reads a JWK set (RFC 7517, section 5) and returns all faults at once, with the
// sound keys in the order given: who may refuse the set refuses on any Fault, who must
// live with a foreign set takes the keys and shows the faults. A Fault with Index -1 means
// no keys. Of two keys in each other's way (kid, material) the first stays.
//
// A key without alg that fits several of o.Algorithms gives one Key per algorithm, with
// one kid. Members that RFC 7517 does not define for verification (x5c, ...) are dropped.
func ParseSet(jwks []byte, o SetOptions) ([]Key, []Fault) {
	allowed, faults := o.allowed()
	items, err := setItems(jwks)
	if err != nil {
		faults = append(faults, setFault(err))
	}
	if len(faults) > 0 {
		return nil, faults
	}
	var keys []Key
	seen := newSeen()
	for i, item := range items {
		p := parseJWK(item, o.AllowWeak)
		found := p.keys(allowed)
		seen.check(i, &p)
		if len(p.wrong) == 0 {
			keys = append(keys, found...)
		}
		for _, message := range p.wrong {
			faults = append(faults, Fault{Index: i, KeyID: p.kid, Message: message})
		}
	}
	return keys, faults
}

func setFault(err error) Fault { return Fault{Index: -1, Message: err.Error()} }

// allowed are the algorithms of the allow-list; nil if there is none.
func (o SetOptions) allowed() (as []*algorithm, faults []Fault) {
	for _, name := range o.Algorithms {
		a := algorithmByName[name]
		if a == nil {
			faults = append(faults, Fault{Index: -1, Message: "allowed algorithms: " + unknownAlgorithm(name)})
			continue
		}
		as = append(as, a)
	}
	return as, faults
}

// setItems are the texts of the set's keys.
func setItems(jwks []byte) ([][]byte, error) {
	if len(jwks) > maxSetBytes {
		return nil, fmt.Errorf("JWK set of %d bytes; at most %d are read", len(jwks), maxSetBytes)
	}
	if strings.HasPrefix(strings.TrimSpace(string(jwks)), "-----BEGIN ") {
		return nil, errors.New(`PEM text, not a JWK set; give it as pem, or convert it to {"keys":[...]}`)
	}
	if err := checkText(jwks); err != nil {
		return nil, fmt.Errorf(`JWK set is %w; expected {"keys":[...]}`, err)
	}
	// Below the outermost object duplicates are one key's fault, not the set's.
	members, err := (&walker{text: jwks}).topObject()
	if errors.Is(err, errNotObject) {
		return nil, errors.New(`JWK set is not a JSON object; expected {"keys":[...]}`)
	}
	if err != nil {
		return nil, fmt.Errorf("JWK set: %w", err)
	}
	return keysMember(members)
}

func keysMember(members []member) ([][]byte, error) {
	var keys []byte
	bare := false
	for _, m := range members {
		switch m.name {
		case "keys":
			keys = m.value
		case "kty":
			bare = true
		}
	}
	if keys == nil && bare {
		return nil, errors.New(`a single JWK, not a set; wrap it as {"keys":[...]}`)
	}
	if keys == nil {
		return nil, errors.New(`JWK set has no "keys"; expected {"keys":[...]}`)
	}
	items, ok, err := (&walker{text: keys}).topArray()
	switch {
	case err != nil:
		return nil, fmt.Errorf("JWK set: %w", err)
	case !ok:
		return nil, errors.New(`"keys" is not an array; expected {"keys":[...]}`)
	case len(items) == 0:
		return nil, errors.New(`"keys" is empty; a set needs at least one key`)
	case len(items) > maxSetKeys:
		return nil, fmt.Errorf("JWK set of %d keys; at most %d are read", len(items), maxSetKeys)
	}
	return items, nil
}

// seen is what earlier keys of the set have taken: kid and material, each by position.
type seen struct {
	kid      map[string]int
	material map[string]int
}

func newSeen() seen { return seen{kid: map[string]int{}, material: map[string]int{}} }

// check adds to p what earlier keys make wrong about it. Keys that are refused themselves
// count as well: that a set names one kid twice is wrong whatever else is.
func (s seen) check(i int, p *parsed) {
	if p.kidKnown {
		switch first, dup := s.kid[p.kid]; {
		case dup && p.kid == "":
			p.fault("no kid, and key %d has none either; at most one key of a set may lack it", first)
		case dup:
			p.fault("kid is already that of key %d; give each key its own", first)
		default:
			s.kid[p.kid] = i
		}
	}
	if p.mat.raw == nil {
		return
	}
	id := p.mat.thumbprint()
	if first, dup := s.material[id]; dup {
		p.fault("same key material as key %d; list each key once", first)
		return
	}
	s.material[id] = i
}
