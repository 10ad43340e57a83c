package doors

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/dataplane/enrolment"
	"github.com/watchword-mesh/watchword/internal/jointoken"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// search is a mesh with every kind of secret, and the places where none may be.
type search struct {
	*mesh
	etcd    *etcd
	secrets needles
	// places by name. answers has those of calls that failed.
	places  map[string][]byte
	answers bytes.Buffer
	viewer  *http.Client

	orders  string // where the Envoy of the service listens
	envoy   *envoyCommand
	keyFile string
	shared  *meshtest.Signer // of a consumer, HS256
	corp    *meshtest.Signer // of people, ES256
	cluster *meshtest.Signer // of Kubernetes
}

// Secrets are nowhere in clear: not in etcd, a log, a metric, an answer that is not
// there to give them out, the audit, a process's arguments, or a file that is not
// made for them.
func TestNoSecretInClear(t *testing.T) {
	t.Parallel()
	s := &search{mesh: &mesh{}, etcd: startEtcd(t), places: map[string][]byte{}}
	s.Config.Etcd = s.etcd.how
	s.Config.Logger = hclog.New(&hclog.LoggerOptions{Name: "watchword", Level: hclog.Trace, Output: &s.Log})
	s.shared, s.corp, s.cluster = meshtest.NewSigner(t, "HS256"), meshtest.NewSigner(t, "ES256"), meshtest.NewSigner(t, "ES256")
	s.prepare(t)
	s.useAll(t)
	s.failAll(t)
	s.lookAround(t)
	s.places["the answers of what failed"] = s.answers.Bytes()
	s.lookAtRest(t)
	for where, hay := range s.places {
		if len(hay) == 0 {
			t.Errorf("%s is empty: this test looks at the wrong place", where)
		}
		for _, found := range s.secrets.findings(hay, nil) {
			t.Errorf("%s has %s", where, found)
		}
	}
	s.wantWhereTheyBelong(t)
	t.Logf("%d secrets, in %d forms each, are not in %d places", len(s.secrets.forms), len(formsOf([]byte(etcdPassword))), len(s.places))
}

const givenSecret = "given-through-apply-and-32-bytes-long"

// prepare starts the mesh and its Envoy.
func (s *search) prepare(t *testing.T) {
	t.Helper()
	var echo meshtest.Echo
	echo.Start(t)
	s.orders = meshtest.FreeAddress(t)
	_, port, _ := strings.Cut(s.orders, ":")
	s.start(t, resource("Issuer", "corp", "issuer: https://corp.example", "keySet: {jwks: '"+meshtest.JWKS(s.corp)+"'}")+
		resource("Issuer", "cluster", "issuer: https://cluster.example", "keySet: {jwks: '"+meshtest.JWKS(s.cluster)+"'}")+
		resource("Issuer", "partner", "issuer: https://partner.example", "keySet: {jwks: '"+meshtest.JWKS(s.shared)+"'}")+
		resource("Service", "orders", "inbound: {port: "+port+", localAddress: \""+echo.Address+"\"}",
			"bootstrap: {kubernetes: [{issuer: cluster, namespace: shop, serviceAccount: orders, audiences: [mesh]}]}")+
		resource("Service", "shop", "calls: [{service: orders}]")+
		resource("Consumer", "given", "username: given", "credentials: [{key: given-key, keySet: {secret: {keys: [{secret: "+givenSecret+"}]}}}]")+
		resource("AuthenticationPolicy", "orders", "target: {services: [orders]}", "jwtRules: [{issuer: watchword}, {issuer: partner, audiences: [orders]}, {consumers: {all: true}, audienceCheck: UNCHECKED}]")+
		resource("RoleBinding", "people", "role: VIEWER", "subjects: [{certificate: {dnsName: viewer.test}}, {token: {issuer: corp, subjects: [alice]}}, {service: shop}]"))
	s.viewer = &http.Client{Timeout: meshtest.Patience, Transport: &http.Transport{TLSClientConfig: clientTLS(s.CA(t), s.people.person(t, "viewer.test"))}}
	t.Cleanup(s.viewer.CloseIdleConnections)
	joinToken := s.newJoinToken(t, "orders")
	s.addJoinToken(t, "a join token that is used", joinToken)
	s.keyFile = filepath.Join(t.TempDir(), "key.pem")
	s.envoy = startEnvoyCommand(t, s.mesh, "orders", joinToken, s.keyFile)
	s.secrets.add(t, "etcd's password", []byte(etcdPassword))
	s.secrets.add(t, "a consumer's secret, given", []byte(givenSecret))
	s.secrets.add(t, "an issuer's secret", s.shared.Secret)
}

func (s *search) addJoinToken(t *testing.T, what, token string) {
	t.Helper()
	parsed, err := jointoken.Parse(token)
	if err != nil {
		t.Fatal(err)
	}
	s.secrets.add(t, what, []byte(parsed.Secret()))
}

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

// lookAround gathers what can be seen while everything runs.
func (s *search) lookAround(t *testing.T) {
	t.Helper()
	for _, path := range []string{
		"/v1/resources", "/v1/dataplanes", "/v1/dataplane-configs/orders-node", "/v1/refusals?sample=true", "/v1/join-tokens", "/v1/instances",
		"/v1/client-secrets", "/v1/diagnosis", "/v1/self", "/kong/consumers", "/kong/jwts", "/kong/consumers/kim/jwt", "/kong/jwts/kim-1",
	} {
		s.places["GET "+path] = []byte(s.get(t, s.viewer, "https://"+s.Config.AdminListen+path))
	}
	if found := s.secrets.findings([]byte(s.kong(t, http.StatusOK, "GET", "/jwts?size=1000", "")), nil); len(found) < 4 {
		t.Errorf("in Kong's list by who may read secrets it finds %q, want at least those of four credentials: this test looks for the wrong thing", found)
	}
	entries, err := s.root.ListAudit(t.Context(), &adminv1.ListAuditRequest{Limit: 1000})
	s.show(t, "the audit", entries, err)
	list, err := s.root.List(t.Context(), &adminv1.ListRequest{}) // by who may read secrets
	s.show(t, "List by root", list, err)
	socket := "unix:" + filepath.Join(s.Config.DataDir, "admin.sock")
	for _, format := range []string{"table", "yaml", "json"} {
		s.places["watchword xds -o "+format] = command(t, "xds", "--node", "orders-node", "--server", socket, "-o", format)
	}
	s.places["the metrics"] = []byte(s.get(t, s.viewer, s.Config.OpsListen+"/metrics"))
	for _, path := range []string{"/config_dump", "/config_dump?include_eds", "/certs", "/clusters", "/listeners", "/stats", "/server_info"} {
		s.places["Envoy's "+path] = []byte(s.get(t, http.DefaultClient, "http://"+s.envoy.door+path))
	}
	s.places["arguments and environment"] = s.envoy.processes(t)
	s.addFiles(t, "watchword envoy", s.envoy.tmp)
	if !bytes.Contains(s.places["Envoy's /config_dump"], []byte(s.shared.KID)) && !bytes.Contains(s.places["Envoy's /config_dump"], []byte("mesh.inbound/orders")) {
		t.Error("Envoy's /config_dump has nothing of the service: this test looks at the wrong place")
	}
}

func (s *search) show(t *testing.T, what string, answer proto.Message, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	s.places[what] = []byte(protojson.Format(answer))
}

func (s *search) get(t *testing.T, client *http.Client, u string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, u, nil)
	if err != nil {
		t.Fatal(err)
	}
	code, text := s.do(t, client, req)
	if code != http.StatusOK {
		t.Errorf("GET %s: %d %s", u, code, text)
	}
	return text
}

// belong are the files that are made to hold secrets, and are for their owner alone.
var belong = []string{"admin.token", "kek"}

// addFiles takes all files of a folder but those.
func (s *search) addFiles(t *testing.T, what, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || slices.Contains(belong, d.Name()) {
			return err
		}
		text, err := os.ReadFile(path)
		if len(text) > 0 { // locks have none
			s.places[what+": "+path] = text
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// lookAtRest gathers what is left on disk and in etcd, and the secrets that only
// who has the key-encryption key can know.
func (s *search) lookAtRest(t *testing.T) {
	t.Helper()
	v := s.openVault(t)
	s.secrets.add(t, "the pepper", v.pepper)
	for _, c := range v.cas {
		s.addKey(t, "the CA's key", parsePKCS8(t, c.PrivatePKCS8))
	}
	for _, k := range v.keys {
		s.addKey(t, "a signing key", parsePKCS8(t, k.PrivatePKCS8))
	}
	s.Stop(t)
	s.places["etcd"] = s.etcd.all(t)
	s.etcd.stop() // the files are complete
	s.addFiles(t, "etcd's files", s.etcd.dir)
	s.addFiles(t, "the data folder", s.Config.DataDir)
	s.places["the log"] = []byte(s.Log.String())
	s.places["the log of watchword envoy"] = []byte(s.envoy.log.String())
	s.addKEK(t, "the key-encryption key")
	text, err := os.ReadFile(s.keyFile)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	s.addKey(t, "the key of the Envoy's instance", parsePKCS8(t, block.Bytes))
}

// addKEK takes what the file has now: one line.
func (s *search) addKEK(t *testing.T, what string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.Config.DataDir, "kek"))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	s.secrets.add(t, what, raw)
}

func parsePKCS8(t *testing.T, der []byte) *ecdsa.PrivateKey {
	t.Helper()
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		t.Fatal(err)
	}
	return key.(*ecdsa.PrivateKey)
}

// wantWhereTheyBelong: the search finds them in the files that are there for them,
// which nobody else can read; etcd has what it should, sealed or hashed.
func (s *search) wantWhereTheyBelong(t *testing.T) {
	t.Helper()
	for file, what := range map[string]string{
		filepath.Join(s.Config.DataDir, "admin.token"): "the admin token of now", filepath.Join(s.Config.DataDir, "kek"): "the key-encryption key",
		s.keyFile: "the key of the Envoy's instance",
	} {
		text, err := os.ReadFile(file)
		info, serr := os.Stat(file)
		if err != nil || serr != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v (%v, %v), want 0600", file, info.Mode(), err, serr)
		}
		if !slices.ContainsFunc(s.secrets.findings(text, nil), func(f string) bool { return strings.HasPrefix(f, what+" in") }) {
			t.Errorf("%s does not have %s: this test looks for the wrong thing", file, what)
		}
	}
}
