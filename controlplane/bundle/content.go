package bundle

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/watchword-mesh/watchword/internal/jose"
)

// MaxBytes is the largest response body that is read: what internal/jose takes
// as a set. (It bounds the number of keys too.)
const MaxBytes = 64 << 10

// mostLeftOut bounds what is told about a source with nothing but odd keys.
const mostLeftOut = 100

// publicMembers are those of a JWK that are kept: RFC 7517 section 4, and the
// public ones of RFC 7518 section 6 and RFC 8037 section 2.
var publicMembers = []string{"kty", "kid", "alg", "use", "crv", "x", "y", "n", "e"}

// read checks a response body key by key. It returns the sound keys as
// canonical text, and a line for each key that is left out. A set without a
// sound key is an error: it would end all traffic of the issuer.
func read(body []byte, options jose.SetOptions) (jwks string, leftOut []string, err error) {
	if len(body) > MaxBytes {
		return "", nil, fmt.Errorf("the answer has more than %d bytes", MaxBytes)
	}
	// The set as a whole is judged by its own text, since what is made of it
	// below has only one reading.
	if _, faults := jose.ParseSet(body, options); len(faults) > 0 && faults[0].Index < 0 {
		return "", nil, errors.New(faults[0].Message)
	}
	var items []json.RawMessage
	if err := json.Unmarshal(object(body)["keys"], &items); err != nil {
		return "", nil, errors.New("the answer is not a JWK set")
	}
	good, faults := sound(items, options)
	for _, f := range faults {
		leftOut = append(leftOut, f.Error())
	}
	if len(leftOut) > mostLeftOut {
		leftOut = append(leftOut[:mostLeftOut], "and more")
	}
	if len(good) == 0 {
		return "", leftOut, errors.New("no key of the set can be used: " + strings.Join(first(leftOut, 3), "; "))
	}
	jwks, err = canonical(good, options)
	return jwks, leftOut, err
}

const sharedSecret = "a shared secret (kty oct) is not taken from a URI: who can read it there can sign with it; give it as keySet.secret"

// sound returns the keys that jose takes, without shared secrets, and the
// faults of all others at their places in the set.
func sound(items []json.RawMessage, options jose.SetOptions) (good []json.RawMessage, faults []jose.Fault) {
	var asymmetric []json.RawMessage
	var place []int
	for i, item := range items {
		if members := object(item); text(members["kty"]) == "oct" {
			faults = append(faults, jose.Fault{Index: i, KeyID: text(members["kid"]), Message: sharedSecret})
			continue
		}
		asymmetric, place = append(asymmetric, item), append(place, i)
	}
	if len(asymmetric) == 0 {
		return nil, faults
	}
	bad := map[int]bool{}
	_, wrong := jose.ParseSet(setOf(asymmetric), options)
	for _, f := range wrong {
		if f.Index < 0 {
			return nil, append(faults, f)
		}
		bad[f.Index] = true
		f.Index = place[f.Index]
		faults = append(faults, f)
	}
	for i, item := range asymmetric {
		if !bad[i] {
			good = append(good, item)
		}
	}
	slices.SortStableFunc(faults, func(a, b jose.Fault) int { return a.Index - b.Index })
	return good, faults
}

// canonical is the set with the public members of its keys alone, sorted, so
// that equal sets are equal texts whatever the server does to its JSON. It must
// read back as sound.
func canonical(good []json.RawMessage, options jose.SetOptions) (string, error) {
	var texts []json.RawMessage
	for _, item := range good {
		members := object(item)
		for name := range members {
			if !slices.Contains(publicMembers, name) {
				delete(members, name)
			}
		}
		one, err := json.Marshal(members)
		if err != nil {
			return "", errors.New("a key of the set can't be written again")
		}
		texts = append(texts, one)
	}
	slices.SortFunc(texts, func(a, b json.RawMessage) int { return strings.Compare(string(a), string(b)) })
	set := setOf(texts)
	keys, faults := jose.ParseSet(set, options)
	if len(faults) > 0 || len(keys) < len(good) || slices.ContainsFunc(keys, jose.Key.Symmetric) {
		return "", errors.New("the set does not read the same when it is written again")
	}
	return string(set), nil
}

// object returns the members of a JSON object by their exact names, or nil.
func object(value []byte) map[string]json.RawMessage {
	var members map[string]json.RawMessage
	if json.Unmarshal(value, &members) != nil {
		return nil
	}
	return members
}

// text returns a JSON string, or "".
func text(value json.RawMessage) string {
	var s string
	_ = json.Unmarshal(value, &s)
	return s
}

func setOf(items []json.RawMessage) []byte {
	var b []byte
	b = append(b, `{"keys":[`...)
	for i, item := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, item...)
	}
	return append(b, `]}`...)
}

func first(list []string, n int) []string {
	if len(list) <= n {
		return list
	}
	return append(slices.Clone(list[:n]), "and more")
}
