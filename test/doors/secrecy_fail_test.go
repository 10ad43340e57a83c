package doors

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/watchword-mesh/watchword/dataplane/enrolment"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// failAll makes what can fail with a secret in it fail.
func (s *search) failAll(t *testing.T) {
	t.Helper()
	_, secret := s.clientSecret(t)
	s.secrets.add(t, "a second client secret", []byte(secret))
	for _, form := range []url.Values{
		{"grant_type": {"client_credentials"}, "audience": {"*"}, "client_id": {"shop"}, "client_secret": {secret}},
		{"grant_type": {"client_credentials"}, "audience": {"orders"}, "client_id": {"orders"}, "client_secret": {secret}},
		{"grant_type": {secret}, "client_id": {"shop"}, "client_secret": {secret}},
		{"client_id": {secret}, "client_secret": {"shop"}},
	} {
		_, body := s.postToken(t, form)
		s.answers.WriteString(body)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.TokenURL()+"?client_id=shop&client_secret="+url.QueryEscape(secret), nil)
	if err != nil {
		t.Fatal(err)
	}
	_, body := s.do(t, s.HTTP(t), req)
	s.answers.WriteString(body)
	s.failApply(t)
	s.failKong(t)
	s.failTokens(t)
	if _, err := enrolment.Enrol(patient(t), enrolment.Config{Addresses: []string{s.Config.XDSListen}, Service: "shop", Credential: enrolment.JoinToken(s.wrongJoinToken(t))}); err == nil {
		t.Error("a join token with a wrong secret enrols")
	} else {
		s.answers.WriteString(err.Error())
	}
}

func (s *search) wrongJoinToken(t *testing.T) string {
	t.Helper()
	token := wrongSecret(s.newJoinToken(t, "shop"))
	s.addJoinToken(t, "a join token with a wrong secret", token)
	return token
}

// failApply has manifests refused that hold secrets, and shows what a change is.
func (s *search) failApply(t *testing.T) {
	t.Helper()
	const secret = "of-a-manifest-that-was-refused-32-bytes"
	s.secrets.add(t, "a secret in a refused manifest", []byte(secret))
	consumer := func(credential string) string {
		return resource("Consumer", "refused", "username: refused", "credentials: [{key: k, "+credential+"}]")
	}
	good := consumer("keySet: {secret: {keys: [{secret: " + secret + "}]}}")
	for _, yaml := range []string{
		consumer("keySet: {secret: {keys: [{secret: " + secret + "}]}}, algorithm: RS256"), consumer("keySet: {secret: " + secret + "}"), consumer("keySet: {secret: {keys: [" + secret + "]}}"),
		consumer("keySet: {secret: {keys: [{secret: {" + secret + "}}]}}"), consumer("keySet: {secret: {keys: [{secret: " + secret + ", secret: " + secret + "}]}}"),
		consumer("keySet: {jwks: '{\"keys\":[{\"kty\":\"oct\",\"k\":\"" + secret + "\",\"alg\":\"RS256\"}]}'}"),
		consumer("keySet: {jwks: '{\"keys\":[{\"kty\":\"oct\",\"k\":\"" + secret + "\"'}"),
		consumer("keySet: {secret: {keys: [{secret: " + secret + "}]"), good + resource("Service", "Not A Name", "{}"),
		strings.Replace(consumer("keySet: {pem: {keys: [{pem: \"-----BEGIN PRIVATE KEY-----\\n"+base64.StdEncoding.EncodeToString([]byte(secret))+"\\n-----END PRIVATE KEY-----\\n\"}]}}"), "refused", "refused2", 1),
	} {
		_, err := s.root.Apply(t.Context(), meshtest.Documents(yaml))
		if err == nil {
			t.Errorf("a manifest that should be refused is not:\n%s", yaml)
			continue
		}
		s.answers.WriteString(meshtest.Explain(err))
	}
	dry := meshtest.Documents(good)
	dry.DryRun = true
	resp, err := s.root.Apply(t.Context(), dry)
	if err != nil {
		t.Fatal(meshtest.Explain(err))
	}
	s.answers.WriteString(protojson.Format(resp))
}

// failKong sends secrets where Kong's API does not take them.
func (s *search) failKong(t *testing.T) {
	t.Helper()
	const secret = "of-a-call-of-kongs-that-was-refused"
	s.secrets.add(t, "a secret in a refused call of Kong's API", []byte(secret))
	for _, c := range []struct {
		want             int
		verb, path, body string
	}{
		{409, "POST", "/consumers/kim/jwt", `{"key":"kim-1","secret":"` + secret + `"}`},
		{404, "POST", "/consumers/nobody/jwt", `{"secret":"` + secret + `"}`},
		{400, "POST", "/consumers/kim/jwt", `{"secret":"` + secret + `","algorithm":"none"}`},
		{400, "POST", "/consumers/kim/jwt", `{"secret":"` + secret + `"`},
		{400, "POST", "/consumers/kim/jwt", `{"secret":["` + secret + `"]}`},
		{404, "GET", "/jwts/nothing?secret=" + secret, ""},
	} {
		s.answers.WriteString(s.kong(t, c.want, c.verb, c.path, c.body))
	}
}

// failTokens shows tokens that are refused, at the admin API, at the Envoy, and to
// Explain, in headers and in queries.
func (s *search) failTokens(t *testing.T) {
	t.Helper()
	meshtest.Eventually(t, func() error { _, err := http.Get("http://" + s.envoy.door + "/ready"); return err })
	s.WaitConnected(t, "orders", 1)
	alice := meshtest.NewClaims("https://corp.example", "alice", "watchword-admin")
	old := s.shared.Token(t, meshtest.NewClaims("https://partner.example", "ann", "orders").With("exp", 1000))
	tokens := map[string]string{
		"an OIDC token": s.corp.Token(t, alice), "an OIDC token for another audience": s.corp.Token(t, alice.With("aud", "other")),
		"a partner's token": s.shared.Token(t, meshtest.NewClaims("https://partner.example", "ann", "orders")), "a partner's old token": old,
	}
	for what, token := range tokens {
		s.secrets.token(t, what, token)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.Config.AdminListen+"/v1/self?access_token="+token, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		_, body := s.do(t, s.HTTP(t), req)
		s.answers.WriteString(body)
		for _, call := range []meshtest.Call{{Token: token}, {Path: "/x?access_token=" + token}, {Path: "/x?access_token=" + token, Token: token + "x"}} {
			answer := meshtest.Send(t, s.orders, call)
			if answer.Status != http.StatusOK {
				s.answers.WriteString(fmt.Sprint(answer))
			}
		}
		resp, err := s.root.Explain(t.Context(), &adminv1.ExplainRequest{Service: "orders", Token: token, Path: "/x?access_token=" + token, Headers: []*adminv1.ExplainField{{Name: "cookie", Value: "t=" + token}}})
		if err != nil {
			t.Fatal(err)
		}
		s.answers.WriteString(protojson.Format(resp))
	}
	meshtest.Eventually(t, func() error {
		resp, err := s.root.ListRefusals(t.Context(), &adminv1.ListRefusalsRequest{Service: "orders", Sample: true})
		if err == nil && len(resp.GetSample()) < 3 {
			err = fmt.Errorf("there are %d refusals", len(resp.GetSample()))
		}
		return err
	})
}
