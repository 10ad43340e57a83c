package keyset

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// ErrUnknownKey means that no key of that ID is there.
var ErrUnknownKey = errors.New("there is no such key")

// Revoke takes one key out of use at once (rule 11). If it signs, the standby takes
// over, whether or not all verifiers have it: what the key has signed is refused
// everywhere anyway. spares are new keys, not stored yet: of them come the next
// standby, and the key that signs if there is no standby. An issuer is never left
// without a key that signs. Who revokes a key again changes nothing.
func Revoke(k Keys, kid string, spares [2]Record, now time.Time) (Change, error) {
	r, ok := k.Records[kid]
	if !ok {
		return Change{}, fmt.Errorf("signing key %s: %w", kid, ErrUnknownKey)
	}
	if r.State == Revoked {
		return Change{}, nil
	}
	return revoke(k, []Record{r}, spares, now), nil
}

// RevokeAll takes all keys out of use at once, for the case that somebody has them
// all. No standby helps: what signs next no verifier has yet.
func RevokeAll(k Keys, spares [2]Record, now time.Time) Change {
	return revoke(k, k.published(), spares, now)
}

func revoke(k Keys, gone []Record, spares [2]Record, now time.Time) Change {
	after := Keys{maps.Clone(k.Records), Open{Active: k.Open.Active, Except: maps.Clone(k.Open.Except), Asked: k.Open.Asked}}
	c := Change{Removes: true}
	for _, r := range gone {
		r.State, r.Unsigned, r.PrivatePKCS8 = Revoked, now, nil
		after.Records[r.KeyID] = r
		c.Put = append(c.Put, r)
	}
	spare := spares[:]
	if after.Records[after.Open.Active].State == Revoked {
		next, ok := after.Standby()
		if !ok {
			next, spare = spare[0], spare[1:]
		}
		next.State, next.Activated = Active, now
		after.Records[next.KeyID] = next
		after.Open.Active = next.KeyID
		c.Put = append(c.Put, next)
	}
	maps.DeleteFunc(after.Open.Except, func(_, kid string) bool { return after.Records[kid].State == Revoked })
	if _, ok := after.Standby(); !ok && len(after.published()) < MaxPublished {
		next := spare[0]
		next.State = Standby
		c.Put = append(c.Put, next)
	}
	c.Open = &after.Open
	slices.SortStableFunc(c.Put, func(a, b Record) int { return rank(a.State) - rank(b.State) })
	return c
}

// rank is for an order that tests and people can read.
func rank(s State) int { return slices.Index([]State{Revoked, Active, Standby}, s) }
