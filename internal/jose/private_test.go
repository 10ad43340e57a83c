package jose

import "testing"

// A key under another kid signs with it, and the key that it is of stays as it was.
func TestWithID(t *testing.T) {
	key, err := GenerateKey("ES256")
	if err != nil {
		t.Fatal(err)
	}
	thumbprint := key.ID()
	named, err := key.WithID("instance")
	if err != nil {
		t.Fatalf("WithID: %v", err)
	}
	token, err := named.Signer("JWT").Sign([]byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Verify(token, []Key{named.Public()}, VerifyOptions{Types: []string{"JWT"}})
	if err != nil || got.Header.KeyID != "instance" || key.ID() != thumbprint || named.Public().Thumbprint() != thumbprint {
		t.Errorf("kid %q, %v; the key before is %q, want %q", got.Header.KeyID, err, key.ID(), thumbprint)
	}
	if _, err := key.WithID("a\nb"); err == nil {
		t.Error("WithID takes a control character")
	}
}
