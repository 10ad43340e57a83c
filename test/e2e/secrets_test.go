package e2e

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/internal/jose"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// Secrets go where they are needed and nowhere else: not into the log, even at
// debug and for requests that fail, not into what the admin API shows, and not
// in clear into the files of etcd.
func TestSecretsStayWhereTheyBelong(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	hs := meshtest.NewSigner(t, "HS256")
	m.Apply(t, shopAndOrders(t, m)+inlineIssuer("partner", "https://partner.example", hs)+
		authentication("orders", "orders", "", "STRICT", "{issuer: watchword}", "{issuer: partner, audiences: [orders]}"))
	m.startEnvoy(t, "orders")
	m.WaitConnected(t, "orders", 1)
	id, clientSecret := m.ClientSecret(t, "shop")
	token := m.Token(t, "shop", "orders")
	theirs := hs.Token(t, meshtest.NewClaims("https://partner.example", "ann", "orders"))
	call := meshtest.Call{Token: theirs}
	wantStatus(t, "with the shared secret", call, m.send(t, "orders", call), 200) // Envoy has it
	askForTokens(t, m, id, clientSecret)

	secrets := map[string]string{
		"the client secret": clientSecret, "the HS256 secret": string(hs.Secret), "the HS256 secret as JWK": hs.SecretText(),
		"the HS256 secret in base64": base64.StdEncoding.EncodeToString(hs.Secret), "the HS256 secret in hex": hex.EncodeToString(hs.Secret),
		"a token": token, "a token's signature": token[strings.LastIndex(token, ".")+1:], "a token of a partner": theirs,
		"the admin token": m.AdminToken(t),
	}
	shown := shownByAdmin(t, m, hs)
	m.Stop(t) // the log and the files are complete
	for what, secret := range secrets {
		for where, text := range shown {
			if strings.Contains(text, secret) {
				t.Errorf("%s is in %s", what, where)
			}
		}
		if strings.Contains(m.Log.String(), secret) {
			t.Errorf("%s is in the log", what)
		}
	}
	secrets["a private key"] = privateKeyPrefix(t)
	files := 0
	err := filepath.WalkDir(filepath.Join(m.Config.DataDir, "etcd"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		files++
		for what, secret := range secrets {
			if bytes.Contains(text, []byte(secret)) {
				t.Errorf("%s is in %s", what, path)
			}
		}
		return err
	})
	if err != nil || files < 2 {
		t.Fatalf("read %d files of etcd (%v), want its database and its log at least", files, err)
	}
	for _, name := range []string{"admin.token", "kek"} {
		if info, err := os.Stat(filepath.Join(m.Config.DataDir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v (%v), want 0600", name, info.Mode(), err)
		}
	}
}

// askForTokens sends the client secret in all ways, right and wrong.
func askForTokens(t *testing.T, m *mesh, id, secret string) {
	t.Helper()
	for _, form := range []url.Values{
		{"grant_type": {"client_credentials"}, "audience": {"orders"}, "client_id": {id}, "client_secret": {secret}},
		{"grant_type": {"client_credentials"}, "audience": {"*"}, "client_id": {id}, "client_secret": {secret}},
		{"grant_type": {secret}, "audience": {secret}, "client_id": {id}, "client_secret": {secret}},
		{"client_id": {id}, "client_secret": {secret + "x"}},
		{"client_id": {secret}, "client_secret": {id}},
	} {
		for _, query := range []string{"", "?client_secret=" + url.QueryEscape(secret)} {
			res, err := m.HTTP(t).PostForm(m.TokenURL()+query, form)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			if cerr := res.Body.Close(); err != nil || cerr != nil {
				t.Fatal(err, cerr)
			}
			if strings.Contains(string(body), secret) {
				t.Errorf("the token endpoint repeats the client secret: %s", body)
			}
		}
	}
}

// shownByAdmin is what the admin API shows of everything, by call.
func shownByAdmin(t *testing.T, m *mesh, hs *meshtest.Signer) map[string]string {
	t.Helper()
	ctx := t.Context()
	out := map[string]string{}
	add := func(call string, answer proto.Message, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", call, err)
		}
		out[call] = protojson.Format(answer)
	}
	list, err := m.Admin.List(ctx, &adminv1.ListRequest{})
	add("List", list, err)
	planes, err := m.Admin.ListDataPlanes(ctx, &adminv1.ListDataPlanesRequest{})
	add("ListDataPlanes", planes, err)
	config, err := m.Admin.GetDataPlaneConfig(ctx, &adminv1.GetDataPlaneConfigRequest{Node: "orders"})
	add("GetDataPlaneConfig", config, err)
	change := meshtest.Documents(inlineIssuer("partner", "https://partner2.example", hs, meshtest.NewSigner(t, "HS256")))
	change.DryRun = true
	diff, err := m.Admin.Apply(ctx, change)
	add("Apply (dry run)", diff, err)
	_, err = m.Admin.Apply(ctx, meshtest.Documents(inlineIssuer("partner", "", hs, hs)))
	if err == nil {
		t.Fatal("a key given twice was accepted")
	}
	out["a refusal of Apply"] = meshtest.Explain(err)
	for call, kid := range map[string]string{"List": hs.KID, "GetDataPlaneConfig": hs.KID} {
		if !strings.Contains(out[call], kid) {
			t.Errorf("%s does not show the key %s at all:\n%s", call, kid, out[call])
		}
	}
	return out
}

// privateKeyPrefix is how the PKCS #8 form of every P-256 key begins (RFC 5208
// section 5, RFC 5915 section 3).
func privateKeyPrefix(t *testing.T) string {
	t.Helper()
	var prefix []byte
	for i := range 8 {
		key, err := jose.GenerateKey("ES256")
		if err != nil {
			t.Fatal(err)
		}
		der, err := key.PKCS8()
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			prefix = der[:36]
		}
		if !bytes.HasPrefix(der, prefix) {
			t.Fatalf("private keys begin with %x and with %x, want the same", prefix, der[:len(prefix)])
		}
	}
	return string(prefix)
}
