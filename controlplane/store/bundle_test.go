package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/watchword-mesh/watchword/controlplane/bundle"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

func issuer(name string) *policyv1.Resource {
	return &policyv1.Resource{
		Metadata: &policyv1.Metadata{Name: name},
		Spec: &policyv1.Resource_Issuer{Issuer: &policyv1.IssuerSpec{Issuer: "https://" + name, KeySet: &policyv1.KeySet{
			Source: &policyv1.KeySet_JwksUri{JwksUri: &policyv1.JwksUri{Uri: "https://" + name + "/jwks"}}}}},
	}
}

// A fetched set is stored for an issuer that exists, in place of the one that
// the writer knew and of no other; it comes back as it was.
func TestKeepBundle(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	at := time.Unix(1_800_000_000, 5).UTC()
	b := bundle.Set{Issuer: "idp", Source: "https://idp/jwks", JWKS: `{"keys":[]}`, LeftOut: []string{"key 1: odd"}, Changed: at, Fetched: at.Add(time.Minute)}
	if _, err := s.KeepBundle(t.Context(), b); !errors.Is(err, bundle.ErrConflict) {
		t.Errorf("a set of an issuer that is not there: %v, want ErrConflict", err)
	}
	before := mustCommit(t, s, Change{Put: []*policyv1.Resource{issuer("idp"), issuer("idp-2")}})
	revision, err := s.KeepBundle(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	b.Revision = revision
	if d := cmp.Diff(map[string]bundle.Set{"idp": b}, mustLoad(t, s).Bundles); d != "" {
		t.Errorf("read back -want +got:\n%s", d)
	}
	for _, other := range []int64{0, revision - 1, revision + 1} {
		b.Revision = other
		if _, err := s.KeepBundle(t.Context(), b); !errors.Is(err, bundle.ErrConflict) {
			t.Errorf("in place of revision %d: %v, want ErrConflict", other, err)
		}
		if err := s.DropBundle(t.Context(), "idp", other); other != 0 && !errors.Is(err, bundle.ErrConflict) {
			t.Errorf("dropping revision %d: %v, want ErrConflict", other, err)
		}
	}
	b.Revision = revision
	if b.Revision, err = s.KeepBundle(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	// A fetch is no change of the configuration: who looked at it before may
	// still write.
	if _, err := s.Commit(t.Context(), before, Change{Put: []*policyv1.Resource{service("a")}}); err != nil {
		t.Errorf("a commit after a fetch: %v", err)
	}
	if err := s.DropBundle(t.Context(), "idp", b.Revision); err != nil {
		t.Error(err)
	}
	if n := len(mustLoad(t, s).Bundles); n != 0 {
		t.Errorf("%d sets after the last one was dropped", n)
	}
}

// The watch says which sets differ, and that alone; with its issuer a set goes,
// and those of others stay.
func TestWatchBundles(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	mustCommit(t, s, Change{Put: []*policyv1.Resource{issuer("idp"), issuer("idp-2")}})
	from := mustLoad(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	events := make(chan Event, 8)
	go func() { _ = s.Watch(ctx, from, func(e Event) { events <- e }) }()
	for _, name := range []string{"idp", "idp-2"} {
		if _, err := s.KeepBundle(ctx, bundle.Set{Issuer: name, JWKS: name}); err != nil {
			t.Fatal(err)
		}
		e := <-events
		if !cmp.Equal(e.Bundles, []string{name}) || len(e.Changed) != 0 || e.SigningKeys || e.Snapshot.Bundles[name].JWKS != name {
			t.Errorf("a set of %s came as %+v", name, e)
		}
	}
	mustCommit(t, s, Change{Delete: []policy.Key{{Kind: policy.KindIssuer, Name: "idp"}}})
	e := <-events
	if _, stays := e.Snapshot.Bundles["idp-2"]; !cmp.Equal(e.Bundles, []string{"idp"}) || len(e.Changed) != 1 || len(e.Snapshot.Bundles) != 1 || !stays {
		t.Errorf("deleting its issuer came as %+v with %v", e, e.Snapshot.Bundles)
	}
	// What was missed is found by comparing.
	now := mustLoad(t, s)
	if d := difference(from, now); !cmp.Equal(d.Bundles, []string{"idp-2"}) {
		t.Errorf("the difference of the whole names %v, want idp-2", d.Bundles)
	}
	if d := difference(now, from); !cmp.Equal(d.Bundles, []string{"idp-2"}) {
		t.Errorf("the difference back names %v, want idp-2", d.Bundles)
	}
}

// A set that can't be read leaves the last good one in force.
func TestUnreadableBundle(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	mustCommit(t, s, Change{Put: []*policyv1.Resource{issuer("idp")}})
	if _, err := s.KeepBundle(t.Context(), bundle.Set{Issuer: "idp", JWKS: "good"}); err != nil {
		t.Fatal(err)
	}
	last := mustLoad(t, s)
	for _, junk := range []string{"junk", `{"issuer":"another"}`} {
		resp, err := s.client.Put(t.Context(), s.prefix+"bundles/idp", junk)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.client.Get(t.Context(), s.prefix+"bundles/idp")
		if err != nil {
			t.Fatal(err)
		}
		e := s.advance(last, []*clientv3.Event{{Type: clientv3.EventTypePut, Kv: got.Kvs[0]}})
		again, err := s.load(t.Context(), last)
		if err != nil || e.Snapshot.Bundles["idp"].JWKS != "good" || len(e.Bundles) != 0 || again.Bundles["idp"].JWKS != "good" {
			t.Errorf("after %s at %d: %+v, and %+v (%v); want the last good set", junk, resp.Header.Revision, e, again, err)
		}
	}
}
