package store

import (
	"fmt"
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// openExternal opens a store on an etcd with the limits that a server has unless
// it was set up otherwise, over the network.
func openExternal(t *testing.T, kek KEK) *Store {
	t.Helper()
	c := embed.NewConfig()
	c.Dir = t.TempDir()
	listen := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	c.ListenClientUrls, c.AdvertiseClientUrls, c.ListenPeerUrls = []url.URL{listen}, []url.URL{listen}, nil
	c.TickMs, c.ElectionMs, c.UnsafeNoFsync = 10, 100, true
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	e, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	<-e.Server.ReadyNotify()
	s, err := Open(t.Context(), Config{Endpoints: []string{e.Clients[0].Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	s.UseKeyring(NewKeyring(kek))
	return s
}

// The largest transactions of each kind are ones that an etcd with its own limits
// takes: a change, a rotation, a revocation and a sweep.
func TestLimitsOfExternalEtcd(t *testing.T) {
	before, after := testKEK(t), testKEK(t)
	s := openExternal(t, before)
	fill(t, s, 2*maxBatch)
	change := Change{Audit: entry("Apply")}
	for n := range MaxTxnChanges {
		change.Put = append(change.Put, service(fmt.Sprintf("s%d", n)))
	}
	mustCommit(t, s, change)
	if err := s.RotateKEK(t.Context(), NewKeyring(after, before), nil); err != nil {
		t.Errorf("RotateKEK: %v", err)
	}
	if got := sealedWith(t, s); len(got) != 1 || got[after.ID()] < 2*maxBatch {
		t.Errorf("sealed with %v, want all with %s", got, after.ID())
	}
	var ids []string
	for n := range 2 * maxBatch {
		i, err := s.Enrol(t.Context(), instance("a", fmt.Sprint(n)), nil, audit.Entry{})
		if err != nil {
			t.Fatal(err)
		}
		if n < maxBatch {
			ids = append(ids, i.ID)
		}
	}
	if revoked, _, _, err := s.RevokeInstances(t.Context(), "a", ids, entry("RevokeInstances")); err != nil || !cmp.Equal(len(revoked), len(ids)) {
		t.Errorf("RevokeInstances: %d, %v; want %d", len(revoked), err, len(ids))
	}
	if removed, _, err := s.Sweep(t.Context(), noon.AddDate(1, 0, 0), Retention{AuditEntries: 1}); err != nil || removed != 2*maxBatch+2 {
		t.Errorf("Sweep: %d, %v; want %d instances, as many that were revoked, and two audit entries", removed, err, maxBatch)
	}
}

// One entry is bounded, whatever the caller puts into it, so that it never keeps
// a write from going through; what is left says that something is missing.
func TestAuditIsBounded(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	long := string(make([]byte, 1<<20))
	e := audit.Entry{Actor: long, Source: long, Method: "m" + long, Reason: long}
	for range 5000 {
		e.Subjects = append(e.Subjects, "created Service/"+long[:200])
	}
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a")}, Audit: e})
	got := mustListAudit(t, s, AuditQuery{})[0]
	if n := len(got.Subjects); n != maxAuditSubjects+1 || got.Subjects[n-1] != fmt.Sprintf("and %d more", 5000-maxAuditSubjects) {
		t.Errorf("%d subjects, the last %q", n, got.Subjects[n-1])
	}
	for what, text := range map[string]string{"actor": got.Actor, "source": got.Source, "method": got.Method, "reason": got.Reason, "subject": got.Subjects[0]} {
		if len(text) > 400 {
			t.Errorf("the %s has %d bytes", what, len(text))
		}
	}
}
