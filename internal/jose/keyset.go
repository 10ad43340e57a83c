package jose

import "slices"

// KeySet is keys by their kid, so that a token finds those that it may use in one look,
// however many there are. It is immutable; the zero KeySet has no key.
type KeySet struct {
	all, anonymous []Key
	byID           map[string][]Key // those without kid, too
}

// NewKeySet keeps the order of the keys where a token may use several.
func NewKeySet(keys []Key) KeySet {
	s := KeySet{all: slices.Clone(keys), byID: map[string][]Key{}}
	for _, k := range keys {
		if k.ID() == "" {
			s.anonymous = append(s.anonymous, k)
		}
	}
	for _, k := range keys {
		id := k.ID()
		switch {
		case id == "":
		case len(s.anonymous) == 0:
			s.byID[id] = append(s.byID[id], k)
		case s.byID[id] == nil:
			s.byID[id] = slices.DeleteFunc(slices.Clone(keys), func(k Key) bool { return k.ID() != "" && k.ID() != id })
		}
	}
	return s
}

// Candidates are the keys that a token with this kid may use, whatever its alg: see
// Verify.
func (s *KeySet) Candidates(kid string) []Key {
	if kid == "" {
		return s.all
	}
	if keys := s.byID[kid]; keys != nil {
		return keys
	}
	return s.anonymous
}

// Has tells whether a key is one of the set: equal in material, kid and algorithm.
func (s *KeySet) Has(k Key) bool {
	return k.Algorithm() != "" && slices.ContainsFunc(s.Candidates(k.ID()), k.Equal)
}
