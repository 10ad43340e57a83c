package jose

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// rsaPEMs are one RSA key in every form that is accepted, and in forms that are not.
func rsaPEMs(t testing.TB, bits int) (public, pkcs1, cert, private string) {
	t.Helper()
	k := mustRSA(t, bits)
	spki, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pemOf("PUBLIC KEY", spki)), string(pemOf("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(&k.PublicKey))),
		string(pemOf("CERTIFICATE", der)), string(pemOf("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(k)))
}

// One key gives equal Keys from PUBLIC KEY, RSA PUBLIC KEY and CERTIFICATE, one per
// allowed algorithm.
func TestParsePEM(t *testing.T) {
	public, pkcs1, cert, _ := rsaPEMs(t, 2048)
	o := SetOptions{Algorithms: []string{"RS256", "PS256", "ES256"}}
	want, faults := ParsePEM(public, "a", o)
	if len(want) != 2 || len(faults) > 0 || want[0].ID() != "a" || want[0].Algorithm() != "RS256" || want[1].Algorithm() != "PS256" {
		t.Fatalf("ParsePEM(PUBLIC KEY) = %v, %v; want a for RS256 and PS256", want, faults)
	}
	for _, text := range []string{pkcs1, cert, "\r\n " + strings.ReplaceAll(public, "\n", "\r\n") + "\n\n"} {
		got, faults := ParsePEM(text, "a", o)
		if diff := cmp.Diff(want, got); diff != "" || len(faults) > 0 {
			t.Errorf("ParsePEM(%s): %v, -want +got:\n%s", text, faults, diff)
		}
	}
}

// Every refusal of PEM text in the words an operator reads.
func TestParsePEMRefuses(t *testing.T) {
	public, _, _, private := rsaPEMs(t, 2048)
	weak, _, _, _ := rsaPEMs(t, 1024)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&p224.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode([]byte(public))
	for name, tt := range map[string]struct {
		text, kid string
		o         SetOptions
		want      string
	}{
		"empty":          {text: "", want: "not PEM: it must begin with -----BEGIN; " + pemAccepted},
		"JSON":           {text: set(ecJWK), want: "JSON, not PEM; give it as jwks"},
		"text before":    {text: "hello\n" + public, want: "not PEM: it must begin with -----BEGIN; " + pemAccepted},
		"damaged":        {text: public[:100], want: "not PEM: the block is damaged; " + pemAccepted},
		"private":        {text: private, want: privateKeyFault},
		"private second": {text: public + private, want: privateKeyFault},
		"two blocks":     {text: public + public, want: "several PEM blocks; " + pemAccepted},
		"damaged first":  {text: public[:100] + "\n" + public, want: "several PEM blocks; " + pemAccepted},
		"trailing text":  {text: public + "x", want: "data after the PEM block; " + pemAccepted},
		"headers":        {text: strings.Replace(public, "\n", "\nA: b\n\n", 1), want: "PEM block with headers; remove them"},
		"block type":     {text: string(pemOf("X509 CRL", block.Bytes)), want: `PEM block "X509 CRL" is not supported; ` + pemAccepted},
		"trailing DER":   {text: string(pemOf("PUBLIC KEY", append(bytes.Clone(block.Bytes), 0))), want: "PEM block PUBLIC KEY cannot be read: x509: trailing data after ASN.1 of public-key"},
		"wrong label":    {text: string(pemOf("CERTIFICATE", []byte{0x30, 0})), want: "PEM block CERTIFICATE cannot be read: x509: malformed tbs certificate"},
		"too long":       {text: strings.Repeat("a", 65537), want: "PEM text of 65537 bytes; at most 65536 are read"},
		"RSA 1024":       {text: weak, want: "key 0: RSA key of 1024 bits; use 2048 to 8192"},
		"P-224":          {text: string(pemOf("PUBLIC KEY", spki)), want: "key 0: curve P-224 is not supported; use P-256, P-384 or P-521"},
		"kid":            {text: public, kid: "a\n", want: "key 0: kid has a control character; use printable text"},
		"alg":            {text: public, kid: "a", o: SetOptions{Algorithms: []string{"EdDSA"}}, want: `key 0 (kid "a"): none of the allowed algorithms (EdDSA) fits a key of type RSA; allow one of RS256, RS384, RS512, PS256, PS384, PS512`},
		"allow-list":     {text: public, o: SetOptions{Algorithms: []string{"rs256"}}, want: `allowed algorithms: alg "rs256" is not known; ` + known},
	} {
		t.Run(name, func(t *testing.T) {
			keys, faults := ParsePEM(tt.text, tt.kid, tt.o)
			if diff := cmp.Diff([]string{tt.want}, messages(faults)); diff != "" || keys != nil {
				t.Errorf("ParsePEM(%.300s) = %v, faults -want +got:\n%s", tt.text, keys, diff)
			}
		})
	}
}
