// Package dataplane protects a Go service, and lets it call others, without a proxy.
//
// [Open] enrols the process as an instance of its service and keeps a stream to the
// control plane open. What arrives there is in force at once:
//
//	the ruleset    [DataPlane.Middleware], [DataPlane.UnaryInterceptor] and
//	               [DataPlane.StreamInterceptor] let through what it allows, and give
//	               the handler the [Caller] by [FromContext]
//	the outbound   [DataPlane.Transport], [DataPlane.GRPC] and
//	               [DataPlane.Token] attach tokens for the services that may be called
//
// The verdict on a request is Envoy's, for the same reason, or stricter where Envoy is
// laxer than the RFCs; package ruleset lists where.
//
// While the control plane is away, all goes on with what is in force. Before there
// was a ruleset, everything is refused; with Config.File the last one is in force
// from the start.
package dataplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-mesh/watchword/dataplane/enrolment"
	"github.com/watchword-mesh/watchword/dataplane/lastgood"
	"github.com/watchword-mesh/watchword/dataplane/tokens"
	"github.com/watchword-mesh/watchword/dataplane/xdsclient"
)

// Config says which service this is, and where its control plane is.
type Config struct {
	// Addresses of the control plane's ADS listener, HOST:PORT; compulsory. After a
	// failure the next one is tried.
	Addresses []string
	// Service that the process is an instance of; compulsory.
	Service string
	// Credential proves that the first time. nil: KeyFile must hold an enrolled key.
	Credential enrolment.Credential
	// KeyFile keeps the key of the instance over restarts; empty: in memory alone.
	KeyFile string
	// Node is the name in status. Default: the host's name, and the process.
	Node string
	// Agent is what kind of data plane status shows. Default: watchword-go.
	Agent string

	// File keeps the last accepted configuration, for a start without control plane;
	// empty: such a start refuses everything until the control plane is there. It is
	// made with mode 0600.
	File string
	// FileSecrets keeps shared secrets (HMAC) in File, too. Without it, what they
	// would verify is refused after such a start.
	FileSecrets bool

	// KeepPaths leaves the paths of requests as they are. Where a policy looks at
	// paths, one that can be read in two ways is then refused, as by an Envoy that
	// somebody else owns.
	KeepPaths bool
	// MaxFormBytes is the largest form that is read for a token or for claims;
	// larger ones are refused. 0 means 1 MiB.
	MaxFormBytes int64
	// MemoBytes is about how much memory verified tokens may take; 0 means 16 MiB,
	// and -1 none.
	MemoBytes int
	// TokenURL is the token endpoint. Default: the one that the issuer names.
	TokenURL string
	// Tokens is where the tokens for others come from, such as a tokens.SelfSigned of
	// a service with spec.selfIssued. nil: the token endpoint.
	Tokens tokens.Tokens

	// Logger: nil means none.
	Logger hclog.Logger
	// Registerer takes the metrics; nil means that they are not published.
	Registerer prometheus.Registerer
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// The agents that status knows.
const (
	AgentLibrary = "watchword-go"
	AgentSidecar = "watchword-sidecar"
)

func (c Config) check() error {
	switch {
	case len(c.Addresses) == 0:
		return errors.New("data plane: there is no address of the control plane")
	case c.Service == "":
		return errors.New("data plane: there is no name of a service")
	case c.Credential == nil && c.KeyFile == "":
		return fmt.Errorf("data plane of service %q: there is neither a credential nor a key file; give a join token", c.Service)
	}
	return nil
}

func (c Config) withDefaults() Config {
	if c.Node == "" {
		c.Node = c.Service
		if host, err := os.Hostname(); err == nil {
			c.Node += "-" + host
		}
		c.Node = fmt.Sprintf("%s-%d", c.Node, os.Getpid())
	}
	if c.Agent == "" {
		c.Agent = AgentLibrary
	}
	if c.MaxFormBytes <= 0 {
		c.MaxFormBytes = 1 << 20
	}
	if c.MemoBytes == 0 {
		c.MemoBytes = 16 << 20
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// DataPlane is one data plane of a service. It is safe for concurrent use.
type DataPlane struct {
	config  Config
	metrics *metrics
	guard   guard
	outbound
	resources *resources
	file      *lastgood.File // nil: none
	listening listening

	cancel  context.CancelCauseFunc
	ctx     context.Context
	running sync.WaitGroup

	ready    chan struct{} // closed when the first ruleset is in force
	failed   chan struct{} // closed when err is set
	err      error
	identity chan struct{} // closed when instance is set
	instance *enrolment.Identity
}

// errClosed is the end that Close makes.
var errClosed = errors.New("the data plane was closed")

// Open starts a data plane. It returns at once, and only an error of the Config or of
// its files is one: that the control plane can't be reached is in the log, and tried
// again. It runs until Close, or until ctx ends.
func Open(ctx context.Context, config Config) (*DataPlane, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	d, err := newDataPlane(ctx, config.withDefaults())
	if err != nil {
		return nil, err
	}
	if err := d.openFile(); err != nil {
		d.Close()
		return nil, fmt.Errorf("data plane of service %q: %w", config.Service, err)
	}
	d.running.Go(func() { d.fail(d.run(d.ctx)) })
	return d, nil
}

func newDataPlane(ctx context.Context, config Config) (*DataPlane, error) {
	d := &DataPlane{
		config: config, ready: make(chan struct{}), failed: make(chan struct{}), identity: make(chan struct{}),
	}
	d.resources = &resources{d: d, held: map[string]xdsclient.Resource{}}
	var err error
	if d.metrics, err = newMetrics(d, config.Registerer); err != nil {
		return nil, fmt.Errorf("data plane of service %q: %w", config.Service, err)
	}
	d.guard.now, d.guard.metrics = config.Now, d.metrics
	if config.MemoBytes > 0 {
		memo, err := newMemo(config.MemoBytes)
		if err != nil {
			return nil, fmt.Errorf("data plane of service %q: %w", config.Service, err)
		}
		d.guard.memo = memo
	}
	d.ctx, d.cancel = context.WithCancelCause(ctx)
	return d, nil
}

// Ready waits until the first ruleset is in force and it is known who may be called,
// until ctx ends, or until it is known that none will come: the control plane refuses
// this instance.
func (d *DataPlane) Ready(ctx context.Context) error {
	select {
	case <-d.ready:
		return nil
	default:
	}
	select {
	case <-d.ready:
		return nil
	case <-d.failed:
		return d.err
	case <-d.ctx.Done():
		return fmt.Errorf("data plane of service %q: %w", d.config.Service, context.Cause(d.ctx))
	case <-ctx.Done():
		return fmt.Errorf("data plane of service %q: waiting for its ruleset: %w", d.config.Service, context.Cause(ctx))
	}
}

// Serving tells whether a ruleset is in force, and any lease that it needs: else
// every request is refused. It is what a readiness probe wants to know.
func (d *DataPlane) Serving() bool {
	_, word := d.guard.ready()
	return word == ""
}

// Close ends the data plane and waits for it: after it every request is refused.
func (d *DataPlane) Close() {
	d.cancel(errClosed)
	d.running.Wait()
	d.guard.close()
	d.outbound.close()
	d.metrics.unregister()
}

// fail says why there will be no more configuration.
func (d *DataPlane) fail(err error) {
	if d.ctx.Err() == nil {
		d.config.Logger.Error("the data plane goes on with what is in force; nothing new will come", "service", d.config.Service, "error", err)
	}
	d.err = fmt.Errorf("data plane of service %q: %w", d.config.Service, err)
	close(d.failed)
}

// Identity is what the process is in the mesh, once it has enrolled: ctx says how
// long to wait.
func (d *DataPlane) Identity(ctx context.Context) (*enrolment.Identity, error) {
	select {
	case <-d.identity:
		return d.instance, nil
	case <-d.failed:
		return nil, d.err
	case <-d.ctx.Done():
		return nil, fmt.Errorf("data plane of service %q: %w", d.config.Service, context.Cause(d.ctx))
	case <-ctx.Done():
		return nil, fmt.Errorf("data plane of service %q: waiting to be enrolled: %w", d.config.Service, context.Cause(ctx))
	}
}

// Enrolled tells whether the process has its identity.
func (d *DataPlane) Enrolled() bool {
	select {
	case <-d.identity:
		return true
	default:
		return false
	}
}
