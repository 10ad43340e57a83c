package enrolment

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
)

// attemptTimeout is how long one address may take to answer.
const attemptTimeout = 10 * time.Second

// again are the codes after which the same request may succeed. All others are
// answers of a control plane that has understood it.
var again = []codes.Code{codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted}

// errKey says that the key is enrolled no more.
var errKey = fmt.Errorf("%w: the key is not enrolled, it was revoked maybe", ErrRefused)

// denial is a refusal of the credential by the control plane itself, and not one of a
// server that is not it, or of a request that it can't read.
type denial struct{ error }

// Unwrap gives what was said.
func (d denial) Unwrap() error { return d.error }

// Is makes it ErrDenied.
func (denial) Is(target error) bool { return target == ErrDenied }

// tooEarly says whether a certificate is not valid yet, which is the case while the
// clock of a machine that has just started is not set.
func tooEarly(err error, now time.Time) bool {
	var invalid x509.CertificateInvalidError
	return errors.As(err, &invalid) && invalid.Reason == x509.Expired && now.Before(invalid.Cert.NotBefore)
}

// call is one request to the control plane at one moment.
type call struct {
	trust trust
	// client is shown to the server, if not nil.
	client *tls.Certificate
	now    func() time.Time
	// send makes the request.
	send func(context.Context, enrolmentv1.EnrolmentServiceClient) (*enrolmentv1.Identity, error)
}

// answer is an identity, and the trust domain of the server that gave it.
type answer struct {
	identity    *enrolmentv1.Identity
	trustDomain string
}

// first sends the call to the addresses in turn, until one answers. An error
// that wraps ErrRefused ends the search: the others are of the same mind.
func (c call) first(ctx context.Context, addresses []string) (answer, error) {
	var faults []error
	for _, address := range addresses {
		got, err := c.to(ctx, address)
		if err == nil {
			return got, nil
		}
		faults = append(faults, fmt.Errorf("%s: %w", address, err))
		if errors.Is(err, ErrRefused) || ctx.Err() != nil {
			break
		}
	}
	return answer{}, errors.Join(faults...)
}

func (c call) to(ctx context.Context, address string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	// gRPC says no more of a failed handshake than that there is no connection,
	// and makes it on a goroutine of its own.
	var fault atomic.Pointer[error]
	var trustDomain atomic.Pointer[string]
	config := clientTLS("the control plane", func(shown []*x509.Certificate) error {
		got, err := c.trust.server(shown, c.now())
		if err != nil {
			fault.Store(&err)
			return err
		}
		trustDomain.Store(&got)
		return nil
	})
	if c.client != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return c.client, nil }
	}
	// Past any resolver and proxy: the control plane is in the mesh.
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithNoProxy())
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	defer conn.Close()
	got, err := c.send(ctx, enrolmentv1.NewEnrolmentServiceClient(conn))
	if err == nil {
		return answer{got, *trustDomain.Load()}, nil
	}
	if bad := fault.Load(); bad != nil && tooEarly(*bad, c.now()) {
		return answer{}, fmt.Errorf("the clock of this host is behind, or that of the control plane ahead: %w", *bad)
	}
	if bad := fault.Load(); bad != nil {
		return answer{}, fmt.Errorf("%w: the server is not the control plane: %w", ErrRefused, *bad)
	}
	if c.client != nil && (status.Code(err) == codes.PermissionDenied || status.Code(err) == codes.Unauthenticated) {
		return answer{}, fmt.Errorf("%w: %s", errKey, status.Convert(err).Message())
	}
	if !slices.Contains(again, status.Code(err)) {
		refused := fmt.Errorf("%w: %s (%s)", ErrRefused, status.Convert(err).Message(), status.Code(err))
		if status.Code(err) == codes.PermissionDenied {
			return answer{}, denial{refused}
		}
		return answer{}, refused
	}
	return answer{}, err
}
