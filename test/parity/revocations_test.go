package parity

import (
	"fmt"
	"maps"
	"slices"

	"pgregory.net/rapid"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// signerNames are all whose tokens can be revoked.
var signerNames = []string{"a", "any", "b", "consumer/ann", "consumer/bob", "consumer/cy", "sts", "watchword"}

// revocations are of few things, so that they have to do with the tokens; in every other
// world there are none.
func (w *world) revocations(t *rapid.T, now int64) *dataplanev1.Revocations {
	r := &dataplanev1.Revocations{Service: service}
	if !chance(t, "revocations", 2) {
		return r
	}
	if chance(t, "revoked consumers", 4) {
		r.Consumers = slices.Sorted(slices.Values(some(t, "revoked consumers of", consumers, 1, 2)))
	}
	until := func(label string) int64 {
		return pick(t, label, []int64{now - 100, now - 6, now - 4, now + 60})
	}
	for _, name := range slices.Sorted(slices.Values(some(t, "signers revoked", signerNames, 1, 4))) {
		is := &dataplanev1.RevokedOfIssuer{Issuer: name}
		if chance(t, name+" tokens", 3) {
			is.Tokens = slices.Sorted(slices.Values(some(t, name+" tokens of", []string{"j", "k", "a|b", "none"}, 1, 2)))
		}
		if chance(t, name+" instances", 4) {
			is.Instances = []*dataplanev1.RevokedInstance{{Subject: pick(t, name+" instance of", subjects), Instance: "i1"}}
		}
		found := map[string]int64{}
		for i := range rapid.IntRange(0, 2).Draw(t, name+" subjects") {
			label := fmt.Sprint(name, " subject ", i)
			found[pick(t, label, subjects)] = pick(t, label+" until", []int64{0, until(label + " at")})
		}
		for _, s := range slices.Sorted(maps.Keys(found)) {
			is.Subjects = append(is.Subjects, &dataplanev1.RevokedSubject{Subject: s, IssuedUntil: found[s]})
		}
		if chance(t, name+" issued", 3) {
			is.IssuedUntil = until(name + " issued until")
		}
		r.Issuers = append(r.Issuers, is)
	}
	return r
}
