package clientauth

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/internal/jose"
)

const issuer = "https://sts.example.com"

// instances are the keys of instances by "SERVICE/INSTANCE".
type instances map[string]jose.Key

func (instances) ClientSecrets(string) []Secret { return nil }

func (d instances) InstanceKey(service, instance string) (jose.Key, bool) {
	k, ok := d[service+"/"+instance]
	return k, ok
}

func instanceKey(tb testing.TB, alg, instance string) *jose.PrivateKey {
	tb.Helper()
	k, err := jose.GenerateKey(alg)
	if err == nil {
		k, err = k.WithID(instance)
	}
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func authenticator(keys map[string]*jose.PrivateKey) Authenticator {
	d := instances{}
	for name, k := range keys {
		d[name] = k.Public()
	}
	return Authenticator{Directory: d, Audience: issuer, Replays: NewReplays(), Now: func() time.Time { return created }}
}

type claims map[string]any

// right are claims that are accepted, each time with another jti.
var right = func() func() claims {
	n := 0
	return func() claims {
		n++
		return claims{"iss": "shop", "sub": "shop", "aud": issuer, "jti": fmt.Sprint("id-", n), "iat": created.Unix(), "exp": created.Add(time.Minute).Unix()}
	}
}()

func (c claims) with(name string, value any) claims {
	c = maps.Clone(c)
	c[name] = value
	if value == nil {
		delete(c, name)
	}
	return c
}

func (c claims) signed(tb testing.TB, k *jose.PrivateKey, typ string) string {
	tb.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		tb.Fatal(err)
	}
	return signedText(tb, k, typ, string(text))
}

func signedText(tb testing.TB, k *jose.PrivateKey, typ, text string) string {
	tb.Helper()
	token, err := k.Signer(typ).Sign([]byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	return token
}

func asserted(assertion, clientID string) url.Values {
	f := url.Values{"client_assertion": {assertion}, "client_assertion_type": {AssertionType}}
	if clientID != "" {
		f.Set("client_id", clientID)
	}
	return f
}

// Who signs with the key of an instance is that instance, by each way of saying
// so that the standards give.
func TestAuthenticateByAssertion(t *testing.T) {
	es, ed := instanceKey(t, "ES256", "one"), instanceKey(t, "EdDSA", "two")
	a := authenticator(map[string]*jose.PrivateKey{"shop/one": es, "shop/two": ed})
	for _, c := range []struct {
		name     string
		key      *jose.PrivateKey
		typ      string
		claims   claims
		clientID string
	}{
		{"ES256", es, "JWT", right(), "shop"},
		{"EdDSA", ed, "JWT", right(), "shop"},
		{"without client_id", es, "JWT", right(), ""},
		{"without typ", es, "", right(), ""},
		{"with the typ of the next RFC", es, "client-authentication+jwt", right(), ""},
		{"aud as a list of one", es, "JWT", right().with("aud", []string{issuer}), ""},
		{"without iat", es, "JWT", right().with("iat", nil), ""},
		{"exp with a fraction", es, "JWT", right().with("exp", float64(created.Unix())+0.5), ""},
		{"a clock that is 29 s ahead", es, "JWT", right().with("iat", created.Unix()+29).with("nbf", created.Unix()+29).with("exp", created.Unix()+329), ""},
		{"a clock that is 29 s behind", es, "JWT", right().with("exp", created.Unix()-29), ""},
		{"other claims", es, "JWT", right().with("x", []any{1}), ""},
	} {
		got, err := a.Authenticate(nil, asserted(c.claims.signed(t, c.key, c.typ), c.clientID))
		if want := (Identity{Service: "shop", Instance: c.key.ID()}); got != want || err != nil {
			t.Errorf("%s: Authenticate = %+v, %v; want %+v", c.name, got, err, want)
		}
	}
}

// Each thing that may be wrong, and the reason that operators see.
func TestAuthenticateRefusesAssertion(t *testing.T) {
	key, other := instanceKey(t, "ES256", "one"), instanceKey(t, "ES256", "one")
	ed := instanceKey(t, "EdDSA", "one")
	rsa := instanceKey(t, "RS256", "one")
	stranger := instanceKey(t, "ES256", "two")
	unnamed := instanceKey(t, "ES256", "")
	used := right()
	now := created.Unix()
	for _, c := range []struct {
		name   string
		text   string
		client string
		want   string
	}{
		{"no JWT", "x", "", "not a signed JWT"},
		{"no signature", key.ID() + ".e30.", "", "not a signed JWT"},
		{"RS256", right().signed(t, rsa, "JWT"), "", "must be signed by one of [ES256 EdDSA]"},
		{"another key", right().signed(t, other, "JWT"), "", errUnproven.Error()},
		{"another algorithm", right().signed(t, ed, "JWT"), "", errUnproven.Error()},
		{"unknown instance", right().signed(t, stranger, "JWT"), "", errUnproven.Error()},
		{"no kid", right().signed(t, unnamed, "JWT"), "", errUnproven.Error()},
		{"an access token", right().signed(t, key, "at+jwt"), "", errUnproven.Error()},
		{"unknown service", right().with("iss", "ghost").with("sub", "ghost").signed(t, key, "JWT"), "", errUnproven.Error()},
		{"service of another instance", right().with("iss", "orders").with("sub", "orders").signed(t, key, "JWT"), "", errUnproven.Error()},
		{"no iss", right().with("iss", nil).signed(t, key, "JWT"), "", errUnproven.Error()},
		{"iss in capitals", right().with("iss", nil).with("ISS", "shop").signed(t, key, "JWT"), "", errUnproven.Error()},
		{"iss is a number", right().with("iss", 1).signed(t, key, "JWT"), "", errUnproven.Error()},
		{"a claim twice", signedText(t, key, "JWT", `{"iss":"shop","iss":"shop"}`), "", "not a signed JWT"},

		{"no sub", right().with("sub", nil).signed(t, key, "JWT"), "", "iss and sub"},
		{"another sub", right().with("sub", "orders").signed(t, key, "JWT"), "", "iss and sub"},
		{"sub is the SPIFFE ID", right().with("sub", "spiffe://example.com/shop").signed(t, key, "JWT"), "", "iss and sub"},
		{"another client_id", right().signed(t, key, "JWT"), "orders", "client_id differs"},
		{"no aud", right().with("aud", nil).signed(t, key, "JWT"), "", "aud of the client assertion"},
		{"aud is the token endpoint", right().with("aud", issuer+"/token").signed(t, key, "JWT"), "", "aud of the client assertion"},
		{"aud with a slash more", right().with("aud", issuer+"/").signed(t, key, "JWT"), "", "aud of the client assertion"},
		{"two aud", right().with("aud", []string{issuer, "https://other.example.com"}).signed(t, key, "JWT"), "", "aud of the client assertion"},
		{"the same aud twice", right().with("aud", []string{issuer, issuer}).signed(t, key, "JWT"), "", "aud of the client assertion"},
		{"empty list of aud", right().with("aud", []string{}).signed(t, key, "JWT"), "", "aud of the client assertion"},
		{"list of another kind", right().with("aud", []any{1}).signed(t, key, "JWT"), "", "aud of the client assertion"},
		{"null in the list", right().with("aud", []any{nil}).signed(t, key, "JWT"), "", "aud of the client assertion"},

		{"no exp", right().with("exp", nil).signed(t, key, "JWT"), "", "has no exp"},
		{"exp is text", right().with("exp", fmt.Sprint(now+60)).signed(t, key, "JWT"), "", "exp of the client assertion is not a time"},
		{"exp is null", signedText(t, key, "JWT", `{"iss":"shop","sub":"shop","aud":"`+issuer+`","exp":null}`), "", "exp of the client assertion is not a time"},
		{"exp is huge", signedText(t, key, "JWT", `{"iss":"shop","sub":"shop","aud":"`+issuer+`","exp":1e400}`), "", "not a signed JWT that can be read"},
		{"expired", right().with("exp", now-30).signed(t, key, "JWT"), "", "has expired"},
		{"exp in milliseconds", right().with("exp", created.Add(time.Minute).UnixMilli()).signed(t, key, "JWT"), "", "more than 5m0s ahead"},
		{"exp too far ahead", right().with("exp", now+331).signed(t, key, "JWT"), "", "more than 5m0s ahead"},
		{"iat in the future", right().with("iat", now+31).signed(t, key, "JWT"), "", "iat of the client assertion is in the future"},
		{"nbf in the future", right().with("nbf", now+31).signed(t, key, "JWT"), "", "nbf of the client assertion is in the future"},
		{"iat is text", right().with("iat", "x").signed(t, key, "JWT"), "", "iat of the client assertion is not a time"},
		{"no jti", right().with("jti", nil).signed(t, key, "JWT"), "", "must have a jti"},
		{"empty jti", right().with("jti", "").signed(t, key, "JWT"), "", "must have a jti"},
		{"jti is a number", right().with("jti", 1).signed(t, key, "JWT"), "", "must have a jti"},
		{"long jti", right().with("jti", strings.Repeat("x", 257)).signed(t, key, "JWT"), "", "must have a jti"},
		{"used before", used.signed(t, key, "JWT"), "", "was used before"},
		{"used before, another end", used.with("exp", now+61).signed(t, key, "JWT"), "", "was used before"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := authenticator(map[string]*jose.PrivateKey{"shop/one": key, "orders/two": stranger})
			if _, err := a.Authenticate(nil, asserted(used.signed(t, key, "JWT"), "")); err != nil {
				t.Fatal(err)
			}
			if strings.HasPrefix(c.name, "unknown instance") {
				delete(a.Directory.(instances), "orders/two")
			}
			got, err := a.Authenticate(nil, asserted(c.text, c.client))
			if !errors.Is(err, ErrClient) || !strings.Contains(err.Error(), c.want) || got.Service != "" && c.client == "" {
				t.Errorf("Authenticate = %+v, %v; want ErrClient with %q", got, err, c.want)
			}
			if err != nil && (strings.Contains(err.Error(), "eyJ") || strings.Contains(err.Error(), "ghost")) {
				t.Errorf("the error shows what the client sent: %v", err)
			}
		})
	}
}

// Whether the service, the instance, or a key for the algorithm is there doesn't
// change the work: one verification, by the algorithm of the assertion.
func TestAssertionDoesTheSameWork(t *testing.T) {
	key, ed := instanceKey(t, "ES256", "one"), instanceKey(t, "EdDSA", "one")
	a := authenticator(map[string]*jose.PrivateKey{"shop/one": key})
	var by []string
	a.verifySignature = func(u *jose.Unverified, keys []jose.Key, o jose.VerifyOptions) (jose.Token, error) {
		token, err := u.Verify(keys, o)
		if len(keys) == 1 && (err == nil || errors.Is(err, jose.ErrSignature)) { // so it was computed
			by = append(by, keys[0].Algorithm())
		}
		return token, err
	}
	for name, c := range map[string]struct{ text, want string }{
		"right":           {right().signed(t, key, "JWT"), "ES256"},
		"wrong key":       {right().signed(t, instanceKey(t, "ES256", "one"), "JWT"), "ES256"},
		"no instance":     {right().signed(t, instanceKey(t, "ES256", "two"), "JWT"), "ES256"},
		"no service":      {right().with("iss", "ghost").signed(t, key, "JWT"), "ES256"},
		"other algorithm": {right().signed(t, ed, "JWT"), "EdDSA"},
		"no kid":          {right().signed(t, instanceKey(t, "ES256", ""), "JWT"), "ES256"},
	} {
		by = nil
		_, _ = a.VerifyAssertion(c.text)
		if !slices.Equal(by, []string{c.want}) {
			t.Errorf("%s: verified by %v, want once by %s", name, by, c.want)
		}
	}
}

// An Authenticator that lacks something takes no assertion, even if its
// directory has a key under another name than it was asked for.
func TestAssertionFailsClosed(t *testing.T) {
	key := instanceKey(t, "ES256", "one")
	whole := authenticator(map[string]*jose.PrivateKey{"shop/one": key})
	misnamed := whole
	misnamed.Directory = instances{"shop/one": instanceKey(t, "ES256", "").Public()}
	noAudience, noReplays, noDirectory := whole, whole, whole
	noAudience.Audience, noReplays.Replays, noDirectory.Directory = "", nil, nil
	for name, a := range map[string]Authenticator{"zero": {Now: whole.Now}, "misnamed": misnamed, "no audience": noAudience, "no replays": noReplays, "no directory": noDirectory} {
		if got, err := a.VerifyAssertion(right().with("aud", a.Audience).signed(t, key, "JWT")); !errors.Is(err, ErrClient) {
			t.Errorf("%s: VerifyAssertion = %+v, %v; want ErrClient", name, got, err)
		}
	}
}

// The audit shows whom an assertion claims to be of.
func TestClaimedByAssertion(t *testing.T) {
	key := instanceKey(t, "ES256", "one")
	text := right().signed(t, key, "JWT")
	for _, c := range []struct {
		form url.Values
		want string
	}{
		{asserted(text, ""), "shop"},
		{asserted(text, "orders"), "orders"},
		{asserted("x", ""), ""},
	} {
		if got := Claimed(nil, c.form); got != c.want {
			t.Errorf("Claimed(%v) = %q, want %q", c.form, got, c.want)
		}
	}
}

// Whatever strangers write into an assertion: nothing panics, and who gets in has
// signed it with the key, for us, for now, and for the first time.
func FuzzAssertion(f *testing.F) {
	key := instanceKey(f, "ES256", "one")
	text, err := json.Marshal(right())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text), "", true)
	f.Add(`{"iss":"shop","sub":"shop","aud":["https://sts.example.com"],"exp":1e9,"jti":"a"}`, "", true)
	f.Add(`{"iss":null,"aud":{},"exp":"1","iat":-1e309}`, "", true)
	f.Add("", right().signed(f, key, "JWT"), false)
	f.Fuzz(func(t *testing.T, claims, text string, sign bool) {
		a := authenticator(map[string]*jose.PrivateKey{"shop/one": key})
		if sign {
			text = signedText(t, key, "JWT", claims)
		}
		got, err := a.VerifyAssertion(text)
		if err != nil {
			if !errors.Is(err, ErrClient) || got != (Identity{}) {
				t.Errorf("VerifyAssertion(%q) = %+v, %v; want ErrClient and nobody", text, got, err)
			}
			return
		}
		if want := (Identity{Service: "shop", Instance: "one"}); got != want {
			t.Errorf("VerifyAssertion(%q) = %+v, want %+v", text, got, want)
		}
		if _, err := jose.Verify(text, []jose.Key{key.Public()}, jose.VerifyOptions{}); err != nil {
			t.Errorf("VerifyAssertion(%q) takes what the key has not signed: %v", text, err)
		}
		if _, err := a.VerifyAssertion(text); err == nil {
			t.Errorf("VerifyAssertion(%q) takes it twice", text)
		}
	})
}
