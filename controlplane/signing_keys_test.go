package controlplane

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
	"github.com/watchword-mesh/watchword/controlplane/rotation"
	"github.com/watchword-mesh/watchword/issuer/keyset"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// A rotation that is half done, with a straggler and a full set: what each key signs
// for, what it waits for, who is missing, and why there is no next key.
func TestSigningKeyList(t *testing.T) {
	now := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	at := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(d)) }
	bounds := ledger.Bounds{Authority: 10 * time.Second, ClockError: time.Second, Signing: time.Hour, Grace: 30 * time.Second, Stragglers: ledger.Hold}
	o := ledger.NewObserver(bounds)
	o.See(ledger.Cluster{
		Members: map[string]ledger.Member{"r1": {ID: "r1", Host: "one"}}, Alive: map[string]bool{"r1": true}, Leader: "r1",
		Records: map[string]ledger.Record{"r1": {Applied: 30, Claim: 30, Held: map[string]ledger.Held{
			"payments": {Claim: 12, Count: 1, Gone: 2, Who: []string{"node-7 (i7)"}, Why: "refused mesh.inbound/payments: no"},
		}}},
	}, now)
	m := rotation.Moment{
		Now: now, Observer: o, Bounds: bounds, MaxAge: time.Minute,
		Mesh: rotation.Mesh{Every: 24 * time.Hour, Algorithm: "ES256", Skew: time.Minute, Audiences: map[string]rotation.Verifiers{
			"orders": {Services: []string{"orders"}}, "payments": {Services: []string{"payments"}},
		}},
		Keys: keyset.Keys{
			Records: map[string]keyset.Record{
				"k1": {KeyID: "k1", Algorithm: "ES256", State: keyset.Retiring, Created: now.Add(-50 * time.Hour), Activated: now.Add(-49 * time.Hour), Unsigned: now, Lifetime: 5 * time.Minute, Published: 1},
				"k2": {KeyID: "k2", Algorithm: "ES256", State: keyset.Active, Created: now.Add(-26 * time.Hour), Activated: now.Add(-25 * time.Hour), Published: 10},
				"k3": {KeyID: "k3", Algorithm: "ES256", State: keyset.Active, Created: now.Add(-2 * time.Hour), Activated: now.Add(-time.Hour), Published: 20},
			},
			Open: keyset.Open{Active: "k3", Except: map[string]string{"payments": "k2"}, Asked: now, Revision: 25},
		},
	}
	want := &adminv1.SigningKeys{
		Active: "k3", Audiences: 2, Behind: 1, Asked: at(0), Leader: "r1", Full: true,
		Keys: []*adminv1.SigningKey{
			{Kid: "k2", Algorithm: "ES256", State: adminv1.SigningKey_ACTIVE, Created: at(-26 * time.Hour), Activated: at(-25 * time.Hour),
				Audiences: []string{"payments"}, AudienceCount: 1, Next: adminv1.SigningKey_HANDS_OVER, WaitCount: 1,
				Waits: []*adminv1.Wait{{Audience: "payments", Replica: "r1", Host: "one", Service: "payments", Count: 1, Gone: 2,
					Who: []string{"node-7 (i7)"}, Why: "behind", Detail: "refused mesh.inbound/payments: no"}}},
			{Kid: "k3", Algorithm: "ES256", State: adminv1.SigningKey_ACTIVE, Created: at(-2 * time.Hour), Activated: at(-time.Hour),
				Audiences: []string{"orders"}, AudienceCount: 1, Next: adminv1.SigningKey_HANDS_OVER},
			{Kid: "k1", Algorithm: "ES256", State: adminv1.SigningKey_RETIRING, Created: at(-50 * time.Hour), Activated: at(-49 * time.Hour), Unsigned: at(0),
				Next: adminv1.SigningKey_GOES, Due: at(5*time.Minute + time.Minute + 2*time.Second)},
		},
	}
	got := signingKeyList(m)
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff(got, signingKeyList(m), protocmp.Transform()); diff != "" {
		t.Errorf("the same moment gives another list:\n%s", diff)
	}
	delete(m.Keys.Records, "k1")
	if signingKeyList(m).GetFull() {
		t.Errorf("full with two keys published; the most is %d", keyset.MaxPublished)
	}
}
