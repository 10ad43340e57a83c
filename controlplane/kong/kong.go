// Package kong is Kong's admin API for consumers and their JWT credentials, so
// that a script written for it works here once it sends a credential.
//
// Entities of Kong are views of Consumer resources: a consumer is one, and a
// credential is an entry of its list. Reads look at the state that is in force.
// A write reads one state, makes the resources that Kong's answer would imply,
// and hands them over with the revision that it has read; if they have changed
// meanwhile it begins anew. What Kong can't express stays as it is.
//
// Statuses, bodies and error forms are those of Kong 3; docs/kong-admin-api.md
// lists where they differ.
package kong

import (
	"context"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Limits of one request. Kong reads as many fields; a public key is some
// hundred bytes.
const (
	maxBodyBytes  = 1 << 20
	maxFields     = 100
	maxPage       = 1000
	defaultPage   = 100
	maxFilterTags = 5
	// attempts is how often a write begins anew after a conflict.
	attempts = 8
)

// Resources is where consumers are kept.
type Resources interface {
	// Current returns the state in force and its revision. The state must not be
	// changed; while no resource is, it should be the same map.
	Current() (policy.State, int64)
	// Change stores and removes resources, all or nothing, in the name of the
	// actor in ctx, and returns once Current has them. A put with a revision holds
	// only while that is the stored one; a put without one creates, and must fail
	// if there is such a resource. Errors are gRPC statuses: InvalidArgument with
	// adminv1.Faults, PermissionDenied, and Aborted or FailedPrecondition for what
	// may succeed when it is tried on the new state.
	Change(ctx context.Context, method string, put []*policyv1.Resource, remove []policy.Key) (*adminv1.ApplyResponse, error)
}

// Config is what the API needs.
type Config struct {
	Resources Resources
	// MayRead says whether the actor in ctx may see consumers; who may not can't
	// change them either, since answers to changes tell what there is. Nil: nobody.
	MayRead func(ctx context.Context) bool
	// MayReadSecrets says whether the actor may see shared secrets that are stored.
	// Nil: nobody.
	MayReadSecrets func(ctx context.Context) bool
	// Refused is told of each request that was refused for want of MayRead; the
	// method is such as "kong GET". Those of Change it is not told of: whoever
	// implements that knows them. Nil is told nothing.
	Refused func(ctx context.Context, method, reason string)
	// SecretIsBase64 is how secrets are read of requests that do not say it by
	// secret_is_base64. In Kong it is a field of the plugin.
	SecretIsBase64 bool
	// NewUID makes the id of a consumer or credential: a UUID.
	NewUID func() string
	// NewSecret makes a key or a shared secret: random letters and digits.
	NewSecret func(length int) string
	Now       func() time.Time
	// Logger; nil is silent.
	Logger hclog.Logger
}

// handler answers requests of Kong's admin API.
type handler struct {
	Config
	// writing is held by the one write that is under way: what Kong wants unique
	// is looked up before it is stored.
	writing chan struct{}
	// known is the directory of the newest state that was asked about.
	known atomic.Pointer[directory]
}

// New returns the API with paths as in Kong: /consumers, /jwts. To mount it
// below a prefix, strip that.
func New(c Config) http.Handler {
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Refused == nil {
		c.Refused = func(context.Context, string, string) {}
	}
	return &handler{Config: c, writing: make(chan struct{}, 1)}
}

// directory returns what the current state holds.
func (h *handler) directory() *directory {
	state, _ := h.Resources.Current()
	known := h.known.Load()
	if known.isOf(state) {
		return known
	}
	d := newDirectory(state, known)
	h.known.Store(d)
	return d
}
