package jointoken

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

const pin = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"

// What is made can be read, and two are never equal.
func TestParse(t *testing.T) {
	made := New(pin)
	for _, text := range []string{made.Text(), " " + made.Text() + "\n"} {
		got, err := Parse(text)
		if err != nil || got.ID != made.ID || got.Secret() != made.Secret() || got.Pin != pin || got.Text() != made.Text() {
			t.Errorf("Parse(%q) = %v, %v; want %v with its secret", text, got, err, made)
		}
	}
	if other := New(pin); other.ID == made.ID || other.Secret() == made.Secret() {
		t.Error("two tokens are equal")
	}
}

// Every other spelling is refused, without a word of it.
func TestParseRefuses(t *testing.T) {
	made := New(pin)
	for _, text := range []string{
		"", "wwjt_", "wwcs_" + made.ID + "." + made.Secret() + "." + pin,
		Prefix + made.ID + "." + made.Secret(),
		Prefix + made.ID + "." + made.Secret() + "." + pin + ".x",
		Prefix + made.ID + "." + made.Secret()[1:] + "." + pin,
		Prefix + made.ID[1:] + "." + made.Secret() + "." + pin,
		Prefix + strings.ToLower(made.ID) + "." + made.Secret() + "." + pin,
		Prefix + made.ID + "." + made.Secret() + "." + pin[1:],
		Prefix + made.ID + "." + made.Secret() + "." + pin[:42] + "V", // the last bits of base64 must be 0
		Prefix + made.ID + "." + made.Secret() + "." + pin + "=",
		Prefix + made.ID + "." + made.Secret() + "." + pin[:20] + "\n" + pin[20:],
	} {
		got, err := Parse(text)
		if err == nil || strings.Contains(err.Error(), made.Secret()[1:]) {
			t.Errorf("Parse(%q) = %v, %v; want an error that doesn't show the secret", text, got, err)
		}
	}
}

// No way of printing a token shows its secret, also not where it is a field
// that fmt may not call methods of.
func TestTokenHidesItsSecret(t *testing.T) {
	made := New(pin)
	type holder struct{ token Token }
	texts := []string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		texts = append(texts, fmt.Sprintf(verb, made), fmt.Sprintf(verb, &made), fmt.Sprintf(verb, holder{made}))
	}
	encoded, err := json.Marshal(made)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range append(texts, string(encoded)) {
		if strings.Contains(text, made.Secret()) || strings.Contains(text, fmt.Sprintf("%x", made.Secret())) {
			t.Errorf("printed as %s", text)
		}
	}
	if (Token{}).Secret() != "" {
		t.Error("the zero Token has a secret")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(New(pin).Text())
	f.Add("wwjt_A.B.C")
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := Parse(text); err == nil && got.Text() != strings.TrimSpace(text) {
			t.Errorf("Parse(%q) is written %q", text, got.Text())
		}
	})
}
