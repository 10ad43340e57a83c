package ruleset

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// now is when all tokens of the tests are looked at.
var now = time.Unix(1_800_000_000, 0)

const (
	secretA = "0123456789abcdef0123456789abcdef"
	secretB = "fedcba9876543210fedcba9876543210"
)

// hsKey is a Key of a ruleset, as JSON.
func hsKey(kid, secret string) string {
	jwk := fmt.Sprintf(`{"alg":"HS256","k":%q,"kty":"oct"}`, b64(secret))
	if kid != "" {
		jwk = fmt.Sprintf(`{"alg":"HS256","k":%q,"kid":%q,"kty":"oct"}`, b64(secret), kid)
	}
	return fmt.Sprintf(`{"kid": %q, "algorithm": "HS256", "symmetric": true, "jwk": %q}`, kid, jwk)
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// sign makes a token of any header and claims.
func sign(header, claims, secret string) string {
	input := b64(header) + "." + b64(claims)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(input))
	return input + "." + b64(string(mac.Sum(nil)))
}

// jwt is one that the rules of this file take, with some claims changed: nil
// leaves one out.
func jwt(changes ...any) string { return sign(hsHeader, claimsOf(changes...), secretA) }

const hsHeader = `{"alg":"HS256","kid":"k1","typ":"at+jwt"}`

func claimsOf(changes ...any) string {
	claims := map[string]any{
		"iss": "https://sts.example", "sub": "alice", "aud": "orders",
		"exp": now.Unix() + 300, "iat": now.Unix(),
	}
	for i := 0; i < len(changes); i += 2 {
		name := changes[i].(string)
		if claims[name] = changes[i+1]; changes[i+1] == nil {
			delete(claims, name)
		}
	}
	text, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// rule is a token rule of issuer sts, with more members.
func rule(more string) string {
	r := `"issuer": "sts", "audiences": ["orders"], "clockSkew": "60s", "expiration": "REQUIRED", "notBefore": "IF_PRESENT"`
	if !strings.Contains(more, `"from`) {
		r += `, "fromHeaders": [{"name": "authorization", "prefix": "Bearer "}]`
	}
	if more != "" {
		// A member of more stands for that of the same name.
		var base, over map[string]json.RawMessage
		mustJSON("{"+r+"}", &base)
		mustJSON("{"+more+"}", &over)
		for k, v := range over {
			base[k] = v
			if string(v) == "null" {
				delete(base, k)
			}
		}
		text, _ := json.Marshal(base)
		return string(text)
	}
	return "{" + r + "}"
}

func mustJSON(text string, into any) {
	if err := json.Unmarshal([]byte(text), into); err != nil {
		panic(fmt.Sprintf("%v in %s", err, text))
	}
}

// oneRoute is a service with one route of one mode.
func oneRoute(mode, rules, more string) string {
	return service(fmt.Sprintf(`{"match": {}, "authentication": {"mode": %q, "rules": [%s]} %s}`, mode, rules, more))
}

// service is a ruleset with issuer sts (key k1, secretA), issuer ci (key c1,
// secretB), and credentials.
func service(routes string) string {
	return fmt.Sprintf(`{"service": "orders",
 "issuers": [{"name": "ci", "issuer": "https://ci.example", "keys": [%s]}, {"name": "sts", "issuer": "https://sts.example", "keys": [%s]}],
 "ownSubjects": {"prefix": "spiffe://mesh.local/", "issuer": "https://sts.example"},
 "consumers": [{"name": "anybody", "username": "anybody"}, {"name": "bob", "id": "b-1", "username": "bobby", "customId": "7"}],
 "credentialSets": [{"name": "kong", "credentials": [
   {"key": "key-bob", "keys": [%s], "consumer": "bob"},
   {"key": "key-pay", "keys": [%s], "service": "payments", "subject": "spiffe://mesh.local/payments"}]}],
 "routes": [%s]}`, hsKey("c1", secretB), hsKey("k1", secretA), hsKey("", secretB), hsKey("", secretA), routes)
}

// kongRule looks credentials up.
const kongRule = `{"credentialSet": "kong", "keyClaim": {"name": "iss", "sources": ["PAYLOAD"]}, "audienceUnchecked": true,
 "clockSkew": "60s", "expiration": "IF_PRESENT", "notBefore": "IF_PRESENT", "fromHeaders": [{"name": "authorization", "prefix": "Bearer "}], "fromParams": [{"name": "jwt"}]}`

// failer is a test of testing or of rapid.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

func parse(t failer, text string) *dataplanev1.Ruleset {
	t.Helper()
	rs := new(dataplanev1.Ruleset)
	if err := protojson.Unmarshal([]byte(text), rs); err != nil {
		t.Fatalf("%v in ruleset\n%s", err, text)
	}
	return rs
}

func ready(t failer, text string) *Ruleset {
	t.Helper()
	rs, err := Compile(parse(t, text))
	if err != nil {
		t.Fatalf("Compile: %v\n%s", err, text)
	}
	return rs
}

// get is a request with fields "name: value".
func get(path string, fields ...string) Request {
	r := Request{Method: "GET", Authority: "orders.example", Path: path}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		r.Header = append(r.Header, Field{name, value})
	}
	return r
}

func bearer(token string) string { return "authorization: Bearer " + token }

// fieldsOf shows a header section.
func fieldsOf(r Request) string {
	var b strings.Builder
	for _, f := range r.Header {
		fmt.Fprintf(&b, "%s: %s\n", f.Name, f.Value)
	}
	return b.String()
}

// verdict is a decision in a few words: what happens, and why.
func verdict(d Decision) string {
	s := "allowed"
	if !d.Allowed {
		s = string(d.Reason)
	}
	if d.Rule != "" {
		s += "[" + d.Rule + "]"
	}
	if d.Observed != "" {
		s += ", observed " + string(d.Observed)
	}
	if d.ObservedRule != "" {
		s += "[" + d.ObservedRule + "]"
	}
	return s
}

// check evaluates a request both ways, and compares the verdict; that explaining
// changes nothing it sees to as well.
func check(t *testing.T, rs *Ruleset, r Request, want string) Decision {
	t.Helper()
	d := rs.Evaluate(r, now)
	if got := verdict(d); got != want {
		_, steps := rs.Explain(r, now)
		t.Errorf("%s %s%s, fields\n%s got %s\nwant %s\nsteps:\n%s", r.Method, r.Authority, r.Path, fieldsOf(r), got, want, showSteps(steps))
	}
	return d
}

func showSteps(steps []Step) string {
	var b strings.Builder
	for _, s := range steps {
		fmt.Fprintf(&b, "%-22s %-20s %s\n", s.Name, s.Outcome, s.Detail)
	}
	return b.String()
}
