package enrolment

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/watchword-mesh/watchword/internal/atomicfile"
	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
)

// A key file is PEM: the private key, the instance's certificates, a block with
// the rest of the Identity message, and the certificates of the CAs. One that
// was written before the first answer has the private key alone.
const (
	blockKey         = "PRIVATE KEY"
	blockCertificate = "CERTIFICATE"
	blockIdentity    = "WATCHWORD IDENTITY"
)

// errNoFile is that there is no key file yet.
var errNoFile = errors.New("there is no key file")

// readKeyFile gives what the file holds; granted is nil if there was no answer
// yet.
func readKeyFile(path, service string) (*keyPair, *granted, error) {
	text, err := atomicfile.Read(path, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, errNoFile
	}
	if _, ok := errors.AsType[*atomicfile.NotPrivateError](err); ok {
		return nil, nil, fmt.Errorf("key file %w, so others may have read the key; remove it and enrol anew", err)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("key file: %w", err)
	}
	key, g, err := parseKeyFile(text, service)
	if err != nil {
		return nil, nil, fmt.Errorf("key file %s: %w; remove it to enrol anew", path, err)
	}
	return key, g, nil
}

func parseKeyFile(text []byte, service string) (*keyPair, *granted, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != blockKey {
		return nil, nil, errors.New("it must begin with a private key")
	}
	key, err := parseKeyPair(block.Bytes)
	if err != nil {
		return nil, nil, err
	}
	if len(bytes.TrimSpace(rest)) == 0 {
		return key, nil, nil
	}
	m, err := parseIdentity(rest)
	if err != nil {
		return nil, nil, err
	}
	g, err := newGranted(m, service, key)
	return key, g, err
}

// parseIdentity puts the message together again.
func parseIdentity(text []byte) (*enrolmentv1.Identity, error) {
	var m *enrolmentv1.Identity
	var before, behind [][]byte
	for {
		block, rest := pem.Decode(text)
		switch {
		case block == nil && m == nil || block == nil && len(bytes.TrimSpace(text)) > 0:
			return nil, errors.New("it is damaged behind the private key")
		case block == nil:
			m.Certificates, m.Authorities = before, behind
			return m, nil
		case block.Type == blockCertificate && m == nil:
			before = append(before, block.Bytes)
		case block.Type == blockCertificate:
			behind = append(behind, block.Bytes)
		case block.Type == blockIdentity && m == nil:
			m = &enrolmentv1.Identity{}
			if err := proto.Unmarshal(block.Bytes, m); err != nil {
				return nil, fmt.Errorf("the block %s: %w", blockIdentity, err)
			}
		default:
			return nil, fmt.Errorf("it has a block %q, which does not belong there", block.Type)
		}
		text = rest
	}
}

func encodePEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func keyFileText(key *keyPair, g *granted) ([]byte, error) {
	var out bytes.Buffer
	put := func(kind string, der []byte) { out.Write(encodePEM(kind, der)) }
	put(blockKey, key.pkcs8)
	if g == nil {
		return out.Bytes(), nil
	}
	for _, der := range g.chain {
		put(blockCertificate, der)
	}
	rest, err := proto.Marshal(&enrolmentv1.Identity{
		Service: g.service, Instance: key.instance, Issuer: g.issuer, TrustDomain: g.trustDomain,
		Expires: timestamppb.New(g.leaf.NotAfter), Renew: timestamppb.New(g.renew),
	})
	if err != nil {
		return nil, fmt.Errorf("encoding the identity: %w", err)
	}
	put(blockIdentity, rest)
	for _, c := range g.authorities {
		put(blockCertificate, c.Raw)
	}
	return out.Bytes(), nil
}

// writeKeyFile replaces the file as a whole: who reads it sees the old content
// or the new.
func writeKeyFile(path string, key *keyPair, g *granted) error {
	text, err := keyFileText(key, g)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(path, text); err != nil {
		return fmt.Errorf("writing key file %s: %w", path, err)
	}
	return nil
}
