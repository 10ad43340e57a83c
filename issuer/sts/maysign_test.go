package sts

import (
	"net/http"
	"testing"
)

// A process that may not sign any more says so with 503, and whom to ask; it signs again
// as soon as it may.
func TestMaySign(t *testing.T) {
	m := newMesh(t)
	may := true
	m.maySign = func() bool { return may }
	for _, tt := range []struct {
		may  bool
		want int
	}{{true, http.StatusOK}, {false, http.StatusServiceUnavailable}, {true, http.StatusOK}} {
		may = tt.may
		if got := m.ask(m.tokenRequest("audience", "orders")); got.Code != tt.want {
			t.Errorf("may sign %v: %d %s, want %d", tt.may, got.Code, got.Body, tt.want)
		}
	}
	may = false
	want := `{"error":"temporarily_unavailable","error_description":"this replica has heard of no change for too long to sign; ask another"}`
	if got := m.ask(m.tokenRequest("audience", "orders")); got.Body.String() != want {
		t.Errorf("got %s, want %s", got.Body, want)
	}
}
