package sts

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"

	"github.com/watchword-mesh/watchword/internal/jose"
)

// While states are swapped, each answer is from one of them as a whole: a
// token of an issuer is signed with that issuer's key. Meant for -race.
func TestStateIsSwappedWhole(t *testing.T) {
	m := newMesh(t)
	keys := map[string][]jose.Key{}
	var states []*State
	for i := range 3 {
		st, _ := newState(t)
		st.Issuer = fmt.Sprintf("https://sts-%d.example.com", i)
		st.Secrets = m.state.Secrets
		keys[st.Issuer] = st.Keys.Keys()
		states = append(states, st)
	}
	m.SetState(states[0])

	const askers, each = 4, 50
	answers := make(chan *httptest.ResponseRecorder, askers*each)
	done := make(chan struct{})
	var swapping, asking sync.WaitGroup
	swapping.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
				m.SetState(states[i%len(states)])
			}
		}
	})
	for range askers {
		asking.Go(func() {
			for range each {
				if w := m.ask(m.tokenRequest("audience", "orders")); w.Code == http.StatusOK {
					answers <- w
				} else {
					t.Errorf("%d %s", w.Code, w.Body)
				}
				bad := form(url.Values{"client_id": {"shop"}, "client_secret": {"wrong"}}.Encode())
				if w := m.ask(bad); w.Code != 401 && w.Code != 429 {
					t.Errorf("wrong secret: %d %s", w.Code, w.Body)
				}
				if w := m.ask(httptest.NewRequest("GET", "/jwks", nil)); w.Code != 200 {
					t.Errorf("GET /jwks: %d", w.Code)
				}
			}
		})
	}
	asking.Wait()
	close(done)
	swapping.Wait()
	close(answers)
	for w := range answers {
		token := tokenOf(t, w)
		unverified, err := jose.ParseUnverified(token)
		if err != nil {
			t.Fatalf("ParseUnverified: %v", err)
		}
		issuer := issuerOf(t, unverified.Claims())
		if _, err := jose.Verify(token, keys[issuer], jose.VerifyOptions{}); err != nil {
			t.Errorf("a token of %s isn't signed with its key: %v", issuer, err)
		}
	}
}
