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
	"time"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/bearer"
	"github.com/watchword-mesh/watchword/controlplane/store"
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

// Records is where enrolments are kept; package store says what each does.
type Records interface {
	JoinToken(ctx context.Context, service, id string) (store.JoinToken, error)
	Instance(ctx context.Context, service, id string) (store.Instance, error)
	Enrol(ctx context.Context, i store.Instance, use *store.JoinToken, e audit.Entry) (store.Instance, error)
	Renew(ctx context.Context, i store.Instance) error
}

// Mesh is what the control plane knows at one moment.
type Mesh interface {
	// Service is nil if there is no such service.
	Service(name string) *policyv1.ServiceSpec
	// Instance is one that is enrolled, from memory.
	Instance(service, id string) (store.Instance, bool)
	// Issuers are those of some names that can be verified with.
	Issuers(names []string) []bearer.Issuer
	// RevokedBefore is until when Kubernetes tokens of a service do not count.
	RevokedBefore(service string) time.Time
	// Issuer is the `iss` of the built-in issuer.
	Issuer() string
	// Authority issues certificates.
	Authority() *ca.Authority
	// Revision is that of what Mesh says.
	Revision() int64
	// Reached waits until a revision is in force here.
	Reached(ctx context.Context, revision int64) error
}

// Assertions verifies client assertions of enrolled keys.
type Assertions interface {
	VerifyAssertion(assertion string) (service, instance string, err error)
}
