package controlplane

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-mesh/watchword/controlplane/store"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// surplus has a number of sweeps to do, each of which takes a while.
type surplus struct {
	left, calls int
	takes       time.Duration
	fault       error
}

func (s *surplus) Sweep(_ context.Context, _ time.Time, keep store.Retention) (int, bool, error) {
	if keep.Refusals == 0 || keep.AuditEntries == 0 {
		return 0, false, errors.New("a share of the audit has no bound")
	}
	s.calls++
	time.Sleep(s.takes)
	if s.left == 0 {
		return 0, false, s.fault
	}
	s.left--
	return 10, s.left > 0, s.fault
}

// A sweep goes on while there is more, but not for ever, and not after a fault.
func TestSweepOut(t *testing.T) {
	fault := errors.New("etcd did not answer")
	for name, tt := range map[string]struct {
		surplus
		removed, calls int
	}{
		"nothing":  {surplus{}, 0, 1},
		"much":     {surplus{left: 50}, 500, 50},
		"too much": {surplus{left: 50, takes: sweepFor / 4}, 40, 4},
		"a fault":  {surplus{left: 50, fault: fault}, 10, 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			removed, err := sweepOut(t.Context(), &tt.surplus)
			if removed != tt.removed || tt.surplus.calls != tt.calls || !errors.Is(err, tt.fault) {
				t.Errorf("%s: %d removed in %d calls, %v; want %d in %d, %v", name, removed, tt.surplus.calls, err, tt.removed, tt.calls, tt.fault)
			}
		})
	}
}

// Who wrote something that is not in force here yet is told what is done for all
// that, and what to do.
func TestWrittenButNotInForce(t *testing.T) {
	k := openKEK(t, Config{})
	l := newLoop(k.config.Logger, newLoopMetrics(prometheus.NewRegistry()))
	l.patience = time.Millisecond
	pepper := make([]byte, 32)
	orders := &policyv1.Resource{Metadata: &policyv1.Metadata{Name: "orders"}, Spec: &policyv1.Resource_Service{Service: &policyv1.ServiceSpec{}}}
	snap, err := k.store.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at, err := k.store.Commit(t.Context(), snap.Revision, store.Change{Put: []*policyv1.Resource{orders}})
	if err != nil {
		t.Fatal(err)
	}
	l.current.Store(snap) // and nobody follows the store
	_, _, secret := (&tokens{store: k.store, loop: l, pepper: pepper}).CreateClientSecret(t.Context(), "orders", at, byRoot)
	_, revoked := (&enrolments{store: k.store, loop: l}).RevokeInstances(t.Context(), "orders", nil, byRoot)
	a := &adminTokens{store: k.store, loop: l, dir: k.config.DataDir, pepper: pepper}
	if _, err := a.store.EnsureAdminToken(t.Context(), a.state("x")); err != nil {
		t.Fatal(err)
	}
	_, created := a.CreateAdminToken(t.Context(), byRoot)
	ended := a.RevokeAdminToken(t.Context(), byRoot)
	for want, err := range map[string]error{
		"is stored, and can't be shown: delete it (`watchword client-secret delete orders/": secret,
		"the instances are revoked":  revoked,
		"the new admin token is in ": created,
		"the admin token is revoked": ended,
	} {
		if text := fmt.Sprint(err); !strings.Contains(text, want) || !strings.Contains(text, "not in force at this replica yet") {
			t.Errorf("%v; want %q, and that it is not in force", err, want)
		}
	}
}
