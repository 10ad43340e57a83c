package sts

import (
	"testing"

	"github.com/watchword-mesh/watchword/internal/jose"
)

// Who has made sure which instance asks gets a token of that instance; the audit
// has it, and the answer says which key has signed.
func TestIssueToInstance(t *testing.T) {
	m := newMesh(t)
	got, refused := m.Issue(t.Context(), Request{Service: "shop", Audience: "orders", Instance: "one"})
	if refused != nil {
		t.Fatal(refused)
	}
	if claims := m.claimsOf(t, got.AccessToken); claims["instance"] != "one" {
		t.Errorf("claims %v, want instance one", claims)
	}
	if want := m.state.Keys.Keys()[0].ID(); got.KeyID != want {
		t.Errorf("signed by key %q, want %q", got.KeyID, want)
	}
	if e := m.audited(); len(e) != 1 || e[0].Credential != "instance/one" || e[0].ID != got.ID {
		t.Errorf("audit %+v, want one entry of instance/one with jti %s", e, got.ID)
	}
	if u, err := jose.ParseUnverified(got.AccessToken); err != nil || u.Header().KeyID != got.KeyID {
		t.Errorf("the token's own header: %v; want kid %q", err, got.KeyID)
	}
}
