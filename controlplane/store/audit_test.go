package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/issuer/clientauth"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

func entry(method string) audit.Entry {
	return audit.Entry{Actor: "unix:root", Method: method}
}

func mustListAudit(t *testing.T, s *Store, q AuditQuery) []audit.Entry {
	t.Helper()
	entries, _, err := s.ListAudit(t.Context(), q)
	if err != nil {
		t.Fatalf("ListAudit(%+v): %v", q, err)
	}
	return entries
}

func methods(entries []audit.Entry) []string {
	var names []string
	for _, e := range entries {
		names = append(names, e.Method)
	}
	return names
}

// Each write of people is in the audit with the revision that it made, newest
// first; one that did not go through is not, and neither is a write by nobody.
func TestAuditIsWrittenWithTheChange(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	put := Change{Put: []*policyv1.Resource{service("a")}, Audit: entry("Apply")}
	put.Audit.Subjects = []string{"created Service/a"}
	revision := mustCommit(t, s, put)
	if _, err := s.Commit(t.Context(), revision-1, put); !errors.Is(err, ErrConflict) {
		t.Fatalf("a late commit: %v, want ErrConflict", err)
	}
	if _, err := s.AddSecret(t.Context(), clientauth.Secret{ID: "1", Service: "nobody"}, entry("CreateClientSecret")); !errors.Is(err, ErrNoService) {
		t.Fatalf("a secret of no service: %v, want ErrNoService", err)
	}
	added, err := s.AddSecret(t.Context(), clientauth.Secret{ID: "1", Service: "a"}, entry("CreateClientSecret"))
	if err != nil {
		t.Fatal(err)
	}
	deleted, err := s.DeleteSecret(t.Context(), "a", "1", entry("DeleteClientSecret"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.DeleteSecret(t.Context(), "a", "1", entry("DeleteClientSecret")); !errors.Is(err, ErrUnknown) {
		t.Errorf("deleting a secret twice: %v, want ErrUnknown", err)
	}
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("b")}})
	got := mustListAudit(t, s, AuditQuery{})
	for i, want := range []struct {
		method   string
		revision int64
	}{{"DeleteClientSecret", deleted}, {"CreateClientSecret", added}, {"Apply", revision}} {
		if i >= len(got) || got[i].Method != want.method || got[i].Revision != want.revision || got[i].Outcome != audit.Done || got[i].Time.IsZero() {
			t.Fatalf("audit: %+v, want at %d %+v", got, i, want)
		}
	}
	if d := cmp.Diff(put.Audit.Subjects, got[2].Subjects); d != "" || len(got) != 3 {
		t.Errorf("audit: %+v, want three entries, the last with its subjects", got)
	}
}

// note stores entries of which every third was refused, a nanosecond apart, each
// with its number as the method.
func note(t *testing.T, s *Store, n int) (newestFirst []string) {
	t.Helper()
	at := time.Unix(1_800_000_000, 0)
	for i := range n {
		e := audit.Entry{Time: at.Add(time.Duration(i) * time.Nanosecond), Actor: "a", Method: fmt.Sprint(i)}
		if i == 3 {
			e.Actor = "b"
		}
		if i%3 == 0 {
			e.Outcome = audit.Refused
		}
		if err := s.Record(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		newestFirst = append([]string{e.Method}, newestFirst...)
	}
	return newestFirst
}

// readPages follows the pages of a query to the end.
func readPages(t *testing.T, s *Store, q AuditQuery) (all []string, pages int) {
	t.Helper()
	for {
		entries, next, err := s.ListAudit(t.Context(), q)
		if err != nil {
			t.Fatalf("ListAudit(%+v): %v", q, err)
		}
		all, pages = append(all, methods(entries)...), pages+1
		if next == "" {
			return all, pages
		}
		q.Before = next
	}
}

// A list has what was done and what was refused in the order of time, cut into
// pages, also beyond what one request reads, and can be of one actor or of refusals
// alone. The last page says that it is the last.
func TestListAudit(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	const n = 2*pageSize + 20
	want := note(t, s, n)
	if got, pages := readPages(t, s, AuditQuery{Limit: n / 4}); !cmp.Equal(got, want) || pages != 4 {
		t.Errorf("%d pages; want 4, with all (-want +got):\n%s", pages, cmp.Diff(want, got))
	}
	if got, pages := readPages(t, s, AuditQuery{Actor: "b"}); !cmp.Equal(got, []string{"3"}) || pages != 1 {
		t.Errorf("of actor b: %v in %d pages, want [3] in one", got, pages)
	}
	refused := mustListAudit(t, s, AuditQuery{Limit: n, Refused: true})
	if len(refused) != n/3 || refused[0].Revision != 0 || refused[0].Outcome != audit.Refused {
		t.Errorf("%d refusals, the first %+v; want %d, without a revision", len(refused), refused[0], n/3)
	}
	for _, before := range []string{"x", "zzz", "zzzzzzzzzzzzzzzzABCD"} {
		if _, _, err := s.ListAudit(t.Context(), AuditQuery{Before: before}); !errors.Is(err, audit.ErrNoID) || !strings.Contains(err.Error(), before) {
			t.Errorf("before %q: %v, want ErrNoID with it", before, err)
		}
	}
}

// A query that matches little reads a bounded part at once, says where it goes on
// although it has found nothing, and finds it there.
func TestListAuditIsBounded(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	note(t, s, maxAuditRead+10)
	entries, next, err := s.ListAudit(t.Context(), AuditQuery{Actor: "b"})
	if err != nil || len(entries) != 0 || next == "" {
		t.Errorf("the first page: %v, next %q, %v; want none and where to go on", methods(entries), next, err)
	}
	if got, pages := readPages(t, s, AuditQuery{Actor: "b"}); !cmp.Equal(got, []string{"3"}) || pages != 2 {
		t.Errorf("all: %v in %d pages, want [3] in 2", got, pages)
	}
}

// An entry that was damaged is shown as such, and hides none of the others; one
// that was moved is no better.
func TestDamagedAudit(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	for _, method := range []string{"first", "second"} {
		if err := s.Record(t.Context(), entry(method)); err != nil {
			t.Fatal(err)
		}
	}
	second := mustListAudit(t, s, AuditQuery{})[0]
	name, _ := auditName(second.ID)
	for _, value := range []string{"junk", `{"id":"0000000000000001ABCD","method":"other"}`} {
		if _, err := s.client.Put(t.Context(), s.prefix+auditPrefix+name, value); err != nil {
			t.Fatal(err)
		}
		got := mustListAudit(t, s, AuditQuery{})
		if len(got) != 2 || got[0].ID != second.ID || !strings.Contains(got[0].Reason, "can't be read") || got[1].Method != "first" {
			t.Errorf("with %s: %+v, want the damaged one with its ID, and the first", value, got)
		}
	}
}

// A snapshot has no audit, and who watches is not woken by entries alone.
func TestAuditIsNotWatched(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	from := mustLoad(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	events := make(chan Event, 8)
	go func() { _ = s.Watch(ctx, from, func(e Event) { events <- e }) }()
	if err := s.Record(ctx, entry("GetSecret")); err != nil {
		t.Fatal(err)
	}
	revision := mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a")}, Audit: entry("Apply")})
	want := []policy.Key{{Kind: policy.KindService, Name: "a"}}
	if e := <-events; e.Snapshot.Revision != revision || !cmp.Equal(e.Changed, want) {
		t.Errorf("the first event is of revision %d with %v; want %d with %v", e.Snapshot.Revision, e.Changed, revision, want)
	}
	kvs, _, err := s.readAll(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range kvs {
		if strings.Contains(string(kv.Key), auditPrefix) {
			t.Errorf("Load reads %s", kv.Key)
		}
	}
}

// Whatever text comes as an ID, it names a place within the audit or is refused, and
// the ID of an entry comes back from its name.
func FuzzAuditID(f *testing.F) {
	f.Add(newAuditID(noon))
	f.Add("zzz")
	f.Add("7fffffffffffffff")
	f.Fuzz(func(t *testing.T, id string) {
		name, ok := auditName(id)
		if !ok {
			return
		}
		if name >= auditEnd {
			t.Errorf("%q is named %q, which is behind all entries", id, name)
		}
		if again, ok := auditName(auditID(name)); !ok || again != name {
			t.Errorf("%q is named %q, and from its ID %q", id, name, again)
		}
	})
}
