package controlplane

import (
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
)

// Authority lasts from when a renewal was sent, begins when all is applied that was
// there at the join, and goes on for signing alone; a replica that comes back late
// does not sign before it has seen what happened meanwhile.
func TestAuthority(t *testing.T) {
	b := ledger.Bounds{Authority: 10 * time.Second, Signing: time.Hour}
	began := time.Now()
	at := func(s float64) time.Time { return began.Add(time.Duration(s * float64(time.Second))) }
	a := newAuthority(b)
	check := func(what string, s float64, holds, signs bool) {
		t.Helper()
		if got := a.holds(at(s)); got != holds {
			t.Errorf("%s, at %gs: holds %v, want %v", what, s, got, holds)
		}
		if got := a.maySign(at(s)); got != signs {
			t.Errorf("%s, at %gs: signs %v, want %v", what, s, got, signs)
		}
	}
	check("before the join", 0, false, false)
	a.joined(at(0), 7)
	check("joined", 1, false, false)
	a.applied(6)
	check("applied less", 1, false, false)
	a.applied(7)
	check("applied", 1, true, true)
	check("at the end", 9.999, true, true)
	check("over", 10, false, true)
	a.renewed(at(5))
	check("renewed", 14.999, true, true)
	check("over again", 15, false, true)
	check("the end of signing", 15+3600, false, false)
	a.renewed(at(20)) // the lease was still there
	check("back", 21, true, true)
	a.lost(at(22))
	check("lost", 22, false, true)
	check("lost, the end of signing", 22+3600, false, false)
	a.applied(100)
	check("lost, whatever is applied", 23, false, true)
	late := 22 + 2*3600.0
	a.joined(at(late), 200)
	a.renewed(at(late + 1))
	check("back late, not applied", late+2, false, false)
	a.applied(199)
	check("back late, applied less", late+2, false, false)
	a.applied(201)
	check("back late, applied", late+2, true, true)
	check("back late, over", late+11, false, true)
}

// A machine that has slept is not fooled by the clock that stood still meanwhile, nor
// one whose clock was set back by the other.
func TestAuthorityHasTwoClocks(t *testing.T) {
	now := time.Now()
	end := now.Add(10 * time.Second)
	for name, tt := range map[string]struct {
		now  time.Time
		want bool
	}{
		"both before":      {now.Add(9 * time.Second), true},
		"the wall is past": {now.Add(11 * time.Second).Round(0), false},
		"both past":        {now.Add(11 * time.Second), false},
	} {
		if got := earlier(tt.now, end); got != tt.want {
			t.Errorf("%s: %v, want %v", name, got, tt.want)
		}
	}
}
