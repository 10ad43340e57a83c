package api

import (
	"context"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// Enrolments are the instances of services, and what they enrol with. Each entry
// is written with the change; a join token that was made becomes its subject.
type Enrolments interface {
	// CreateJoinToken returns the text of the token, which is shown once. ErrUnknown
	// says that the service is gone, ErrConflict that the resources have changed since
	// revision t.Judged, and nothing was made.
	CreateJoinToken(ctx context.Context, t NewJoinToken, e audit.Entry) (token string, kept *adminv1.JoinToken, err error)
	// ListJoinTokens lists those of a service, or of all.
	ListJoinTokens(ctx context.Context, service string) ([]*adminv1.JoinToken, error)
	// JoinTokenService is the service of a join token, or ErrUnknown.
	JoinTokenService(ctx context.Context, id string) (string, error)
	// RevokeJoinToken ends a join token; ErrUnknown says that there is none.
	RevokeJoinToken(ctx context.Context, id string, e audit.Entry) error
	// ListInstances lists those of a service, or of all.
	ListInstances(ctx context.Context, service string) ([]*adminv1.Instance, error)
	// RevokeInstances ends the enrolments that are named, or without names all of
	// the service with its join tokens. An instance that is not there is ErrUnknown:
	// then only those of the response are revoked, which are none unless it went
	// away meanwhile. Another error may come after all were revoked, and says so.
	RevokeInstances(ctx context.Context, service string, instances []string, e audit.Entry) (*adminv1.RevokeInstancesResponse, error)
}

// NewJoinToken is a join token to make.
type NewJoinToken struct {
	Service string
	Uses    int32
	TTL     time.Duration
	// CreatedBy is the name of the actor.
	CreatedBy string
	// Judged is the revision of the resources by which the actor may make it.
	Judged int64
}

// Revocations are the tokens that are refused although they verify.
type Revocations interface {
	// Revoke returns when this replica has sent it to its data planes. A request that
	// says nothing that could be revoked is an Invalid, what it names and is not there
	// ErrUnknown, and one that is too much a Precondition. Whoever is revoked becomes
	// the subject of the entry.
	Revoke(ctx context.Context, req *adminv1.RevokeRequest, e audit.Entry) (*adminv1.RevokeResponse, error)
	// ListRevocations lists those that a service enforces, or all.
	ListRevocations(service string) []*adminv1.Revocation
	// Revocation is one by its ID, or ErrUnknown.
	Revocation(id string) (*adminv1.Revocation, error)
	// DeleteRevocation takes one back; ErrUnknown says that there is none.
	DeleteRevocation(ctx context.Context, id string, e audit.Entry) (*adminv1.DeleteRevocationResponse, error)
}

// Invalid is the fault of a request, in words for the caller.
type Invalid string

func (i Invalid) Error() string { return string(i) }

// Secrets are the client secrets of services, without what is secret of them.
type Secrets interface {
	// ListClientSecrets lists those of a service, or of all.
	ListClientSecrets(ctx context.Context, service string) ([]*adminv1.ClientSecret, error)
	// DeleteClientSecret returns when the secret is good no more; ErrUnknown says
	// that there is none.
	DeleteClientSecret(ctx context.Context, service, id string, e audit.Entry) error
}

// AuditLog is what was written down.
type AuditLog interface {
	// ListAudit returns entries, the newest first, and the Before that goes on, which
	// is empty at the end. They may be fewer than the limit although there are more.
	// A Before that is none is audit.ErrNoID.
	ListAudit(ctx context.Context, q AuditQuery) (entries []audit.Entry, next string, err error)
}

// AuditQuery selects entries.
type AuditQuery struct {
	// Limit is how many at most.
	Limit int
	// Before is an ID: only older ones. Empty begins with the newest.
	Before string
	// Actor is a name; empty is all.
	Actor string
	// Refused is only refused attempts.
	Refused bool
}

// Precondition is the fault of something that can't be done before something else:
// what that is, in words for the caller. Nothing was changed.
type Precondition string

func (p Precondition) Error() string { return string(p) }

// KEK is the key-encryption key.
type KEK interface {
	// RotateKEK reads the key anew and seals everything with it. It reports how far
	// it is; the last report has Finished. An error of progress, or the end of ctx,
	// ends the reports, not the work. One that can't begin now is a Precondition.
	RotateKEK(ctx context.Context, e audit.Entry, progress func(*adminv1.RotateKEKResponse) error) error
}

// SigningKeys are the keys of the built-in issuer.
type SigningKeys interface {
	// ListSigningKeys returns them as they are now. The channel is closed when the
	// answer may differ, also by time.
	ListSigningKeys(ctx context.Context) (*adminv1.SigningKeys, <-chan struct{}, error)
	// RotateSigningKey asks for the next key, once for however many ask. One that can't
	// be asked for now is a Precondition.
	RotateSigningKey(ctx context.Context, e audit.Entry) (*adminv1.RotateSigningKeyResponse, error)
	// RevokeSigningKey takes a key out of use, or all if kid is empty. The answer is
	// given once this replica goes by it. ErrUnknown says that there is no such key; to
	// revoke one again changes nothing, and answers as the first time.
	RevokeSigningKey(ctx context.Context, kid string, e audit.Entry) (*adminv1.RevokeSigningKeyResponse, error)
}

// AdminTokens is the admin token of the first start, or a later one.
type AdminTokens interface {
	// RevokeAdminToken returns when the token is good no more, here.
	RevokeAdminToken(ctx context.Context, e audit.Entry) error
	// CreateAdminToken returns the file that holds the new one.
	CreateAdminToken(ctx context.Context, e audit.Entry) (path string, err error)
}

// Diagnosis looks at the control plane's own setup.
type Diagnosis interface {
	// Diagnose returns what it found, what is sound as well.
	Diagnose(ctx context.Context) ([]*adminv1.Finding, error)
}
