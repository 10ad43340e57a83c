package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/issuer/ca"
	"github.com/watchword-mesh/watchword/issuer/keyset"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// shared is an Issuer with a shared secret, whose record is sealed.
func shared(name, secret string) *policyv1.Resource {
	return &policyv1.Resource{
		Metadata: &policyv1.Metadata{Name: name},
		Spec: &policyv1.Resource_Issuer{Issuer: &policyv1.IssuerSpec{Issuer: name, KeySet: &policyv1.KeySet{
			Source: &policyv1.KeySet_Jwks{Jwks: `{"keys":[{"kty":"oct","k":"` + secret + `"}]}`}}}},
	}
}

// fill stores all kinds of sealed records, and n Issuers of them.
func fill(t *testing.T, s *Store, n int) (pepper []byte) {
	t.Helper()
	pepper, _, err := s.Init(t.Context(), builtin())
	if err != nil {
		t.Fatal(err)
	}
	firstKeys(t, s)
	if _, err := s.AddFirstCA(t.Context(), testCA()); err != nil {
		t.Fatal(err)
	}
	c := Change{Put: []*policyv1.Resource{service("a")}}
	for i := range n {
		c.Put = append(c.Put, shared(fmt.Sprintf("shared-%03d", i), "c2VjcmV0"))
	}
	parts, err := s.Split(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range parts {
		mustCommit(t, s, part)
	}
	return pepper
}

func testCA() ca.Record {
	return ca.Record{ID: "ca1", State: ca.Active, Created: noon, Certificate: []byte("certificate"), PrivatePKCS8: []byte("the private key of the CA")}
}

func sealedWith(t *testing.T, s *Store) map[string]int {
	t.Helper()
	counts, err := s.SealedWith(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return counts
}

// sameContent says that nothing but the sealing differs: revisions of resources
// included, which people use to say what they have looked at.
func sameContent(t *testing.T, want, got *Snapshot) {
	t.Helper()
	if d := cmp.Diff(want.Config, got.Config, protocmp.Transform()); d != "" {
		t.Errorf("resources (-want +got):\n%s", d)
	}
	if d := cmp.Diff(want.Keys, got.Keys, cmpopts.IgnoreFields(keyset.Record{}, "Revision")); d != "" {
		t.Errorf("signing keys (-want +got):\n%s", d)
	}
	if d := cmp.Diff(want.CAs, got.CAs); d != "" {
		t.Errorf("CAs (-want +got):\n%s", d)
	}
}

// noTrace says that nothing under the prefix names a key.
func noTrace(t *testing.T, s *Store, id string) {
	t.Helper()
	all, err := s.client.Get(t.Context(), s.prefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range all.Kvs {
		if bytes.Contains(kv.Value, []byte(id)) || bytes.Contains(kv.Key, []byte(id)) {
			t.Errorf("%s names the older key", kv.Key)
		}
	}
}

// Rotate under load: not one call fails, also when the rotation breaks off in the
// middle and another process goes on with it. At the end nothing names the older
// key, which opens nothing any more, and all content is as it was.
func TestRotateUnderLoad(t *testing.T) {
	dir, before, after := t.TempDir(), testKEK(t), testKEK(t)
	s := openTest(t, dir, before)
	pepper := fill(t, s, 3*maxBatch)
	want := mustLoad(t, s)
	next := NewKeyring(after, before)

	work := startLoad(t, s, "first")
	ctx, crash := context.WithCancel(t.Context())
	err := s.RotateKEK(ctx, next, func(done, _ int64) {
		work.round()
		if done > maxBatch {
			crash()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a rotation that was broken off: %v, want context.Canceled", err)
	}
	work.stop(t)
	if counts := sealedWith(t, s); counts[before.ID()] == 0 || counts[after.ID()] == 0 {
		t.Errorf("in the middle: %v, want some of both", counts)
	}
	_ = s.Close()

	s = openTest(t, dir, before)
	s.UseKeyring(next)
	watched := watchAll(t, s)
	work = startLoad(t, s, "second")
	var done, total int64
	err = s.RotateKEK(t.Context(), next, func(d, n int64) {
		work.round()
		done, total = d, n
	})
	if err != nil || done != total || done == 0 {
		t.Errorf("the rotation that went on: %d of %d, %v", done, total, err)
	}
	work.stop(t)
	counts := sealedWith(t, s)
	if n := counts[after.ID()]; len(counts) != 1 || n < 3*maxBatch+3 {
		t.Errorf("at the end: %v, want all with %s", counts, after.ID())
	}
	noTrace(t, s, before.ID())
	if s.Unreadable() != 0 {
		t.Errorf("the watch could not read %d records", s.Unreadable())
	}
	watched(mustRevision(t, s))

	_ = s.Close()
	s = openTest(t, dir, after)
	again, _, err := s.Init(t.Context(), builtin())
	if err != nil || !bytes.Equal(again, pepper) {
		t.Errorf("with the new key alone: the same pepper %v, %v", bytes.Equal(again, pepper), err)
	}
	got := mustLoad(t, s)
	for k := range got.Config {
		if strings.HasPrefix(k.Name, "load-") || k.Name == "last" {
			delete(got.Config, k)
		}
	}
	sameContent(t, want, got)
}

// watchAll follows the store. The result waits for a revision, and says of each
// resource that was only sealed anew and yet was named as changed.
func watchAll(t *testing.T, s *Store) (check func(revision int64)) {
	t.Helper()
	from := mustLoad(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	events := make(chan Event, 1<<16)
	go func() { _ = s.Watch(ctx, from, func(e Event) { events <- e }); close(events) }()
	return func(revision int64) {
		defer cancel()
		last := mustCommit(t, s, Change{Put: []*policyv1.Resource{service("last")}})
		for e := range events {
			for _, k := range e.Changed {
				if strings.HasPrefix(k.Name, "shared-") {
					t.Errorf("revision %d: %v was named as changed", e.Snapshot.Revision, k)
				}
			}
			if e.SigningKeys || e.CAs {
				t.Errorf("revision %d: signing keys %v, CAs %v were named as changed", e.Snapshot.Revision, e.SigningKeys, e.CAs)
			}
			if e.Snapshot.Revision >= last {
				return
			}
		}
		t.Errorf("the watch ended before revision %d", revision)
	}
}

// A record that somebody writes while it is sealed anew stays as that one wrote
// it.
func TestRotationLosesNoWrite(t *testing.T) {
	before, after := testKEK(t), testKEK(t)
	s := openTest(t, t.TempDir(), before)
	mustCommit(t, s, Change{Put: []*policyv1.Resource{shared("x", "b2xk")}})
	kv, err := s.get(t.Context(), "config/Issuer/x")
	if err != nil {
		t.Fatal(err)
	}
	r := &rotation{store: s, ring: NewKeyring(after, before)}
	if err := r.add(t.Context(), "config/Issuer/x", kv); err != nil || len(r.batch) != 1 {
		t.Fatalf("add: %v, %d in the batch; want 1", err, len(r.batch))
	}
	revision := mustCommit(t, s, Change{Put: []*policyv1.Resource{shared("x", "bmV3")}})
	if err := r.flush(t.Context()); err != nil || r.lost != 1 {
		t.Errorf("flush: %v, %d lost; want 1", err, r.lost)
	}
	got := mustLoad(t, s).Config[policy.Key{Kind: policy.KindIssuer, Name: "x"}]
	if !strings.Contains(got.GetIssuer().GetKeySet().GetJwks(), "bmV3") || got.GetMetadata().GetRevision() != revision {
		t.Errorf("stored: %v, want that of the later write", got)
	}
}

// A rotation does not end before those have written who sealed with the older key
// already, also if one before it was broken off while it waited for them.
func TestRotationWaitsForWriters(t *testing.T) {
	before, after := testKEK(t), testKEK(t)
	s := openTest(t, t.TempDir(), before)
	if _, _, err := s.Init(t.Context(), builtin()); err != nil {
		t.Fatal(err)
	}
	ring, done := s.kek.begin()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.kek.use(NewKeyring(after, before)) // as a rotation does
	if err := s.kek.settle(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for a writer: %v, want context.Canceled", err)
	}
	before, after = after, testKEK(t)
	ended := make(chan error)
	go func() { ended <- s.RotateKEK(t.Context(), NewKeyring(after, before, ring.current), nil) }()
	for s.Keyring().ID() != after.ID() { // until it has switched
		select {
		case err := <-ended:
			t.Fatalf("it ended before the writer had: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	if err := s.RotateKEK(t.Context(), NewKeyring(after, before), nil); !errors.Is(err, ErrRotating) {
		t.Errorf("a second rotation meanwhile: %v, want ErrRotating", err)
	}
	value, err := s.encodeResource(ring, shared("late", "c2VjcmV0"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Put(t.Context(), s.prefix+"config/Issuer/late", string(value)); err != nil {
		t.Fatal(err)
	}
	done()
	if err := <-ended; err != nil {
		t.Errorf("the rotation: %v", err)
	}
	if got := sealedWith(t, s); !cmp.Equal(got, map[string]int{after.ID(): 2}) {
		t.Errorf("sealed with %v, want 2 with %s", got, after.ID())
	}
}

// A rotation to keys that can't open what there is does not begin; a damaged
// record does not keep the others from being sealed anew, and is named.
func TestRotationRefused(t *testing.T) {
	before, after := testKEK(t), testKEK(t)
	s := openTest(t, t.TempDir(), before)
	fill(t, s, 2)
	err := s.RotateKEK(t.Context(), NewKeyring(after), nil)
	if err == nil || !strings.Contains(err.Error(), before.ID()) || !strings.Contains(err.Error(), "--kek-file") {
		t.Errorf("without the older key: %v; want its id and the flag", err)
	}
	if s.Keyring().ID() != before.ID() {
		t.Errorf("a refused rotation has switched to %s", s.Keyring().ID())
	}
	kv, err := s.get(t.Context(), "config/Issuer/shared-000")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.client.Put(t.Context(), s.prefix+"config/Issuer/moved", string(kv.Value)); err != nil {
		t.Fatal(err)
	}
	err = s.RotateKEK(t.Context(), NewKeyring(after, before), nil)
	if err == nil || !strings.Contains(err.Error(), "config/Issuer/moved") {
		t.Errorf("with a damaged record: %v, want its name", err)
	}
	// The pepper, both signing keys, the CA and two issuers.
	if got, want := sealedWith(t, s), (map[string]int{before.ID(): 1, after.ID(): 6}); !cmp.Equal(got, want) {
		t.Errorf("sealed with %v, want %v", got, want)
	}
}
