package enrolment

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/watchword-mesh/watchword/internal/jointoken"
	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
)

// Credential proves which service a process is an instance of: a [JoinToken], a
// [JoinTokenFile] or a [KubernetesTokenFile]. Files are read at each attempt,
// since somebody else may replace them.
type Credential interface {
	// present puts the credential into a request, and tells who may read it.
	present(req *enrolmentv1.EnrolRequest) (trust, error)
}

// JoinToken is a join token as its text, wwjt_ID.SECRET.PIN. It is a secret;
// printing it shows the ID alone.
type JoinToken string

// JoinTokenFile is the path of a file that holds a join token.
type JoinTokenFile string

// KubernetesTokenFile is a projected token of a Kubernetes service account.
// Such a token says nothing of the control plane, so CAFile or Pin must.
type KubernetesTokenFile struct {
	File string
	// CAFile is the path of the CA certificates of the mesh, PEM.
	CAFile string
	// Pin is that of the CA, as a join token has it.
	Pin string
}

// String names the token without its secret.
func (t JoinToken) String() string {
	parsed, err := jointoken.Parse(string(t))
	if err != nil {
		return "join token"
	}
	return parsed.String()
}

// GoString is String.
func (t JoinToken) GoString() string { return t.String() }

// Format prints String for every verb.
func (t JoinToken) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// MarshalText gives String.
func (t JoinToken) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

func (t JoinToken) present(req *enrolmentv1.EnrolRequest) (trust, error) {
	parsed, err := jointoken.Parse(string(t))
	if err != nil {
		return trust{}, err
	}
	req.Credential = &enrolmentv1.EnrolRequest_JoinToken{JoinToken: parsed.Text()}
	return trust{pin: parsed.Pin}, nil
}

func (f JoinTokenFile) present(req *enrolmentv1.EnrolRequest) (trust, error) {
	text, err := readSmall(string(f))
	if err != nil {
		return trust{}, fmt.Errorf("reading the join token: %w", err)
	}
	t, err := JoinToken(text).present(req)
	if err != nil {
		return trust{}, fmt.Errorf("file %s: %w", string(f), err)
	}
	return t, nil
}

func (f KubernetesTokenFile) present(req *enrolmentv1.EnrolRequest) (trust, error) {
	t, err := f.trust()
	if err != nil {
		return trust{}, err
	}
	text, err := readSmall(f.File)
	if err != nil {
		return trust{}, fmt.Errorf("reading the Kubernetes token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return trust{}, fmt.Errorf("file %s: there is no token in it", f.File)
	}
	req.Credential = &enrolmentv1.EnrolRequest_KubernetesToken{KubernetesToken: token}
	return t, nil
}

func (f KubernetesTokenFile) trust() (trust, error) {
	switch {
	case f.CAFile != "" && f.Pin != "":
		return trust{}, errors.New("a Kubernetes token has both a CA file and a pin; give one of them")
	case f.Pin != "":
		return trust{pin: f.Pin}, jointoken.CheckPin(f.Pin)
	case f.CAFile == "":
		return trust{}, errors.New("a Kubernetes token needs the CA of the mesh, by a CA file or a pin; without it anybody could take the token")
	}
	text, err := readSmall(f.CAFile)
	if err != nil {
		return trust{}, fmt.Errorf("reading the CA of the mesh: %w", err)
	}
	roots, err := certificatesOf(text)
	if err != nil {
		return trust{}, fmt.Errorf("file %s: %w", f.CAFile, err)
	}
	return trust{roots: roots}, nil
}

// certificatesOf reads PEM that has certificates and nothing else.
func certificatesOf(text []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		if block.Type != blockCertificate {
			return nil, fmt.Errorf("it must have blocks of CERTIFICATE alone, not %q", block.Type)
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(out)+1, err)
		}
		out, text = append(out, certificate), rest
	}
	if len(out) == 0 {
		return nil, errors.New("there is no certificate in it")
	}
	return out, nil
}

// maxFile is the largest file that is read, in bytes.
const maxFile = 1 << 20

func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("%s is no file of at most %d bytes", path, maxFile)
	}
	return os.ReadFile(path)
}
