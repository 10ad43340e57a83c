package ca

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"

	"github.com/watchword-mesh/watchword/internal/identity"
	"github.com/watchword-mesh/watchword/internal/jointoken"
)

// Authority is the CAs of a mesh at one moment: one that signs, and all that
// are trusted. It doesn't change and may be shared.
type Authority struct {
	trustDomain string
	active      authority
	// certificates of all, that of active first.
	certificates []*x509.Certificate
	pool         *x509.CertPool
}

// authority is one CA that agrees with itself.
type authority struct {
	certificate *x509.Certificate
	private     crypto.Signer
	trustDomain string
}

// NewAuthority makes an Authority of all stored records. It refuses records
// that don't agree with themselves, a CA that is there twice, and CAs of two
// trust domains. The newest record signs; of two with one time, that with the
// greater ID, so that all replicas choose the same.
func NewAuthority(records []Record) (*Authority, error) {
	records = slices.SortedFunc(slices.Values(records), func(a, b Record) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(b.ID, a.ID))
	})
	if len(records) == 0 {
		return nil, errors.New("there is no CA")
	}
	a := &Authority{pool: x509.NewCertPool()}
	seen := map[string]bool{}
	for i, r := range records {
		if seen[r.ID] {
			return nil, fmt.Errorf("CA %s is there twice", r.ID)
		}
		seen[r.ID] = true
		one, err := r.parse()
		if err != nil {
			return nil, err
		}
		if i == 0 {
			a.active, a.trustDomain = one, one.trustDomain
		}
		if one.trustDomain != a.trustDomain {
			return nil, fmt.Errorf("CA %s is of the trust domain %q, CA %s of %q; a mesh has one", records[0].ID, a.trustDomain, r.ID, one.trustDomain)
		}
		a.certificates = append(a.certificates, one.certificate)
		a.pool.AddCert(one.certificate)
	}
	return a, nil
}

// TrustDomain is the SPIFFE trust domain of all that it signs.
func (a *Authority) TrustDomain() string { return a.trustDomain }

// Certificates are the trust anchors, that of the CA that signs first.
func (a *Authority) Certificates() []*x509.Certificate { return slices.Clone(a.certificates) }

// Pool has the same, to verify with.
func (a *Authority) Pool() *x509.CertPool { return a.pool.Clone() }

// Pin is what a join token knows the CA that signs by; see
// [jointoken.PinOf].
func (a *Authority) Pin() string { return jointoken.PinOf(a.active.certificate) }

// parse gives the CA of a record that agrees with itself. A difference means a
// fault of ours, or a store that somebody else wrote to; neither may sign.
func (r Record) parse() (authority, error) {
	if r.State != Active {
		return authority{}, fmt.Errorf("CA %s is in state %q, which this version does not know; was it written by a newer version?", r.ID, r.State)
	}
	certificate, err := x509.ParseCertificate(r.Certificate)
	if err != nil {
		return authority{}, fmt.Errorf("reading the certificate of CA %s: %w", r.ID, err)
	}
	if err := certificate.CheckSignatureFrom(certificate); err != nil {
		return authority{}, fmt.Errorf("CA %s: its certificate is not signed by itself: %w", r.ID, err)
	}
	if identity.InstanceOf(certificate.RawSubjectPublicKeyInfo) != r.ID {
		return authority{}, fmt.Errorf("CA %s: its certificate has another key than its ID says", r.ID)
	}
	private, err := parsePrivate(r.PrivatePKCS8)
	if err != nil {
		return authority{}, fmt.Errorf("reading the key of CA %s: %w", r.ID, err)
	}
	if spki, err := x509.MarshalPKIXPublicKey(private.Public()); err != nil || !bytes.Equal(spki, certificate.RawSubjectPublicKeyInfo) {
		return authority{}, fmt.Errorf("CA %s: its certificate is not for its private key", r.ID)
	}
	if len(certificate.URIs) != 1 || certificate.URIs[0].String() != "spiffe://"+certificate.URIs[0].Host || checkTrustDomain(certificate.URIs[0].Host) != nil {
		return authority{}, fmt.Errorf("CA %s: its certificate does not name one trust domain", r.ID)
	}
	return authority{certificate, private, certificate.URIs[0].Host}, nil
}

func parsePrivate(pkcs8 []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		// The cause may quote the input, so it is not passed on.
		return nil, errors.New("not a PKCS #8 key")
	}
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok || private.Curve != elliptic.P256() {
		return nil, errors.New("not a P-256 key")
	}
	return private, nil
}
