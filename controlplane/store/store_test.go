package store

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/issuer/clientauth"
	"github.com/watchword-mesh/watchword/issuer/keyset"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

func testKEK(t *testing.T) KEK {
	t.Helper()
	raw := make([]byte, kekBytes)
	if _, err := rand.Read(raw); err != nil {
		t.Fatal(err)
	}
	k, err := newKEK(raw)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func openTest(t *testing.T, dir string, kek KEK) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{DataDir: dir, fast: true})
	if err != nil {
		t.Fatalf("Open(%s): %v", dir, err)
	}
	if kek != nil {
		s.UseKeyring(NewKeyring(kek))
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func service(name string, audiences ...string) *policyv1.Resource {
	return &policyv1.Resource{
		Metadata: &policyv1.Metadata{Name: name},
		Spec:     &policyv1.Resource_Service{Service: &policyv1.ServiceSpec{Audiences: audiences}},
	}
}

func builtin() Setup {
	return Setup{Issuer: &policyv1.Resource{
		Metadata: &policyv1.Metadata{Name: policy.BuiltinIssuer},
		Spec:     &policyv1.Resource_Issuer{Issuer: &policyv1.IssuerSpec{Issuer: "http://sts"}},
	}}
}

func mustLoad(t *testing.T, s *Store) *Snapshot {
	t.Helper()
	snap, err := s.Load(t.Context())
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return snap
}

func mustCommit(t *testing.T, s *Store, c Change) int64 {
	t.Helper()
	rev, err := s.Commit(t.Context(), mustLoad(t, s).Revision, c)
	if err != nil {
		t.Fatalf("Commit(%v): %v", c, err)
	}
	return rev
}

// All that is written is there after a restart on the same folder, with the
// same revisions and the same pepper.
func TestRestartKeepsEverything(t *testing.T) {
	dir, kek := t.TempDir(), testKEK(t)
	s := openTest(t, dir, kek)
	pepper, first, err := s.Init(t.Context(), builtin())
	if err != nil || !first {
		t.Fatalf("Init on an empty folder: first %v, error %v", first, err)
	}
	rec, err := keyset.First("ES256", time.Unix(1000, 0).UTC())
	if err != nil {
		t.Fatal(err)
	}
	next, err := keyset.New("ES256", time.Unix(1000, 0).UTC())
	if err != nil {
		t.Fatal(err)
	}
	if added, err := s.AddFirstKey(t.Context(), rec, next); err != nil || !added {
		t.Fatalf("AddFirstKey: %v, %v", added, err)
	}
	if added, err := s.AddFirstKey(t.Context(), rec, next); err != nil || added {
		t.Fatalf("a second AddFirstKey: %v, %v; want false", added, err)
	}
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a"), service("b", "x")}})
	if _, err := s.AddSecret(t.Context(), clientauth.Secret{ID: "1", Service: "a", Hash: []byte{1}}, audit.Entry{}); err != nil {
		t.Fatalf("AddSecret: %v", err)
	}
	want := mustLoad(t, s)
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}

	s = openTest(t, dir, kek)
	again, first, err := s.Init(t.Context(), builtin())
	if err != nil || first || !bytes.Equal(pepper, again) {
		t.Fatalf("Init after a restart: first %v, same pepper %v, error %v", first, bytes.Equal(pepper, again), err)
	}
	got := mustLoad(t, s)
	if d := cmp.Diff(want.Config, got.Config, protocmp.Transform()); d != "" {
		t.Errorf("resources after a restart (-want +got):\n%s", d)
	}
	if d := cmp.Diff(want.Keys, got.Keys); d != "" {
		t.Errorf("keys after a restart (-want +got):\n%s", d)
	}
	if d := cmp.Diff(want.Secrets, got.Secrets); d != "" {
		t.Errorf("secrets after a restart (-want +got):\n%s", d)
	}
}

// A write is refused when resources have changed since the revision that the
// writer looked at, by a put or by a deletion.
func TestCommitIsFenced(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	old := mustLoad(t, s).Revision
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a")}})
	if _, err := s.Commit(t.Context(), old, Change{Put: []*policyv1.Resource{service("b")}}); !errors.Is(err, ErrConflict) {
		t.Errorf("a put over a newer put: %v, want ErrConflict", err)
	}
	old = mustLoad(t, s).Revision
	mustCommit(t, s, Change{Delete: []policy.Key{{Kind: policy.KindService, Name: "a"}}})
	if _, err := s.Commit(t.Context(), old, Change{Put: []*policyv1.Resource{service("b")}}); !errors.Is(err, ErrConflict) {
		t.Errorf("a put over a newer deletion: %v, want ErrConflict", err)
	}
	if n := len(mustLoad(t, s).Config); n != 0 {
		t.Errorf("%d resources are stored after refused writes, want 0", n)
	}
}

// A change is cut into parts that etcd takes, in order: 126 puts are one part,
// with their audit entry, and a service is never torn from its secrets.
func TestSplit(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	for _, c := range []struct{ puts, deletes, parts int }{{126, 0, 1}, {127, 0, 2}, {300, 0, 3}, {0, 25, 1}, {0, 26, 2}, {122, 1, 2}, {121, 1, 1}, {100, 100, 5}} {
		change := Change{Audit: audit.Entry{Method: "Apply"}}
		for i := range c.puts {
			change.Put = append(change.Put, service(fmt.Sprintf("s%d", i)))
		}
		for i := range c.deletes {
			change.Delete = append(change.Delete, policy.Key{Kind: policy.KindService, Name: fmt.Sprintf("d%d", i)})
		}
		parts, err := s.Split(change)
		if err != nil || len(parts) != c.parts {
			t.Errorf("Split of %d puts and %d deletions: %d parts, %v; want %d", c.puts, c.deletes, len(parts), err, c.parts)
		}
		whole := Change{Audit: change.Audit}
		for i, part := range parts {
			if _, err := s.Commit(t.Context(), mustLoad(t, s).Revision, part); err != nil {
				t.Errorf("Commit of part %d of %+v: %v", i, c, err)
			}
			whole.Put, whole.Delete = append(whole.Put, part.Put...), append(whole.Delete, part.Delete...)
		}
		if d := cmp.Diff(change, whole, protocmp.Transform()); d != "" {
			t.Errorf("the parts together differ (-want +got):\n%s", d)
		}
	}
}

// With a service its client secrets go: who makes a service of that name again
// must not find them valid. Those of a service with a longer name stay.
func TestDeletedServiceLosesItsSecrets(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a"), service("a-2")}})
	for _, name := range []string{"a", "a-2"} {
		if _, err := s.AddSecret(t.Context(), clientauth.Secret{ID: "1", Service: name}, audit.Entry{}); err != nil {
			t.Fatal(err)
		}
	}
	mustCommit(t, s, Change{Delete: []policy.Key{{Kind: policy.KindService, Name: "a"}}})
	if _, err := s.AddSecret(t.Context(), clientauth.Secret{ID: "2", Service: "a"}, audit.Entry{}); !errors.Is(err, ErrNoService) {
		t.Errorf("AddSecret for a deleted service: %v, want ErrNoService", err)
	}
	got := mustLoad(t, s).Secrets
	if _, kept := got["a-2/1"]; len(got) != 1 || !kept {
		t.Errorf("secrets after deleting service a: %v, want a-2/1 alone", got)
	}
}

// Shared secrets and private keys are not found in any stored value, and a
// sealed record that is moved to another place can't be opened.
func TestSecretsAreSealed(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	secret := "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"
	res := &policyv1.Resource{
		Metadata: &policyv1.Metadata{Name: "shared"},
		Spec: &policyv1.Resource_Issuer{Issuer: &policyv1.IssuerSpec{Issuer: "x", KeySet: &policyv1.KeySet{
			Source: &policyv1.KeySet_Jwks{Jwks: `{"keys":[{"kty":"oct","k":"` + secret + `"}]}`}}}},
	}
	mustCommit(t, s, Change{Put: []*policyv1.Resource{res}})
	all, err := s.client.Get(t.Context(), "", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range all.Kvs {
		if bytes.Contains(kv.Value, []byte(secret)) {
			t.Errorf("%s holds the secret in clear", kv.Key)
		}
	}
	if got := mustLoad(t, s).Config.Issuer("shared").GetKeySet().GetJwks(); !strings.Contains(got, secret) {
		t.Errorf("the secret was not read back: %q", got)
	}
	stored, err := s.get(t.Context(), "config/Issuer/shared")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Put(t.Context(), s.prefix+"config/Issuer/stolen", string(stored.Value)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(t.Context()); err == nil || !strings.Contains(err.Error(), "changed or moved") {
		t.Errorf("Load with a moved sealed record: %v, want an error that says so", err)
	}
}

// Another key-encryption key is refused at once, with both ids.
func TestWrongKEK(t *testing.T) {
	dir, right, wrong := t.TempDir(), testKEK(t), testKEK(t)
	s := openTest(t, dir, right)
	if _, _, err := s.Init(t.Context(), builtin()); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	_, _, err := openTest(t, dir, wrong).Init(t.Context(), builtin())
	if err == nil || !strings.Contains(err.Error(), right.ID()) || !strings.Contains(err.Error(), "--kek-file") {
		t.Errorf("Init with another KEK: %v; want both ids and the flag", err)
	}
}

// The watch delivers each revision as a whole and in order, deletions
// included, also when etcd has compacted what it was asleep for.
func TestWatchSurvivesCompaction(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("kept"), service("gone")}})
	from := mustLoad(t, s)
	mustCommit(t, s, Change{Delete: []policy.Key{{Kind: policy.KindService, Name: "gone"}}})
	rev := mustCommit(t, s, Change{Put: []*policyv1.Resource{service("new")}})
	if _, err := s.client.Compact(t.Context(), rev); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	events := make(chan Event)
	go func() { _ = s.Watch(ctx, from, func(e Event) { events <- e }) }()
	e := <-events
	if got := e.Snapshot.Config.Services(); !cmp.Equal(got, []string{"kept", "new"}) {
		t.Errorf("after compaction the watch shows %v, want [kept new]", got)
	}
	if len(e.Changed) != 2 {
		t.Errorf("changed: %v, want Service/gone and Service/new", e.Changed)
	}
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("x"), service("y")}})
	if e = <-events; len(e.Changed) != 2 {
		t.Errorf("one transaction of two resources came as %v", e.Changed)
	}
	cancel()
	go func() {
		for range events {
		}
	}()
}

// A record that can't be read leaves its last good version in force, and does
// not keep others from changing; a start on it is refused.
func TestUnreadableRecord(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("good", "first")}})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	events := make(chan Event, 8)
	from := mustLoad(t, s)
	go func() { _ = s.Watch(ctx, from, func(e Event) { events <- e }) }()
	if _, err := s.client.Put(ctx, s.prefix+"config/Service/good", "junk"); err != nil {
		t.Fatal(err)
	}
	if e := <-events; len(e.Changed) != 0 || s.Unreadable() != 1 {
		t.Errorf("after junk: changed %v, %d unreadable; want nothing changed and 1", e.Changed, s.Unreadable())
	}
	last := mustRevision(t, s)
	if _, err := s.Commit(ctx, last, Change{Put: []*policyv1.Resource{service("other")}}); err != nil {
		t.Fatal(err)
	}
	e := <-events
	if got := e.Snapshot.Config.Service("good").GetAudiences(); !cmp.Equal(got, []string{"first"}) || e.Snapshot.Config.Service("other") == nil {
		t.Errorf("then: good has audiences %v, other is there %v; want [first] and true", got, e.Snapshot.Config.Service("other") != nil)
	}
	if _, err := s.Load(ctx); err == nil || !strings.Contains(err.Error(), "config/Service/good") {
		t.Errorf("Load: %v, want an error that names the record", err)
	}
}

func mustRevision(t *testing.T, s *Store) int64 {
	t.Helper()
	resp, err := s.client.Get(t.Context(), s.prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	return resp.Header.Revision
}

// An etcd that has gone back, as after the restore of a backup, is noticed by
// writers and by the watch: its revision is the clock of everything else.
func TestEtcdWentBack(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	ahead := mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a")}}) + 100
	if _, err := s.Commit(t.Context(), ahead, Change{Put: []*policyv1.Resource{service("b")}}); err == nil || !strings.Contains(err.Error(), "went back") {
		t.Errorf("a write that follows on a later revision: %v, want that etcd went back", err)
	}
	from := mustLoad(t, s)
	from.Revision = ahead
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := s.Watch(ctx, from, func(Event) {}); err == nil || !strings.Contains(err.Error(), "went back") {
		t.Errorf("a watch from a later revision: %v, want that etcd went back", err)
	}
}

// Damaged files give an error that names the folder and the way out.
func TestDamagedFiles(t *testing.T) {
	for _, damage := range []string{"member/snap/db", "member/wal"} {
		t.Run(damage, func(t *testing.T) {
			// Not t.TempDir: a start that fails leaves goroutines of etcd, which
			// may still make files while the folder is removed.
			dir, err := os.MkdirTemp("", "watchword-damaged-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				for i := 0; i < 100 && os.RemoveAll(dir) != nil; i++ {
					time.Sleep(10 * time.Millisecond)
				}
			})
			kek := testKEK(t)
			s := openTest(t, dir, kek)
			mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a")}})
			_ = s.Close()
			files, err := filepath.Glob(filepath.Join(dir, "etcd", damage, "*.wal"))
			if err != nil {
				t.Fatal(err)
			}
			if len(files) == 0 {
				files = []string{filepath.Join(dir, "etcd", damage)}
			}
			for _, f := range files {
				overwrite(t, f)
			}
			_, err = Open(t.Context(), Config{DataDir: dir, fast: true})
			if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "restore a backup") {
				t.Errorf("Open with damaged %s: %v; want an error with the folder and the way out", damage, err)
			}
		})
	}
}

func overwrite(t *testing.T, path string) {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte{0xa5}, int(min(info.Size(), 1<<20))), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A second process on the same folder is told so at once.
func TestFolderInUse(t *testing.T) {
	dir := t.TempDir()
	openTest(t, dir, testKEK(t))
	_, err := Open(t.Context(), Config{DataDir: dir, fast: true})
	if err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a second Open: %v, want \"in use\"", err)
	}
}

// An etcd that is not there is named, with what to look at.
func TestNoEtcd(t *testing.T) {
	_, err := Open(t.Context(), Config{Endpoints: []string{"127.0.0.1:1"}})
	if err == nil || !strings.Contains(err.Error(), "127.0.0.1:1") || !strings.Contains(err.Error(), "did not answer") {
		t.Errorf("Open without etcd: %v", err)
	}
}
