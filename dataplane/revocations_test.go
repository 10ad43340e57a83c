package dataplane

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/watchword-mesh/watchword/dataplane/xdsclient"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

func askWith(d *DataPlane, token string) (int, string) {
	w := httptest.NewRecorder()
	r := httptest.NewRequest("GET", "http://orders/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	d.Middleware(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})).ServeHTTP(w, r)
	return w.Code, w.Header().Get("X-Watchword-Reason")
}

// Without its revocations a data plane serves nothing, whichever of the two resources
// came first; a token that was verified and remembered before is refused after; and a
// list that can't be read, or is taken away, lets nothing in.
func TestRevocationsAreNeeded(t *testing.T) {
	d := plane(t, nil)
	rules := resourceOf(t, "v1", parse(t, rulesetWith(`{"match":{},"authentication":{"mode":"STRICT","rules":[`+rule("")+`]}}`)))
	if err := d.resources.Accept(rules); err != nil {
		t.Fatal(err)
	}
	token := jwt("jti", "j1")
	expect := func(what string, code int, word string) {
		t.Helper()
		if got, why := askWith(d, token); got != code || why != word {
			t.Errorf("%s: %d %q, want %d %q", what, got, why, code, word)
		}
	}
	expect("with a ruleset alone", 503, "not_ready")
	if d.Serving() {
		t.Error("it says that it serves")
	}
	revoke(t, d, &dataplanev1.Revocations{Service: "orders"})
	expect("with none", 200, "")
	revoke(t, d, &dataplanev1.Revocations{Service: "orders", Issuers: []*dataplanev1.RevokedOfIssuer{{Issuer: "sts", Tokens: []string{"j1"}}}})
	expect("revoked", 401, "revoked")
	for name, bad := range map[string]xdsclient.Resource{
		"no protobuf":     {TypeURL: revocationsType, Name: "orders", Version: "2", Body: []byte("\xff")},
		"another service": {TypeURL: revocationsType, Name: "orders", Version: "2", Body: resourceOf(t, "2", &dataplanev1.Revocations{Service: "billing"}).Body},
		"no issuer":       {TypeURL: revocationsType, Name: "orders", Version: "2", Body: resourceOf(t, "2", &dataplanev1.Revocations{Service: "orders", Issuers: []*dataplanev1.RevokedOfIssuer{{}}}).Body},
	} {
		if err := d.resources.Accept(bad); err == nil {
			t.Errorf("%s: it was accepted", name)
		}
		expect("after "+name, 401, "revoked")
	}
	if err := d.resources.Remove(revocationsType, "orders"); err != nil {
		t.Fatal(err)
	}
	expect("taken away", 503, "not_ready")
}

// A start without control plane does not forget a revocation.
func TestRevocationsAreKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "last")
	with := func(c *Config) { c.File, c.FileSecrets = file, true }
	first := plane(t, with)
	if err := first.openFile(); err != nil {
		t.Fatal(err)
	}
	enforce(t, first, rulesetWith(`{"match":{},"authentication":{"mode":"STRICT","rules":[`+rule("")+`]}}`))
	revoke(t, first, &dataplanev1.Revocations{Service: "orders", Issuers: []*dataplanev1.RevokedOfIssuer{{Issuer: "sts", Tokens: []string{"j1"}}}})
	second := plane(t, with)
	if err := second.openFile(); err != nil {
		t.Fatal(err)
	}
	for token, want := range map[string]int{jwt("jti", "j1"): 401, jwt("jti", "j2"): 200} {
		if got, word := askWith(second, token); got != want {
			t.Errorf("after a start with the file: %d %s, want %d", got, word, want)
		}
	}
}
