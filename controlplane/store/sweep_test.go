package store

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/mvccpb"

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
		i, err := s.Enrol(t.Context(), instance("a", id), nil, audit.Entry{})
		if err != nil {
			t.Fatal(err)
		}
		if i.Expires = noon.Add(3 * time.Hour); id == "i2" {
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
		removed, err := s.Sweep(t.Context(), now, step.keep)
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
