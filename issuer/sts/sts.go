// Package sts is the security token service: the HTTP side of the built-in
// issuer.
//
// It answers from one immutable [State] that the control plane swaps whole, so
// a request sees one moment of the mesh, and costs one signature and no call
// to anything else. Two ways lead to a token, the token endpoint and
// [Server.Issue], and both end in the same steps: may this service have a
// token for this audience, with this scope? Then sign, then an audit entry,
// then the answer.
//
// The endpoint owns those steps; a grant adds only what is its own (see
// grant.go), so that a new grant can't forget one. A route likewise is a
// value, and one place enforces its method and its largest body (route.go).
//
// A token is always for exactly one audience, and only for one that the
// service's calls name. A refused audience is refused in the same words
// whether it exists or not.
package sts

import (
	"net/http"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-mesh/watchword/internal/failures"
	"github.com/watchword-mesh/watchword/internal/jose"
	"github.com/watchword-mesh/watchword/issuer/clientauth"
	"github.com/watchword-mesh/watchword/issuer/keyset"
)

// DefaultLifetime is how long a token is valid unless the State says otherwise.
const DefaultLifetime = 5 * time.Minute

// State is what the service needs to know in order to answer. It must not
// change once it was given to [Server.SetState].
type State struct {
	// Issuer is the `iss` of tokens, a URL without query and fragment. The
	// metadata builds the endpoints' URLs from it; if it has a path, the
	// handler also answers below that path.
	Issuer string
	// TrustDomain is the SPIFFE trust domain of subjects.
	TrustDomain string
	// Lifetime of tokens, in whole seconds; 0 means DefaultLifetime.
	Lifetime time.Duration
	Keys     *keyset.Set
	// Services by name. Nobody else gets a token.
	Services map[string]Service
	// Secrets by service name. Those of a service that isn't there don't count.
	Secrets map[string][]clientauth.Secret
}

// Service is what a service may ask for.
type Service struct {
	// Calls has the audiences it may have tokens for, each with the scopes
	// that such a token may carry.
	Calls map[string][]string
}

// Instances knows the keys that are enrolled. It changes more often than the
// State, so it is asked, on every request that is signed by such a key, and
// answers from memory. It is called concurrently.
type Instances interface {
	// InstanceKey gives the key of an instance, with the instance as its ID;
	// false if it isn't enrolled, or no more.
	InstanceKey(service, instance string) (jose.Key, bool)
}

// Config is what a Server is made of.
type Config struct {
	// Logger: nil means none. Requests are logged at debug, faults of ours at
	// error.
	Logger hclog.Logger
	// Registerer takes the metrics; nil means that they are not published.
	Registerer prometheus.Registerer
	// Pepper is the one the client secrets were made with. Without it no
	// client can authenticate; Issue works.
	Pepper []byte
	// Instances: nil means that none is enrolled.
	Instances Instances
	// Revoker: nil means that clients can't revoke their tokens, and the metadata does not
	// name an endpoint for it.
	Revoker Revoker
	// Rate is how many tokens a second one client secret, or one instance, may have
	// of this process; ten times as many at once. 0 means DefaultRate.
	Rate int
	// MaySign says whether this process may sign now: one that has heard of no change
	// for long signs with keys that may be gone elsewhere. nil means always.
	MaySign func() bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Audit is given each entry before the answer goes out. It is on the way
	// of every request and called concurrently: it should hand the entry on
	// and return. nil means that there is no audit.
	Audit func(Entry)
}

// Server is the security token service.
type Server struct {
	log       hclog.Logger
	pepper    []byte
	instances Instances
	revoker   Revoker
	// replays outlive each State.
	replays *clientauth.Replays
	now     func() time.Time
	maySign func() bool
	audit   func(Entry)
	metrics *metrics
	routes  map[string]route

	// signing has a place for each signature that is being made.
	signing  chan struct{}
	load     *load
	failures *failures.Counter

	view atomic.Pointer[view]
}

// New makes a Server. It refuses all requests until [Server.SetState].
func New(c Config) *Server {
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Audit == nil {
		c.Audit = func(Entry) {}
	}
	s := &Server{
		log:       c.Logger,
		pepper:    c.Pepper,
		instances: c.Instances,
		revoker:   c.Revoker,
		replays:   clientauth.NewReplays(),
		now:       c.Now,
		maySign:   c.MaySign,
		audit:     c.Audit,
		metrics:   newMetrics(c.Registerer),
		// Signing is pure computation: more at once than there are cores only
		// makes each one slower. Twice as many keeps the cores busy.
		signing:  make(chan struct{}, 2*runtime.GOMAXPROCS(0)),
		load:     newLoad(c.Rate, 2*runtime.GOMAXPROCS(0)),
		failures: failures.New(),
	}
	s.routes = byPath(s.endpoints())
	return s
}

// SetState makes the Server answer from st, starting with the next request.
// Without a state (nil) or without keys in it the answer is 503.
func (s *Server) SetState(st *State) {
	if st == nil || st.Keys == nil {
		s.view.Store(nil)
		return
	}
	s.view.Store(s.newView(st))
}

// VerifyAssertion tells which instance of which service made a client assertion
// for this issuer (RFC 7523 section 3), as the token endpoint would, and uses it
// up: it is good once, here or there. The error is for operators, and holds
// nothing of the assertion.
func (s *Server) VerifyAssertion(assertion string) (service, instance string, err error) {
	v := s.view.Load()
	if v == nil {
		return "", "", notReady()
	}
	found, err := v.auth.VerifyAssertion(assertion)
	if err != nil {
		return "", "", err
	}
	return found.Service, found.Instance, nil
}

// Handler serves
//
//	POST /token                                     RFC 6749 section 3.2
//	POST /revoke                                    RFC 7009 section 2, with a Revoker
//	GET  /jwks, /.well-known/jwks.json              RFC 7517 section 5
//	GET  /.well-known/oauth-authorization-server    RFC 8414
//	GET  /.well-known/openid-configuration          the same document
//
// An issuer with a path, https://example.com/mesh, is served below its path as
// well (/mesh/token), and its metadata also where RFC 8414 section 3.1 inserts
// the well-known part (/.well-known/oauth-authorization-server/mesh), so it
// doesn't matter whether a proxy in front strips the path.
//
// The address that failed requests are counted by is that of the connection;
// X-Forwarded-For is what a stranger says and is not read.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serve) }
