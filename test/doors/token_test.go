package doors

import (
	"crypto"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"testing"

	"github.com/watchword-mesh/watchword/test/meshtest"
)

// credentialOf is an enrolled identity, as far as these tests need one.
type credentialOf interface {
	Service() string
	Instance() string
	Certificate() (chain [][]byte, key crypto.Signer)
}

// signerOf signs whatever claims with the key of an instance.
func signerOf(id credentialOf) *meshtest.Signer {
	_, key := id.Certificate()
	return &meshtest.Signer{Alg: "ES256", KID: id.Instance(), Private: key}
}

// assertion is a client assertion of an instance for itself.
func (m *mesh) assertion(t *testing.T, id credentialOf) string {
	t.Helper()
	return signerOf(id).Token(t, meshtest.NewClaims(id.Service(), id.Service(), m.IssuerURL()).With("jti", m.name("jti")))
}

// askToken asks the token endpoint by a client assertion (RFC 7523 section 2.2).
func (m *mesh) askToken(t *testing.T, assertion, audience string) (int, string) {
	t.Helper()
	return m.postToken(t, url.Values{
		"grant_type": {"client_credentials"}, "audience": {audience},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion},
	})
}

func (m *mesh) postToken(t *testing.T, form url.Values) (int, string) {
	t.Helper()
	res, err := m.HTTP(t).PostForm(m.TokenURL(), form)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// ownToken is an access token that an instance gets for itself.
func (m *mesh) ownToken(t *testing.T, id credentialOf, audience string) string {
	t.Helper()
	code, body := m.askToken(t, m.assertion(t, id), audience)
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal([]byte(body), &answer); err != nil || code != http.StatusOK || answer.Token == "" {
		t.Fatalf("a token of %s for %s: got %d %s, want 200", id.Service(), audience, code, body)
	}
	return answer.Token
}
