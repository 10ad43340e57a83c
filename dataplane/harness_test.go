package dataplane

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/watchword-mesh/watchword/dataplane/enrolment"
	"github.com/watchword-mesh/watchword/dataplane/xdsclient"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "0123456789abcdef0123456789abcdef"

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// jwt is a token that the rulesets of these tests take, with some claims changed; nil
// leaves one out.
func jwt(changes ...any) string { return jwtOf("k1", secret, changes...) }

func jwtOf(kid, secret string, changes ...any) string {
	claims := map[string]any{
		"iss": "https://sts.example", "sub": "spiffe://mesh.local/frontend", "aud": "orders",
		"iat": time.Now().Unix(), "exp": time.Now().Add(5 * time.Minute).Unix(), "scope": "read",
	}
	for i := 0; i < len(changes); i += 2 {
		if claims[changes[i].(string)] = changes[i+1]; changes[i+1] == nil {
			delete(claims, changes[i].(string))
		}
	}
	text, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	input := b64(fmt.Appendf(nil, `{"alg":"HS256","kid":%q,"typ":"at+jwt"}`, kid)) + "." + b64(text)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(input))
	return input + "." + b64(mac.Sum(nil))
}

func key(kid, secret string) string {
	return fmt.Sprintf(`{"kid":%q,"algorithm":"HS256","symmetric":true,"jwk":%q}`, kid, fmt.Sprintf(`{"alg":"HS256","k":%q,"kid":%q,"kty":"oct"}`, b64([]byte(secret)), kid))
}

// rule is a token rule of the issuer sts, and more of it.
func rule(more string) string {
	return `{"issuer":"sts","audiences":["orders"],"clockSkew":"1s","expiration":"REQUIRED","notBefore":"IF_PRESENT","fromHeaders":[{"name":"authorization","prefix":"Bearer "}]` + more + `}`
}

func rulesetWith(routes string) string {
	return fmt.Sprintf(`{"service":"orders","issuers":[{"name":"sts","issuer":"https://sts.example","keys":[%s]}],
"ownSubjects":{"prefix":"spiffe://mesh.local/","issuer":"https://sts.example"},"routes":[%s]}`, key("k1", secret), routes)
}

func strict(more string) string {
	return `{"match":{},"authentication":{"mode":"STRICT","rules":[` + rule("") + `]` + more + `}}`
}

// plane is a data plane without a control plane: tests put in force what they want.
func plane(t testing.TB, change func(*Config)) *DataPlane {
	t.Helper()
	config := Config{Addresses: []string{"127.0.0.1:1"}, Service: "orders", Credential: enrolment.JoinToken("x")}
	if change != nil {
		change(&config)
	}
	d, err := newDataPlane(t.Context(), config.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.openFile(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func resourceOf(t testing.TB, version string, m proto.Message) xdsclient.Resource {
	t.Helper()
	body, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	r := xdsclient.Resource{TypeURL: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()), Name: "orders", Version: version, Body: body}
	if _, ok := m.(*dataplanev1.Lease); ok {
		r.Name = leaseName
	}
	return r
}

func parse(t testing.TB, text string) *dataplanev1.Ruleset {
	t.Helper()
	m := new(dataplanev1.Ruleset)
	if err := protojson.Unmarshal([]byte(text), m); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return m
}

// enforce puts a ruleset in force.
func enforce(t testing.TB, d *DataPlane, text string) {
	t.Helper()
	if d.guard.revocations == nil {
		revoke(t, d, &dataplanev1.Revocations{Service: d.config.Service})
	}
	if err := d.resources.Accept(resourceOf(t, "v1", parse(t, text))); err != nil {
		t.Fatal(err)
	}
}

func revoke(t testing.TB, d *DataPlane, m *dataplanev1.Revocations) {
	t.Helper()
	if err := d.resources.Accept(resourceOf(t, "r1", m)); err != nil {
		t.Fatal(err)
	}
}

func lease(t testing.TB, d *DataPlane, until time.Time) {
	t.Helper()
	if err := d.resources.Accept(resourceOf(t, "l1", &dataplanev1.Lease{Expires: timestamppb.New(until)})); err != nil {
		t.Fatal(err)
	}
}
