package doors

import (
	"crypto/ecdsa"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/watchword-mesh/watchword/dataplane/enrolment"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// useAll makes all the secrets that the mesh makes, and uses them.
func (s *search) useAll(t *testing.T) {
	t.Helper()
	s.secrets.add(t, "the admin token", []byte(s.AdminToken(t)))
	s.secrets.add(t, "an admin token that was revoked", []byte(replaceAdminToken(t, s.mesh)))
	s.secrets.add(t, "the admin token of now", []byte(s.AdminToken(t)))
	s.addJoinToken(t, "a join token that is not used", s.newJoinToken(t, "orders"))
	_, secret := s.clientSecret(t)
	s.secrets.add(t, "a client secret", []byte(secret))
	if code, body := s.postToken(t, url.Values{"grant_type": {"client_credentials"}, "audience": {"orders"}, "client_id": {"shop"}, "client_secret": {secret}}); code != http.StatusOK {
		t.Fatalf("a token by the client secret: %d %s", code, body)
	}
	shop := s.enrol(t, "shop")
	assertion := s.assertion(t, shop)
	s.secrets.token(t, "a client assertion", assertion)
	if code, body := s.askToken(t, assertion, "orders"); code != http.StatusOK {
		t.Fatalf("a token by a client assertion: %d %s", code, body)
	}
	_, body := s.askToken(t, assertion, "orders") // a replay
	s.answers.WriteString(body)
	s.addKey(t, "an instance's key", privateKey(t, shop))
	s.secrets.token(t, "an access token of an instance", s.ownToken(t, shop, "watchword-admin"))
	s.secrets.token(t, "an access token of an operator", s.tokenFor(t, "shop", "orders"))
	s.generate(t)
	s.kubernetes(t)
	s.addKEK(t, "the key-encryption key of before")
	if err := drain(s.root.RotateKEK(t.Context(), &adminv1.RotateKEKRequest{})); err != nil {
		t.Fatal(err)
	}
}

func privateKey(t *testing.T, id credentialOf) *ecdsa.PrivateKey {
	t.Helper()
	_, key := id.Certificate()
	return key.(*ecdsa.PrivateKey)
}

// addKey takes the number that is secret of a key; every form of it has that.
func (s *search) addKey(t *testing.T, what string, key *ecdsa.PrivateKey) {
	t.Helper()
	number, err := key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	s.secrets.add(t, what, number)
}

func (s *search) clientSecret(t *testing.T) (id, secret string) {
	t.Helper()
	resp, err := s.root.CreateClientSecret(t.Context(), &adminv1.CreateClientSecretRequest{Service: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetClientId(), resp.GetClientSecret()
}

// generate has credentials made, by Apply and by Kong's API.
func (s *search) generate(t *testing.T) {
	t.Helper()
	resp, err := s.root.Apply(t.Context(), meshtest.Documents(resource("Consumer", "robot", "username: robot", "credentials: [{}]")))
	if err != nil {
		t.Fatal(meshtest.Explain(err))
	}
	made := 0
	for _, g := range resp.GetGenerated() {
		if strings.Contains(g.GetField(), "keySet") || strings.Contains(g.GetField(), "secret") {
			s.secrets.add(t, "a consumer's secret, made by Apply", []byte(g.GetValue()))
			made++
		}
	}
	if made != 1 {
		t.Fatalf("Apply made %v, want one secret", resp.GetGenerated())
	}
	const given = "given-through-kong-and-32-bytes-long"
	s.secrets.add(t, "a consumer's secret, given through Kong", []byte(given))
	s.kong(t, http.StatusCreated, "POST", "/consumers", `{"username":"kim"}`)
	s.kong(t, http.StatusCreated, "POST", "/consumers/kim/jwt", `{"key":"kim-1","secret":"`+given+`"}`)
	_, after, _ := strings.Cut(s.kong(t, http.StatusCreated, "POST", "/consumers/kim/jwt", `{"key":"kim-2"}`), `"secret":"`)
	text, _, _ := strings.Cut(after, `"`)
	s.secrets.add(t, "a consumer's secret, made through Kong", []byte(text))
}

// kong makes a call with the admin token.
func (s *search) kong(t *testing.T, want int, verb, path, body string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), verb, "https://"+s.Config.AdminListen+"/kong"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.AdminToken(t))
	req.Header.Set("Content-Type", "application/json")
	code, text := s.do(t, s.HTTP(t), req)
	if code != want {
		t.Fatalf("%s /kong%s: got %d %s, want %d", verb, path, code, text, want)
	}
	return text
}

func (s *search) do(t *testing.T, client *http.Client, req *http.Request) (int, string) {
	t.Helper()
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(text)
}

// kubernetes enrols a pod, and one that is not the right one.
func (s *search) kubernetes(t *testing.T) {
	t.Helper()
	claims := meshtest.NewClaims("https://cluster.example", "system:serviceaccount:shop:orders", "mesh")
	for what, token := range map[string]string{"a Kubernetes token": s.cluster.Token(t, claims), "a Kubernetes token of another pod": s.cluster.Token(t, claims.With("sub", "system:serviceaccount:shop:evil"))} {
		s.secrets.token(t, what, token)
		file := filepath.Join(t.TempDir(), "token")
		writeFile(t, file, token)
		_, err := enrolment.Enrol(patient(t), enrolment.Config{Addresses: []string{s.Config.XDSListen}, Service: "orders",
			Credential: enrolment.KubernetesTokenFile{File: file, CAFile: filepath.Join(s.Config.DataDir, "ca.pem")}})
		if (err == nil) != (what == "a Kubernetes token") {
			t.Errorf("enrolling by %s: %v", what, err)
		}
		fmt.Fprintln(&s.answers, err)
	}
}
