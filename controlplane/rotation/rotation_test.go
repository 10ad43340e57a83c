package rotation

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
	"github.com/watchword-mesh/watchword/issuer/keyset"
)

var (
	noon   = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	bounds = ledger.Bounds{Authority: 10 * time.Second, ClockError: time.Second, Signing: time.Hour, Grace: 30 * time.Second, Stragglers: ledger.Hold}
)

// world is a mesh of two replicas whose records say what records has.
func world(t *testing.T, records map[string]ledger.Record) Moment {
	t.Helper()
	c := ledger.Cluster{Members: map[string]ledger.Member{}, Alive: map[string]bool{}, Records: records, Leader: "a"}
	for _, id := range []string{"a", "b"} {
		c.Members[id], c.Alive[id] = ledger.Member{ID: id}, true
	}
	o := ledger.NewObserver(bounds)
	o.See(c, noon)
	return Moment{
		Now: noon, Bounds: bounds, Observer: o, MaxAge: 5 * time.Minute,
		Keys: keyset.Keys{Open: keyset.Open{Active: "old"}, Records: map[string]keyset.Record{
			"old":  {KeyID: "old", Algorithm: "ES256", State: keyset.Active, Created: noon.Add(-48 * time.Hour), Activated: noon.Add(-25 * time.Hour), Published: 2, Revision: 5},
			"next": {KeyID: "next", Algorithm: "ES256", State: keyset.Standby, Created: noon.Add(-24 * time.Hour), Published: 10, Revision: 10},
		}},
		Mesh: Mesh{Every: 24 * time.Hour, Algorithm: "ES256", Skew: time.Minute, Audiences: map[string]Verifiers{
			"orders": {Services: []string{"orders"}}, "payments": {Services: []string{"payments"}}, "reports": {Elsewhere: true},
		}},
	}
}

func all(applied int64) map[string]ledger.Record {
	return map[string]ledger.Record{"a": {Applied: applied, Claim: applied}, "b": {Applied: applied, Claim: applied}}
}

// A key that is due takes over where everybody has it: an audience whose data planes are
// behind at any replica keeps the older key, and so does one that others read the key
// set for, until they must have read it anew.
func TestStepIsByAudience(t *testing.T) {
	behind := all(12)
	behind["b"] = ledger.Record{Applied: 12, Claim: 12, Held: map[string]ledger.Held{"payments": {Claim: 9, Count: 1, Who: []string{"n (i)"}}}}
	late := all(12)
	late["b"] = ledger.Record{Applied: 9, Claim: 9}
	for _, c := range []struct {
		name    string
		records map[string]ledger.Record
		later   time.Duration
		open    *keyset.Open
	}{
		{"all have it", all(12), 0, &keyset.Open{Active: "next", Except: map[string]string{"reports": "old"}}},
		{"and readers of the key set", all(12), 6 * time.Minute, &keyset.Open{Active: "next", Except: map[string]string{}}},
		{"one data plane is behind", behind, 6 * time.Minute, &keyset.Open{Active: "next", Except: map[string]string{"payments": "old"}}},
		{"one replica is behind", late, 6 * time.Minute, nil},
		{"one replica has said nothing", map[string]ledger.Record{"a": all(12)["a"]}, 6 * time.Minute, nil},
	} {
		m := world(t, c.records)
		m.Now = noon.Add(c.later)
		if diff := cmp.Diff(c.open, Step(m).Open); diff != "" {
			t.Errorf("%s: open (-want +got):\n%s", c.name, diff)
		}
	}
}

// Nothing is due before its time, and what is missing by then is shown.
func TestShow(t *testing.T) {
	records := all(12)
	records["b"] = ledger.Record{Applied: 12, Claim: 12, Held: map[string]ledger.Held{"payments": {Claim: 9, Count: 1, Who: []string{"n (i)"}}}}
	m := world(t, records)
	old := m.Keys.Records["old"]
	old.Activated = noon.Add(-time.Hour)
	m.Keys.Records["old"] = old
	if c := Step(m); !c.Empty() {
		t.Errorf("Step: %+v; want nothing before it is due", c)
	}
	list := Show(m)
	if len(list) != 2 || list[0].KeyID != "old" || list[1].KeyID != "next" {
		t.Fatalf("Show: %+v; want the key that signs, then the next", list)
	}
	if k := list[0]; k.Next != HandsOver || !k.When.Equal(noon.Add(23*time.Hour)) || !cmp.Equal(k.Audiences, []string{"orders", "payments", "reports"}) {
		t.Errorf("the key that signs: %+v; want it to hand over in 23 h all audiences", k)
	}
	want := []AudienceWait{
		{"payments", ledger.Wait{Member: "b", Service: "payments", Held: records["b"].Held["payments"], Why: ledger.Behind}},
		{"reports", ledger.Wait{Why: Cached, Until: noon.Add(5 * time.Minute)}},
	}
	if diff := cmp.Diff(want, list[1].Waits); diff != "" || list[1].Next != Signs {
		t.Errorf("the next key %s; waits (-want +got):\n%s", list[1].Next, diff)
	}
}
