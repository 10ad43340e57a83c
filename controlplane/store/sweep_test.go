package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

func TestSweep(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a")}})
	old, fresh := joinToken("a", "T1", 1), joinToken("a", "T2", 1)
	fresh.Expires = noon.Add(3 * time.Hour)
	for _, token := range []JoinToken{old, fresh} {
		if err := s.AddJoinToken(t.Context(), token, audit.Entry{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"i1", "i2"} {
		i := instance("a", id)
		i.Expires = noon.Add(time.Hour - sweepGrace)
		i, err := s.Enrol(t.Context(), i, nil, audit.Entry{})
		if err != nil {
			t.Fatal(err)
		}
		if i.Expires = noon.Add(3*time.Hour - sweepGrace); id == "i2" {
			if err := s.Renew(t.Context(), i); err != nil {
				t.Fatal(err)
			}
		}
	}
	for n := range 10 {
		if err := s.Record(t.Context(), audit.Entry{Time: noon.Add(time.Duration(n) * time.Minute), Method: fmt.Sprint(n)}); err != nil {
			t.Fatal(err)
		}
	}
	now := noon.Add(2 * time.Hour)
	for _, step := range []struct {
		keep    Retention
		removed int
		audit   string
	}{
		{Retention{}, 2, "9876543210"}, // the token T1 and the instance i1
		{Retention{AuditEntries: 10, AuditAge: 3 * time.Hour}, 0, "9876543210"},
		{Retention{AuditEntries: 7}, 3, "9876543"},
		{Retention{AuditEntries: 9, AuditAge: 115 * time.Minute}, 2, "98765"},
		{Retention{AuditEntries: 1, AuditAge: 115 * time.Minute}, 4, "9"},
	} {
		removed, _, err := s.Sweep(t.Context(), now, step.keep)
		if got := strings.Join(methods(mustListAudit(t, s, AuditQuery{})), ""); err != nil || removed != step.removed || got != step.audit {
			t.Errorf("Sweep with %+v: %d, %v, left %s; want %d and %s", step.keep, removed, err, got, step.removed, step.audit)
		}
	}
	tokens, err := s.ListJoinTokens(t.Context(), "")
	if got := keysOf(mustLoad(t, s).Instances); err != nil || len(tokens) != 1 || tokens[0].ID != "T2" || !cmp.Equal(got, []string{"a/i2"}) {
		t.Errorf("left: %v, %v, %v; want T2 and a/i2", tokens, err, got)
	}
}

func TestSweepIsFenced(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a")}})
	mustEnrol(t, s, instance("a", "i1"), nil)
	i2 := mustEnrol(t, s, instance("a", "i2"), nil)
	sweep := func(ctx context.Context) (int, error) {
		return s.sweepExpired(ctx, instancesPrefix, func(name string, _ *mvccpb.KeyValue) bool {
			if strings.HasSuffix(name, "i2") {
				if err := s.Renew(ctx, i2); err != nil {
					t.Error(err)
				}
			}
			return true
		})
	}
	if removed, err := sweep(t.Context()); err != nil || removed != 1 {
		t.Errorf("removed %d, %v; want 1", removed, err)
	}
	if got := keysOf(mustLoad(t, s).Instances); !cmp.Equal(got, []string{"a/i2"}) {
		t.Errorf("left: %v, want a/i2", got)
	}
}

// However many refusals there are, they have their own share: what was done stays.
func TestRefusalsPushOutNoChanges(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	for n := range 40 {
		e := audit.Entry{Time: noon.Add(time.Duration(n) * time.Minute), Actor: "service:nobody", Method: fmt.Sprint(n), Outcome: audit.Refused}
		if n < 3 {
			e.Outcome = audit.Done
		}
		if err := s.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	removed, more, err := s.Sweep(t.Context(), noon.Add(time.Hour), Retention{AuditEntries: 5, Refusals: 2})
	if err != nil || removed != 35 || more {
		t.Errorf("Sweep: %d, %v, %v; want 35 and no more", removed, more, err)
	}
	if got := methods(mustListAudit(t, s, AuditQuery{})); !cmp.Equal(got, []string{"39", "38", "2", "1", "0"}) {
		t.Errorf("left: %v, want the two newest refusals and all that was done", got)
	}
}

// One call removes a bounded number, and says that there is more.
func TestSweepSaysThatThereIsMore(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	const n = maxSweep + 7
	var ops []clientv3.Op
	for i := range n {
		name, _ := auditName(fmt.Sprintf("%016xAAAA", noon.UnixNano()+int64(i)))
		ops = append(ops, clientv3.OpPut(s.prefix+refusedPrefix+name, "{}"))
	}
	for batch := range slices.Chunk(ops, maxTxnOps) {
		if _, err := s.client.Txn(t.Context()).Then(batch...).Commit(); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []struct {
		removed int
		more    bool
	}{{maxSweep, true}, {6, false}, {0, false}} {
		removed, more, err := s.Sweep(t.Context(), noon, Retention{Refusals: 1})
		if err != nil || removed != want.removed || more != want.more {
			t.Errorf("Sweep: %d, %v, %v; want %+v", removed, more, err, want)
		}
	}
}

// A time of revocation is forgotten when no token can be as old, and not before.
func TestSweepRevocations(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a")}})
	e := entry("RevokeInstances")
	e.Time = noon
	if _, _, _, err := s.RevokeInstances(t.Context(), "a", nil, e); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		after time.Duration
		want  int
	}{{ForgetRevocations, 1}, {ForgetRevocations + time.Second, 0}} {
		if _, _, err := s.Sweep(t.Context(), noon.Add(step.after), Retention{}); err != nil {
			t.Fatal(err)
		}
		if got := mustLoad(t, s).RevokedBefore; len(got) != step.want {
			t.Errorf("%s later: %v, want %d", step.after, got, step.want)
		}
	}
}
