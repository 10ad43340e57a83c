package access

import (
	"fmt"
	"slices"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Unseen refuses what an actor names to change, if it may not see it as it is
// stored, or could not make it where there is none. What it answers depends on what
// was given alone, so that nobody learns whether it is there, or what is in it: ask
// before anything is compared with what is stored. A resource that is nil is to be
// deleted.
func (a Actor) Unseen(before policy.State, given map[policy.Key]*policyv1.Resource) []Denial {
	if a.SeesAll() {
		return nil
	}
	var out []Denial
	for k, r := range given {
		stored := before[k]
		if stored != nil && a.SeesResource(stored) {
			continue
		}
		alone := policy.State{}
		if r != nil {
			alone[k] = r
		}
		may := a.MayChange(policy.State{}, alone, []policy.Key{k})
		if stored == nil && r != nil && len(may) == 0 {
			continue
		}
		d := Denial{Key: k, Message: "needs the role OPERATOR"}
		if len(may) > 0 {
			d.Message = may[0].Message
		}
		if r == nil {
			d.Message = fmt.Sprintf("is not there, or %s", d.Message)
		}
		out = append(out, d)
	}
	slices.SortFunc(out, func(x, y Denial) int { return x.Key.Compare(y.Key) })
	return out
}
