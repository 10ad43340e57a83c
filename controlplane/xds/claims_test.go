package xds

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
)

// wantClaims waits until the claims are these.
func (f *fixture) wantClaims(t *testing.T, now time.Time, applied int64, held map[string]ledger.Held) time.Time {
	t.Helper()
	deadline := time.After(patience)
	for {
		gotApplied, got, next := f.Claims(now)
		diff := cmp.Diff(held, got)
		if gotApplied == applied && diff == "" {
			return next
		}
		select {
		case <-f.ClaimsChanged():
		case <-deadline:
			t.Fatalf("applied %d, want %d; held (-want +got):\n%s", gotApplied, applied, diff)
		}
	}
}

// A data plane that has not confirmed what was published holds its service, and no
// other, at what it had; one that refuses it does so with the reason. What was
// confirmed is claimed again.
func TestClaims(t *testing.T) {
	now := time.Unix(1000, 0)
	f := start(t, Config{Now: func() time.Time { return now }})
	billing := filter("mesh.inbound/billing", "x")
	f.Publish(Update{Revision: 5, Services: map[string][]Resource{"orders": {inbound1}, "billing": {billing}}})
	f.wantClaims(t, now, 5, nil)

	b := f.connect(t, envoyNode("n2", "billing"))
	b.subscribe(ecdsType, billing.Name)
	b.ack(b.want(one(billing)))
	p := f.connect(t, envoyNode("n1", "orders"))
	p.subscribe(ecdsType, inbound1.Name)
	first := p.want(one(inbound1))
	who := []string{"n1 (orders-instance)"}
	f.wantClaims(t, now, 5, map[string]ledger.Held{"orders": {Claim: 5, Count: 1, Who: who}})
	p.ack(first)
	f.wantClaims(t, now, 5, nil)

	f.publish(7, "orders", inbound2)
	second := p.want(one(inbound2))
	f.wantClaims(t, now, 7, map[string]ledger.Held{"orders": {Claim: 5, Count: 1, Who: who}})
	p.nack(second, "no such filter")
	f.wantClaims(t, now, 7, map[string]ledger.Held{"orders": {Claim: 5, Count: 1, Who: who, Why: "refused mesh.inbound/orders: no such filter"}})

	f.publish(8, "orders", inbound1) // which it still has
	f.wantClaims(t, now, 8, nil)
}

// A data plane that is gone, and was behind, holds its service for the time of grace;
// one that comes back holds it until it confirms.
func TestClaimsOfGone(t *testing.T) {
	now := time.Unix(1000, 0)
	f := start(t, Config{Now: func() time.Time { return now }})
	f.publish(1, "orders", inbound1)
	p := f.connect(t, envoyNode("n1", "orders"))
	p.subscribe(ecdsType, inbound1.Name)
	p.ack(p.want(one(inbound1)))
	f.wantClaims(t, now, 1, nil)
	_ = p.close()
	f.until(t, "gone", func() bool { return len(f.DataPlanes("orders")) == 0 })
	f.publish(2, "orders", inbound2)

	until := now.Add(defaultBounds.Grace)
	who := []string{"n1 (orders-instance)"}
	gone := map[string]ledger.Held{"orders": {Claim: 1, Gone: 1, Who: who, Why: "it is gone", Until: until}}
	if next := f.wantClaims(t, now, 2, gone); !next.Equal(until) {
		t.Errorf("next is %v, want %v", next, until)
	}
	again := f.connect(t, envoyNode("n1", "orders"))
	again.subscribe(ecdsType, inbound1.Name)
	f.wantClaims(t, now, 2, map[string]ledger.Held{"orders": {Claim: 1, Count: 1, Who: who}})
	f.wantClaims(t, until.Add(time.Hour), 2, map[string]ledger.Held{"orders": {Claim: 1, Count: 1, Who: who}})
	again.ack(again.want(one(inbound2)))
	f.wantClaims(t, now, 2, nil)

	_ = again.close()
	f.until(t, "gone", func() bool { return len(f.DataPlanes("orders")) == 0 })
	f.publish(3, "orders", inbound1)
	f.wantClaims(t, now, 3, map[string]ledger.Held{"orders": {Claim: 2, Gone: 1, Who: who, Why: "it is gone", Until: until}})
	f.wantClaims(t, until.Add(time.Second), 3, nil)
}

// Who reads ClaimsChanged late finds one element, however much has happened, and
// none once it has taken it.
func TestClaimsChanged(t *testing.T) {
	f := start(t, Config{})
	f.publish(1, "orders", inbound1)
	f.publish(2, "orders", inbound2)
	woken(t, f.ClaimsChanged())
	select {
	case <-f.ClaimsChanged():
		t.Error("a second element for what was seen")
	default:
	}
	f.publish(3, "orders", inbound1)
	woken(t, f.ClaimsChanged())
}
