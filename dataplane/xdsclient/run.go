package xdsclient

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// steady is how long a stream has lived that is no failure: the next attempt comes
// as soon as after the first one.
const steady = 10 * time.Second

// client is a Run.
type client struct {
	Config
	types    []subscribedType
	metrics  *metrics
	failures failureLog
	// dial makes a connection; tests have their own network.
	dial func(ctx context.Context, address string) (net.Conn, error)
}

// Run keeps a stream to the control plane until ctx ends, and then gives its cause.
// It gives any other error at once, and only if the Config is at fault.
func Run(ctx context.Context, config Config) error {
	c, err := newClient(config)
	if err != nil {
		return fmt.Errorf("connecting to the control plane: %w", err)
	}
	defer c.metrics.unregister()
	return c.run(ctx)
}

func newClient(config Config) (*client, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	c := &client{Config: config.withDefaults(), dial: dialTCP}
	c.types = subscribedTypes(c.Subscriptions)
	c.failures = failureLog{log: c.Logger, now: c.Now, last: make(map[string]failure)}
	var err error
	c.metrics, err = newMetrics(c)
	return c, err
}

func (c *client) run(ctx context.Context) error {
	failures := 0
	for attempt := 0; ; attempt++ {
		address := c.Addresses[attempt%len(c.Addresses)]
		lived, err := c.stream(ctx, address)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		c.failures.report(address, err)
		if code := status.Code(err); code == codes.Unauthenticated || code == codes.PermissionDenied {
			c.Handler.Refused(err)
		}
		if lived >= steady {
			failures = 0
		}
		if err := wait(ctx, backoff(failures)); err != nil {
			return err
		}
		failures++
	}
}
