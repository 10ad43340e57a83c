package clientauth

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/internal/jose"
)

var (
	pepper  = bytes.Repeat([]byte("p"), MinPepper)
	created = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
)

type directory map[string][]Secret

func (d directory) ClientSecrets(service string) []Secret { return d[service] }

func (directory) InstanceKey(string, string) (jose.Key, bool) { return jose.Key{}, false }

func newSecret(t *testing.T, service string) (string, Secret) {
	t.Helper()
	plain, s, err := NewSecret(service, pepper, created)
	if err != nil {
		t.Fatalf("NewSecret(%q): %v", service, err)
	}
	return plain, s
}

func basic(id, secret string) []string {
	return []string{"Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(id)+":"+url.QueryEscape(secret)))}
}

func TestNewSecret(t *testing.T) {
	plain, s := newSecret(t, "shop")
	if want := regexp.MustCompile(`^wwcs_[A-Z2-7]{52}$`); !want.MatchString(plain) { // 52 * 5 bits
		t.Errorf("plain text has the wrong form, want %s", want)
	}
	if s.Service != "shop" || !s.Created.Equal(created) || len(s.ID) != 13 || len(s.Hash) != 32 {
		t.Errorf("NewSecret = %+v; want it for shop, created %v, with an ID and a hash", s, created)
	}
	if strings.Contains(plain, s.ID) || bytes.Contains(s.Hash, []byte(plain)) {
		t.Error("the record shows part of the plain text")
	}
	other, o := newSecret(t, "shop")
	if plain == other || s.ID == o.ID {
		t.Error("two secrets are equal")
	}
	if _, _, err := NewSecret("shop", pepper[1:], created); err == nil || !strings.Contains(err.Error(), "at least 32") {
		t.Errorf("NewSecret with a pepper of 31 bytes: %v, want an error that says how many it needs", err)
	}
	if _, _, err := NewSecret("", pepper, created); err == nil {
		t.Error("NewSecret for no service gave no error")
	}
}

// Each way that RFC 6749 section 2.3.1 gives, and each that no request may use.
func TestAuthenticate(t *testing.T) {
	old, oldRecord := newSecret(t, "shop")
	plain, record := newSecret(t, "shop")
	odd, oddRecord := newSecret(t, "web shop:é+%") // not a name that we give, but one that shows the encoding
	stolen, stolenRecord := newSecret(t, "orders")
	stolenRecord.Service = "shop"
	moved, movedRecord := newSecret(t, "orders")
	a := Authenticator{Pepper: pepper, Directory: directory{
		"shop":         {oldRecord, record, stolenRecord, movedRecord},
		"web shop:é+%": {oddRecord},
	}}
	post := func(id, secret string) url.Values { return url.Values{"client_id": {id}, "client_secret": {secret}} }
	shop, none := Identity{Service: "shop", SecretID: record.ID}, Identity{}
	b64 := func(s string) []string { return []string{"Basic " + base64.StdEncoding.EncodeToString([]byte(s))} }

	for _, c := range []struct {
		name   string
		header []string
		form   url.Values
		want   Identity
		err    error
	}{
		{"basic", basic("shop", plain), nil, shop, nil},
		{"basic, scheme in small letters", []string{"basic" + basic("shop", plain)[0][5:]}, nil, shop, nil},
		{"basic, id repeated in the body", basic("shop", plain), url.Values{"client_id": {"shop"}}, shop, nil},
		{"basic, id that needs encoding", basic("web shop:é+%", odd), nil, Identity{Service: "web shop:é+%", SecretID: oddRecord.ID}, nil},
		{"post", nil, post("shop", plain), shop, nil},
		{"an older secret", nil, post("shop", old), Identity{Service: "shop", SecretID: oldRecord.ID}, nil},

		{"wrong secret", basic("shop", "wrong"), nil, none, ErrClient},
		{"unknown service", basic("ghost", plain), nil, none, ErrClient},
		{"secret of another service", nil, post("shop", odd), none, ErrClient},
		{"record renamed to another service", nil, post("shop", stolen), none, ErrClient},
		{"record filed under another service", nil, post("shop", moved), none, ErrClient},
		{"nothing", nil, nil, none, ErrClient},
		{"post without secret", nil, post("shop", ""), none, ErrClient},
		{"post without id", nil, post("", plain), none, ErrClient},
		{"basic without secret", b64("shop"), nil, none, ErrClient},
		{"basic without id", b64(":" + plain), nil, none, ErrClient},
		{"basic, not base64", []string{"Basic shop:" + plain}, nil, none, ErrClient},
		{"basic, not form-encoded", b64("shop%:" + plain), nil, none, ErrClient},
		{"basic, nothing", []string{"Basic"}, nil, none, ErrClient},
		{"empty header", []string{""}, nil, none, ErrClient},
		{"another scheme", []string{"Bearer " + plain}, nil, none, ErrClient},
		{"assertion without its type", nil, url.Values{"client_assertion": {"e30.e30.AA"}}, none, ErrClient},
		{"assertion of another type", nil, url.Values{"client_assertion": {"e30.e30.AA"}, "client_assertion_type": {"saml2-bearer"}}, none, ErrClient},
		{"type without assertion", nil, url.Values{"client_assertion_type": {AssertionType}}, none, ErrClient},
		{"damaged assertion", nil, url.Values{"client_assertion": {"e30.e30.AA"}, "client_assertion_type": {AssertionType}}, none, ErrClient},

		{"basic and post", basic("shop", plain), post("shop", plain), none, ErrRequest},
		{"basic and secret in the body", basic("shop", plain), url.Values{"client_secret": {plain}}, none, ErrRequest},
		{"basic and assertion", basic("shop", plain), url.Values{"client_assertion": {"e30.e30.AA"}}, none, ErrRequest},
		{"post and assertion", nil, url.Values{"client_id": {"shop"}, "client_secret": {plain}, "client_assertion": {"e30.e30.AA"}}, none, ErrRequest},
		{"basic, other id in the body", basic("shop", plain), url.Values{"client_id": {"orders"}}, none, ErrRequest},
		{"post and type of assertion", nil, url.Values{"client_id": {"shop"}, "client_secret": {plain}, "client_assertion_type": {AssertionType}}, none, ErrRequest},
		{"basic and type of assertion", basic("shop", plain), url.Values{"client_assertion_type": {AssertionType}}, none, ErrRequest},
		{"two assertions", nil, url.Values{"client_assertion": {"e30.e30.AA", "e30.e30.AA"}, "client_assertion_type": {AssertionType}}, none, ErrRequest},
		{"two headers", append(basic("shop", plain), basic("shop", plain)...), nil, none, ErrRequest},
		{"two ids", nil, url.Values{"client_id": {"shop", "shop"}, "client_secret": {plain}}, none, ErrRequest},
		{"two secrets", nil, url.Values{"client_id": {"shop"}, "client_secret": {"wrong", plain}}, none, ErrRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := a.Authenticate(c.header, c.form)
			if got != c.want || !errors.Is(err, c.err) {
				t.Errorf("Authenticate = %+v, %v; want %+v, %v", got, err, c.want, c.err)
			}
			if err != nil && (strings.Contains(err.Error(), plain) || strings.Contains(err.Error(), SecretPrefix)) {
				t.Errorf("the error shows what the client sent: %v", err)
			}
		})
	}
}

// The zero value and a pepper too short to hide anything know nobody.
func TestAuthenticateFailsClosed(t *testing.T) {
	short := []byte("short")
	record := Secret{Service: "shop", Hash: digest(short, "shop", "s")}
	for _, a := range []Authenticator{
		{},
		{Pepper: pepper},
		{Pepper: short, Directory: directory{"shop": {record}}},
		{Pepper: pepper, Directory: directory{"shop": {{Service: "shop"}}}},
	} {
		if got, err := a.Authenticate(basic("shop", "s"), nil); !errors.Is(err, ErrClient) {
			t.Errorf("%+v.Authenticate = %+v, %v; want ErrClient", a, got, err)
		}
	}
}

// Whether a service is there, has a secret, or has several doesn't change the
// work for one that presents a secret.
func TestAuthenticateDoesTheSameWork(t *testing.T) {
	plain, record := newSecret(t, "shop")
	_, second := newSecret(t, "shop")
	a := Authenticator{Pepper: pepper, Directory: directory{"shop": {record, second}, "bare": nil}}
	count := 0
	a.hash = func(pepper []byte, service, secret string) []byte {
		count++
		return digest(pepper, service, secret)
	}
	for _, c := range []struct{ id, secret string }{
		{"shop", plain}, {"shop", "wrong"}, {"bare", plain}, {"ghost", plain},
	} {
		count = 0
		_, _ = a.Authenticate(basic(c.id, c.secret), nil)
		if count != 1 {
			t.Errorf("Authenticate(%q): %d HMACs, want 1", c.id, count)
		}
	}
}

func TestClaimed(t *testing.T) {
	for _, c := range []struct {
		header []string
		form   url.Values
		want   string
	}{
		{basic("shop", "wrong"), nil, "shop"},
		{nil, url.Values{"client_id": {"shop"}}, "shop"},
		{nil, nil, ""},
		{[]string{"Basic ???"}, url.Values{"client_id": {"shop"}}, ""},
	} {
		if got := Claimed(c.header, c.form); got != c.want {
			t.Errorf("Claimed(%q, %v) = %q, want %q", c.header, c.form, got, c.want)
		}
	}
}

// Nobody gets in without the secret, nothing panics, errors are of the two
// kinds.
func FuzzAuthenticate(f *testing.F) {
	f.Add("Basic c2hvcDp4", "")
	f.Add("", "client_id=shop&client_secret=x")
	f.Add("Basic c2hvcDp4", "client_secret=x")
	f.Add("Bearer x", "client_assertion=e30.e30.AA")
	f.Add("Basic JTo=", "client_id=a&client_id=b")
	plain, record, err := NewSecret("shop", pepper, created)
	if err != nil {
		f.Fatal(err)
	}
	a := Authenticator{Pepper: pepper, Directory: directory{"shop": {record}}}
	f.Fuzz(func(t *testing.T, header, body string) {
		var headers []string
		if header != "" {
			headers = []string{header}
		}
		form, err := url.ParseQuery(body)
		if err != nil {
			return
		}
		got, err := a.Authenticate(headers, form)
		if err == nil {
			t.Fatalf("Authenticate(%q, %q) = %+v without the secret %s...", header, body, got, plain[:8])
		}
		if errors.Is(err, ErrClient) == errors.Is(err, ErrRequest) {
			t.Errorf("Authenticate(%q, %q): %v; want either ErrClient or ErrRequest", header, body, err)
		}
	})
}
