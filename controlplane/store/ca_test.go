package store

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/watchword-mesh/watchword/issuer/ca"
)

// The first CA is stored once, comes back as it was, its private key in no stored
// value; beside another state, certificate or ID it can't be opened.
func TestCA(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	for i, want := range []bool{true, false} {
		c := testCA()
		c.ID += strings.Repeat("x", i)
		if added, err := s.AddFirstCA(t.Context(), c); err != nil || added != want {
			t.Errorf("AddFirstCA, time %d: %v, %v; want %v", i+1, added, err, want)
		}
	}
	if d := cmp.Diff(map[string]ca.Record{"ca1": testCA()}, mustLoad(t, s).CAs); d != "" {
		t.Errorf("loaded (-want +got):\n%s", d)
	}
	kv, err := s.get(t.Context(), "ca/ca1")
	if err != nil {
		t.Fatal(err)
	}
	private := testCA().PrivatePKCS8
	if bytes.Contains(kv.Value, private) || strings.Contains(string(kv.Value), base64.StdEncoding.EncodeToString(private)) {
		t.Errorf("the private key is stored in clear: %s", kv.Value)
	}
	for _, c := range []struct{ name, old, new string }{
		{"ca/ca1", `"state":"active"`, `"state":"other"`},
		{"ca/ca1", `"certificate":"Y2Vyd`, `"certificate":"YWVyd`},
		{"ca/ca2", `"id":"ca1"`, `"id":"ca2"`},
		{"ca/ca2", "", ""},
	} {
		value := strings.Replace(string(kv.Value), c.old, c.new, 1)
		if _, err := s.client.Put(t.Context(), s.prefix+c.name, value); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Load(t.Context()); err == nil || !strings.Contains(err.Error(), c.name) {
			t.Errorf("Load with %s for %s at %s: %v, want an error that names it", c.new, c.old, c.name, err)
		}
		if _, err := s.client.Delete(t.Context(), s.prefix+casPrefix, clientv3.WithPrefix()); err != nil {
			t.Fatal(err)
		}
	}
}

// The admin token's state is made once, can be replaced, and is in each snapshot.
func TestAdminToken(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	if _, err := s.AdminToken(t.Context()); !errors.Is(err, ErrUnknown) {
		t.Errorf("before the first start: %v, want ErrUnknown", err)
	}
	from := mustLoad(t, s)
	first := AdminTokenState{Hash: []byte{1}, Created: noon}
	got, err := s.EnsureAdminToken(t.Context(), first)
	if err != nil || !bytes.Equal(got.Hash, first.Hash) || got.Revision == 0 {
		t.Errorf("the first: %+v, %v; want %+v", got, err, first)
	}
	if got, err = s.EnsureAdminToken(t.Context(), AdminTokenState{Hash: []byte{2}}); err != nil || !bytes.Equal(got.Hash, first.Hash) {
		t.Errorf("a second one: %+v, %v; want the first", got, err)
	}
	second := AdminTokenState{Hash: []byte{3}, Created: noon.Add(time.Hour), Revoked: true}
	if second.Revision, err = s.SetAdminToken(t.Context(), second, entry("RevokeAdminToken")); err != nil {
		t.Fatal(err)
	}
	snap := mustLoad(t, s)
	if d := cmp.Diff(second, snap.AdminToken); d != "" {
		t.Errorf("loaded (-want +got):\n%s", d)
	}
	if !difference(from, snap).AdminToken || difference(snap, snap).AdminToken {
		t.Error("the difference between snapshots does not say what differs")
	}
	if got := methods(mustListAudit(t, s, AuditQuery{})); !cmp.Equal(got, []string{"RevokeAdminToken"}) {
		t.Errorf("audit: %v", got)
	}
}
