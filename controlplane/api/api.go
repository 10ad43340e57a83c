// Package api is the admin API: what operators and their scripts may ask of
// the control plane, over gRPC and as JSON over HTTP. Every call is made by an
// actor, who needs a role for it; every write, and every attempt that was refused,
// becomes an entry of the audit.
//
// The package decides what is accepted and how it is answered. Where the
// state lives, who knows the data planes, and who is at the other end of a
// connection, is behind the small interfaces that it declares.
package api

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"

	"github.com/watchword-mesh/watchword/controlplane/access"
	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// ErrConflict is what Configuration.Commit returns when the resources have
// changed since the revision that the writer looked at.
var ErrConflict = errors.New("the configuration has changed meanwhile")

// ErrUnknown says that the thing that was asked for is not there.
var ErrUnknown = errors.New("there is no such thing")

// Configuration is the stored resources.
type Configuration interface {
	// Current returns the state that the control plane works with, and its
	// revision. The state must not be changed.
	Current() (policy.State, int64)
	// Reached waits until Current is at least at a revision.
	Reached(ctx context.Context, revision int64) error
	// Split cuts a change into steps that can each be written at once, in order.
	Split(Step) ([]Step, error)
	// Commit writes a step, all or nothing, if the resources are still those of
	// revision base, and returns the new revision. On ErrConflict the revision
	// is one to wait for before another try.
	Commit(ctx context.Context, base int64, s Step) (revision int64, err error)
}

// Step is what is written at once.
type Step struct {
	Put    []*policyv1.Resource
	Remove []policy.Key
	// Audit is written with it. Split leaves it empty.
	Audit audit.Entry
}

// DataPlanes is the ledger of what data planes were sent and confirmed.
type DataPlanes interface {
	// List returns those of one service, or all; and the published revision.
	List(service string) ([]*adminv1.DataPlane, int64)
	// Config returns what a node was sent, secrets redacted, or ErrUnknown.
	Config(node string) (*adminv1.GetDataPlaneConfigResponse, error)
	// Progress says how far a revision has come; Done is set when the data
	// planes of all services that it touched, and of those named, have it. With
	// only it is about those named and no others. The channel is closed when the
	// answer may differ.
	Progress(revision int64, services []string, only bool) (*adminv1.WaitInSyncResponse, <-chan struct{})
	// Receipt says of the same data planes who has the revision, each with the time,
	// and of whom it is not known.
	Receipt(revision int64, services []string, only bool) (confirmed []*adminv1.Confirmed, unknown []*adminv1.Wait)
}

// Preview looks ahead at a change. It is asked only about a state without other
// faults.
type Preview interface {
	// Concerns returns the services that any of the resources is about, in
	// either state.
	Concerns(before, after policy.State, resources []policy.Key) []string
	// Faults finds what data planes could not enforce if after became the state.
	Faults(before, after policy.State, changed []policy.Key) []policy.Fault
}

// Issuer is the built-in security token service.
type Issuer interface {
	// CreateClientSecret returns the client id and the secret. The entry is written
	// with the secret, which becomes its subject. ErrUnknown says that the service is
	// gone, ErrConflict that the resources have changed since revision judged, by
	// which the actor may make it, and nothing was made.
	CreateClientSecret(ctx context.Context, service string, judged int64, e audit.Entry) (id, secret string, err error)
	// IssueToken issues what the token endpoint would, once the entry is written. A
	// *Refusal is the caller's fault.
	IssueToken(ctx context.Context, req *adminv1.IssueTokenRequest, e audit.Entry) (*adminv1.IssueTokenResponse, error)
}

// KeySets knows the key sets that the control plane fetches.
type KeySets interface {
	// Status of the set of an Issuer; nil if its keys are not fetched.
	Status(issuer string) *adminv1.KeySetStatus
}

// Refusal is an answer of the issuer that the caller can act on.
type Refusal struct {
	Code, Description string
}

func (r *Refusal) Error() string { return r.Code + ": " + r.Description }

// Config is what a Server needs.
type Config struct {
	Configuration Configuration
	DataPlanes    DataPlanes
	Issuer        Issuer
	Preview       Preview
	KeySets       KeySets
	Refusals      Refusals
	Explainer     Explainer
	// These may be nil, as far as calls of them then are UNIMPLEMENTED.
	Enrolments  Enrolments
	Revocations Revocations
	Secrets     Secrets
	AuditLog    AuditLog
	KEK         KEK
	SigningKeys SigningKeys
	AdminTokens AdminTokens
	Diagnosis   Diagnosis
	// Identify says who makes a request, before its body is read. An error refuses
	// it; the caller is told of an access.Unproven, and of no other. nil refuses
	// every call.
	Identify func(*http.Request) (access.Actor, error)
	// Refused is told of each attempt that was refused, also those of strangers, so
	// that it must be cheap. nil is told nothing.
	Refused func(audit.Entry)
	// NewUID gives a new resource, consumer or credential its identity.
	NewUID func() string
	// NewSecret returns a new shared secret, letters and digits.
	NewSecret func(length int) string
	// Logger; nil is silent.
	Logger hclog.Logger
}

// Server answers admin calls.
type Server struct {
	adminv1.UnimplementedAdminServiceServer
	Config
	written written
	mounted map[string]http.Handler
	load    load
	// inside are the actors of JSON calls on their way to the gRPC side.
	inside handles
	// writing lets one change be planned and written at a time. Others would
	// only plan in vain; what guards the data is the fence of Commit.
	writing sync.Mutex
}

// Mount serves another API below a prefix, such as "/kong/", to callers who are
// known: their actor is in the context of the request. It comes before Handler.
func (s *Server) Mount(prefix string, h http.Handler) {
	if s.mounted == nil {
		s.mounted = map[string]http.Handler{}
	}
	s.mounted[prefix] = http.StripPrefix(strings.TrimSuffix(prefix, "/"), h)
}

// New returns a Server.
func New(c Config) *Server {
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Refused == nil {
		c.Refused = func(audit.Entry) {}
	}
	if c.Identify == nil {
		c.Identify = func(*http.Request) (access.Actor, error) { return access.Actor{}, access.NoCredential }
	}
	return &Server{Config: c, load: newLoad()}
}
