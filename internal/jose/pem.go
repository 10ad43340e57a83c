package jose

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

const pemAccepted = "use one block of PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE"

// ParsePEM reads one public key: PUBLIC KEY (SubjectPublicKeyInfo), RSA PUBLIC KEY
// (PKCS #1) or CERTIFICATE, of which only the key counts: its dates and signature are not
// checked. The key gets kid, which may be empty, and the algorithms of o as a JWK without
// alg would. Faults of the text have Index -1, those of the key 0.
func ParsePEM(text, kid string, o SetOptions) ([]Key, []Fault) {
	allowed, faults := o.allowed()
	raw, err := pemKey(text)
	if err != nil {
		faults = append(faults, setFault(err))
	}
	if len(faults) > 0 {
		return nil, faults
	}
	p := parsed{weak: o.AllowWeak}
	if wrong := checkKeyID(kid); wrong != "" {
		p.fault("%s", wrong)
	} else {
		p.kid = kid
	}
	if p.mat, err = newMaterial(raw, p.weak); err != nil {
		p.fault("%v", err)
	}
	keys := p.keys(allowed)
	if len(p.wrong) == 0 {
		return keys, nil
	}
	for _, message := range p.wrong {
		faults = append(faults, Fault{Index: 0, KeyID: p.kid, Message: message})
	}
	return nil, faults
}

func pemKey(text string) (any, error) {
	if len(text) > maxSetBytes {
		return nil, fmt.Errorf("PEM text of %d bytes; at most %d are read", len(text), maxSetBytes)
	}
	text = strings.TrimSpace(text)
	if strings.Contains(text, "PRIVATE KEY-----") {
		return nil, errors.New(privateKeyFault)
	}
	if strings.HasPrefix(text, "{") {
		return nil, errors.New("JSON, not PEM; give it as jwks")
	}
	// pem.Decode would search for a block; anything before it is refused here.
	if !strings.HasPrefix(text, "-----BEGIN ") {
		return nil, errors.New("not PEM: it must begin with -----BEGIN; " + pemAccepted)
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("not PEM: the block is damaged; " + pemAccepted)
	}
	// A damaged first block is skipped by pem.Decode, so it counts blocks here as well.
	if strings.Count(text, "-----BEGIN ") > 1 {
		return nil, errors.New("several PEM blocks; " + pemAccepted)
	}
	if len(strings.TrimSpace(string(rest))) > 0 {
		return nil, errors.New("data after the PEM block; " + pemAccepted)
	}
	if len(block.Headers) > 0 {
		return nil, errors.New("PEM block with headers; remove them")
	}
	return derKey(block)
}

func derKey(block *pem.Block) (key any, err error) {
	switch block.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var cert *x509.Certificate
		if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
			key = cert.PublicKey
		}
	default:
		return nil, fmt.Errorf("PEM block %s is not supported; %s", quote(block.Type), pemAccepted)
	}
	if err != nil {
		return nil, fmt.Errorf("PEM block %s cannot be read: %w", block.Type, err)
	}
	return key, nil
}
