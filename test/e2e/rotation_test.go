package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// keysAre waits for the signing keys to be as somebody wants them.
func keysAre(t *testing.T, admin adminv1.AdminServiceClient, what string, is func(*adminv1.SigningKeys) bool) *adminv1.SigningKeys {
	t.Helper()
	var list *adminv1.SigningKeys
	meshtest.Eventually(t, func() error {
		resp, err := admin.ListSigningKeys(t.Context(), &adminv1.ListSigningKeysRequest{})
		if list = resp.GetSigningKeys(); err == nil && !is(list) {
			err = fmt.Errorf("want %s, the keys are %v", what, list)
		}
		return err
	})
	return list
}

func stateOf(list *adminv1.SigningKeys, kid string) adminv1.SigningKey_State {
	for _, k := range list.GetKeys() {
		if k.GetKid() == kid {
			return k.GetState()
		}
	}
	return adminv1.SigningKey_STATE_UNSPECIFIED
}

// Over connections that stay open, a rotation refuses nobody: tokens of the old key and
// of the new one are accepted by a real Envoy and by the Go library. A key that was revoked
// is refused by all that have confirmed it, and the next one signs already.
func TestRotationAndEmergency(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.ApplyWait(t, m.service(t, "orders")+resource("Service", "payments", "dataPlanes: [GO]")+
		resource("Service", "frontend", "calls: [{service: orders}, {service: payments}]"))
	m.startEnvoy(t, "orders")
	library := httptest.NewServer(m.OpenDataPlane(t, "payments").Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) })))
	t.Cleanup(library.Close)
	m.WaitConnected(t, "orders", 1)
	conns := map[string]*meshtest.Conn{
		"orders":   {Address: m.inbound["orders"], Protocol: meshtest.HTTP2},
		"payments": {Address: library.Listener.Addr().String()},
	}
	try := func(what, token, audience string, want int) {
		t.Helper()
		wantStatus(t, what, meshtest.Call{Token: token}, conns[audience].Do(t, meshtest.Call{Token: token}), want)
	}
	first := keysAre(t, m.Admin, "one that signs and one that is next", func(l *adminv1.SigningKeys) bool { return len(l.GetKeys()) == 2 })
	old := map[string]string{}
	for audience := range conns {
		old[audience] = m.Token(t, "frontend", audience)
		try("a token of before", old[audience], audience, 200)
	}
	asked, err := m.Admin.RotateSigningKey(t.Context(), &adminv1.RotateSigningKeyRequest{})
	if err != nil || asked.GetActive() != first.GetActive() {
		t.Fatalf("RotateSigningKey: %v, %v; want %s to be followed", asked, err, first.GetActive())
	}
	next := keysAre(t, m.Admin, "the next key to sign for all", func(l *adminv1.SigningKeys) bool {
		// Nobody of the mesh verifies tokens for the frontend, so that the age of what others have read is waited for.
		return l.GetActive() == asked.GetNext() && l.GetBehind() <= 1 && l.GetAsked() == nil
	})
	for audience := range conns {
		try("a token of the old key", old[audience], audience, 200)
		try("a token of the new key", m.Token(t, "frontend", audience), audience, 200)
	}
	if got := stateOf(next, first.GetActive()); got != adminv1.SigningKey_ACTIVE {
		t.Errorf("the old key is %s, want it to sign for the frontend: %v", got, next)
	}

	young := map[string]string{}
	for audience := range conns {
		young[audience] = m.Token(t, "frontend", audience)
	}
	keysAre(t, m.Admin, "a standby", func(l *adminv1.SigningKeys) bool { return len(l.GetKeys()) == 3 })
	revoked, err := m.Admin.RevokeSigningKey(t.Context(), &adminv1.RevokeSigningKeyRequest{Kid: next.GetActive()})
	if err != nil {
		t.Fatal(err)
	}
	waitReceipt(t, m.Admin, revoked.GetRevision(), revoked.GetServices())
	for audience := range conns {
		try("a token of the revoked key", young[audience], audience, 401)
		try("one of the key before, which is good still", old[audience], audience, 200)
		try("one of the key after", m.Token(t, "frontend", audience), audience, 200)
	}
	if again, err := m.Admin.RevokeSigningKey(t.Context(), &adminv1.RevokeSigningKeyRequest{Kid: next.GetActive()}); err != nil || len(again.GetRevoked()) > 0 {
		t.Errorf("revoked again: %v, %v; want no change", again, err)
	}

	all, err := m.Admin.RevokeSigningKey(t.Context(), &adminv1.RevokeSigningKeyRequest{All: true})
	if err != nil {
		t.Fatal(err)
	}
	waitReceipt(t, m.Admin, all.GetRevision(), all.GetServices())
	for audience := range conns {
		try("a token of any key of before", old[audience], audience, 401)
		try("one of the new key", m.Token(t, "frontend", audience), audience, 200)
	}
}

// waitReceipt returns when all data planes of some services have a revision.
func waitReceipt(t *testing.T, admin adminv1.AdminServiceClient, revision int64, services []string) {
	t.Helper()
	stream, err := admin.WaitInSync(t.Context(), &adminv1.WaitInSyncRequest{Revision: revision, Services: services, Receipt: true, Timeout: durationpb.New(meshtest.Patience)})
	if err != nil {
		t.Fatal(err)
	}
	for {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatalf("revision %d at %v: %v", revision, services, errors.Join(err, t.Context().Err()))
		}
		if resp.GetDone() {
			// Envoy's main thread confirms; its workers have it a turn later.
			time.Sleep(100 * time.Millisecond)
			return
		}
	}
}
