package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// fakeCA signs the certificates of the tests.
type fakeCA struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newFakeCA(name string) (*fakeCA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	certificate, err := x509.ParseCertificate(der)
	return &fakeCA{certificate, key}, err
}

// sign makes a certificate of a name, and of 127.0.0.1 for a server.
func (ca *fakeCA) sign(name string, use x509.ExtKeyUsage) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name}, ExtKeyUsage: []x509.ExtKeyUsage{use},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if use == x509.ExtKeyUsageServerAuth {
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, key.Public(), ca.key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// tlsConfig is that of the fake: it takes client certificates, and in the mode
// certificate insists on one. The files for clients go to dir: ca.pem,
// client.pem and client.key, and other.pem, which is another CA and has signed
// stranger.pem.
func (f *fakeAdmin) tlsConfig(dir string) (*tls.Config, error) {
	ca, err := newFakeCA("fake CA")
	if err != nil {
		return nil, err
	}
	other, err := newFakeCA("other CA")
	if err != nil {
		return nil, err
	}
	server, err := ca.sign("mesh.example", x509.ExtKeyUsageServerAuth)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(ca.writeClient(dir, "client", "ca.pem"), other.writeClient(dir, "stranger", "other.pem")); err != nil {
		return nil, err
	}
	clients := x509.NewCertPool()
	clients.AddCert(ca.certificate)
	config := &tls.Config{Certificates: []tls.Certificate{server}, ClientCAs: clients, ClientAuth: tls.VerifyClientCertIfGiven, NextProtos: []string{"h2"}}
	strict := config.Clone()
	strict.ClientAuth = tls.RequireAndVerifyClientCert
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		if f.is() == "certificate" {
			return strict, nil
		}
		return nil, nil
	}
	return config, nil
}

// writeClient writes NAME.pem and NAME.key of a client, and the CA itself as own.
func (ca *fakeCA) writeClient(dir, name, own string) error {
	client, err := ca.sign("ci.example", x509.ExtKeyUsageClientAuth)
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(client.PrivateKey)
	if err != nil {
		return err
	}
	for name, block := range map[string]*pem.Block{
		own:           {Type: "CERTIFICATE", Bytes: ca.certificate.Raw},
		name + ".pem": {Type: "CERTIFICATE", Bytes: client.Certificate[0]},
		name + ".key": {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}
