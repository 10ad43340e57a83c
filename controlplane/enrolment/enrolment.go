// Package enrolment gives instances of services an identity.
//
// An instance makes a key pair, and proves once that it is of a service: by a join
// token, by a token of its Kubernetes service account, or by a key that is enrolled
// already. From then on the key is its identity: it has short-lived certificates
// for it, for ADS and for the API, and signs client assertions with it at the token
// endpoint. The name of an instance is made from its key, so that enrolling a key
// twice is enrolling it once.
//
// What a stranger gets to hear is one of a few sentences; the log and the audit
// have the reason.
package enrolment

import (
	"context"
	"errors"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/bearer"
	"github.com/watchword-mesh/watchword/issuer/ca"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// How long things last.
const (
	// CertificateLifetime is that of an instance's certificate. It renews at half
	// of it, so that an outage of that long goes unnoticed.
	CertificateLifetime = time.Hour
	// Lifetime is how long an enrolment lasts after its last renewal: how long an
	// instance with a key file may be off.
	Lifetime = 30 * 24 * time.Hour
	// noteRenewal is how old the noted time of the last renewal may get: a write
	// for each certificate would be a load on etcd that grows with the mesh.
	noteRenewal = 24 * time.Hour
)

// What Records returns, to be told apart.
var (
	// ErrUnknown: there is no such record.
	ErrUnknown = errors.New("there is no such record")
	// ErrNoService: the service does not exist.
	ErrNoService = errors.New("there is no such service")
	// ErrConflict: the record has changed since it was read.
	ErrConflict = errors.New("the record has changed meanwhile")
)

// JoinToken is what is kept of a join token.
type JoinToken struct {
	ID, Service string
	// Hash is the HMAC of the secret; see [Hash].
	Hash []byte
	// Uses is how many instances may enrol with it, Instances are those that have.
	Uses             int
	Instances        []string
	Created, Expires time.Time
	CreatedBy        string
	Revision         int64
}

// Instance is an enrolled instance.
type Instance struct {
	Service, ID string
	// Node is what it calls itself.
	Node string
	// PublicKey is the DER of its SubjectPublicKeyInfo.
	PublicKey []byte
	// AttestedBy is what it proved itself with, such as "join-token/ID".
	AttestedBy string
	// Renewed is when it last got a certificate, to the day.
	Enrolled, Renewed, Expires time.Time
	Revision                   int64
}

// Records is where enrolments are kept.
type Records interface {
	// JoinToken reads one as it is now, or ErrUnknown.
	JoinToken(ctx context.Context, id string) (JoinToken, error)
	// Instance reads one as it is now, or ErrUnknown.
	Instance(ctx context.Context, service, id string) (Instance, error)
	// Enrol stores an instance, and notes it in the token that it used, if any, in
	// one transaction: only if the service exists, the token has not changed, and
	// the instance is as it was read (Revision; 0: not there). It returns the
	// revision of the transaction.
	Enrol(ctx context.Context, i Instance, use *JoinToken, e audit.Entry) (revision int64, err error)
}

// Mesh is what the control plane knows at one moment.
type Mesh interface {
	// Service is nil if there is no such service.
	Service(name string) *policyv1.ServiceSpec
	// Instance is one that is enrolled, from memory.
	Instance(service, id string) (Instance, bool)
	// Issuers are those of some names that can be verified with.
	Issuers(names []string) []bearer.Issuer
	// RevokedBefore is until when Kubernetes tokens of a service do not count.
	RevokedBefore(service string) time.Time
	// Issuer is the `iss` of the built-in issuer.
	Issuer() string
	// Authority issues certificates.
	Authority() *ca.Authority
	// Reached waits until a revision is in force here.
	Reached(ctx context.Context, revision int64) error
}

// Assertions verifies client assertions of enrolled keys.
type Assertions interface {
	VerifyAssertion(assertion string) (service, instance string, err error)
}
