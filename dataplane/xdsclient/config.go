// Package xdsclient gets the resources of a Go data plane from the control plane,
// over delta ADS (envoy.service.discovery.v3, DeltaAggregatedResources).
//
// It keeps one stream, to one replica of the control plane, on which it asks for a
// few resources by name. What arrives goes to a [Handler], which puts it in force or
// refuses it; the ACK or NACK says which, so that the control plane knows what is
// enforced here. When the stream ends it comes back, to the next replica, and says
// what it holds, so that only what has changed is sent again.
//
// It keeps no resource itself: what is in force stays so while nobody answers.
package xdsclient

import (
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
)

// Config says who asks whom for what.
type Config struct {
	// Addresses of the control plane's ADS listener, HOST:PORT. The first is tried
	// first, and after each failure the next.
	Addresses []string
	// TLS authenticates both ends, as that of an enrolment.Identity does.
	TLS *tls.Config
	// Node is a label for people, such as the name of the host: node.id.
	Node string
	// Service that the data plane is of: node.cluster. What it may get is up to its
	// certificate.
	Service string
	// Agent is the program: node.user_agent_name.
	Agent string
	// Subscriptions are the resources to ask for.
	Subscriptions []Subscription
	Handler       Handler
	// Logger: nil means none.
	Logger hclog.Logger
	// Registerer for metrics; nil means none.
	Registerer prometheus.Registerer
	// Now is the clock; nil means time.Now. It is called from several goroutines.
	Now func() time.Time
}

// Subscription names one resource.
type Subscription struct {
	// TypeURL is type.googleapis.com/MESSAGE.
	TypeURL string
	Name    string
}

// Resource is one version of a resource.
type Resource struct {
	TypeURL, Name, Version string
	// Body is the message, in protobuf's wire format. It may hold secrets.
	Body []byte
}

// String names the resource, without its body.
func (r Resource) String() string { return fmt.Sprintf("%s %s@%s", r.TypeURL, r.Name, r.Version) }

// GoString is String.
func (r Resource) GoString() string { return r.String() }

// Handler is who enforces. The calls come one after the other, from the goroutine of
// [Run]; while one takes its time, nothing is received.
type Handler interface {
	// Accept puts a resource in force, and is confirmed to the control plane when it
	// has returned nil. After an error what was in force is, still; the error's text
	// goes to the control plane and its log, so that it must hold no secret. A
	// version that is in force already may come again.
	Accept(Resource) error
	// Remove ends what is in force under a name: the control plane has nothing of
	// that name, or no more. An error is as that of Accept.
	Remove(typeURL, name string) error
	// Held gives the versions in force of a type, by name. The control plane is told
	// so at the start of a stream (initial_resource_versions), and takes them for
	// confirmed.
	Held(typeURL string) map[string]string
	// Refused says that the control plane lets this instance have nothing, such as
	// after its revocation: the error is a status with Unauthenticated or
	// PermissionDenied. It is called at each attempt that is refused; Run goes on
	// trying.
	Refused(error)
	// Connected says whether there is a stream. A refused one never counts as one.
	Connected(bool)
}

func (c Config) check() error {
	switch {
	case len(c.Addresses) == 0:
		return errors.New("there is no address of the control plane")
	case c.TLS == nil:
		return errors.New("there is no TLS configuration; give that of the enrolled identity")
	case c.Handler == nil:
		return errors.New("there is no handler")
	case len(c.Subscriptions) == 0:
		return errors.New("there is nothing to subscribe to")
	}
	seen := make(map[Subscription]bool)
	for _, s := range c.Subscriptions {
		switch {
		case s.TypeURL == "" || s.Name == "" || s.Name == "*":
			return fmt.Errorf("subscription to %q of type %q: give the type and the name of one resource", s.Name, s.TypeURL)
		case seen[s]:
			return fmt.Errorf("subscription to %q of type %q: it is there twice", s.Name, s.TypeURL)
		}
		seen[s] = true
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
