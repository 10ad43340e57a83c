// Package enrolment gives a data plane its identity: a key pair that it makes
// itself, and a certificate for it from the control plane.
//
// [Enrol] proves once, by a join token or a Kubernetes service account, which
// service the process is an instance of. From then on the key is the proof:
// [Identity.Run] renews the certificate, [Identity.TLSConfig] speaks to the
// control plane, [Identity.Assertion] asks the issuer for tokens.
//
// The key is in memory alone, unless a key file is asked for. A process without
// one enrols anew when it is started again, as another instance.
//
// Whom it gives its credential to it knows before: the server's certificate
// must be of the CA that the join token pins or that a file has, and name the
// control plane by its SPIFFE ID. Host names don't count.
package enrolment

import (
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Config says who enrols where.
type Config struct {
	// Addresses of the control plane's ADS listener, HOST:PORT, tried in this
	// order.
	Addresses []string
	// Service that the process is an instance of.
	Service string
	// Node is a label for people, such as the name of the host or the pod.
	Node string
	// Credential proves the first time that the process is of the Service. nil
	// means that there is none: KeyFile must hold an enrolled key.
	Credential Credential
	// KeyFile, if not empty, keeps key and certificate over restarts, so that
	// they give the same instance and need no credential. It is made with mode
	// 0600, and not read if others may read it.
	KeyFile string
	// Logger: nil means none.
	Logger hclog.Logger
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// ErrRefused is what an error wraps when the control plane has said no, or isn't
// the one that it should be. To ask again is no use until somebody has changed
// something.
var ErrRefused = errors.New("refused")

// ErrDenied is what an error that wraps ErrRefused also is when it is the control
// plane itself that refuses the key or the credential, and nobody who could have
// taken its place on the way.
var ErrDenied = errors.New("denied by the control plane")

func (c Config) check() error {
	switch {
	case len(c.Addresses) == 0:
		return errors.New("enrolling: there is no address of the control plane")
	case c.Service == "":
		return errors.New("enrolling: there is no name of a service")
	case c.Credential == nil && c.KeyFile == "":
		return fmt.Errorf("enrolling service %q: there is neither a credential nor a key file; give a join token", c.Service)
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}
