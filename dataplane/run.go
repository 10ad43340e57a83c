package dataplane

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/watchword-mesh/watchword/dataplane/enrolment"
	"github.com/watchword-mesh/watchword/dataplane/tokens"
	"github.com/watchword-mesh/watchword/dataplane/xdsclient"
)

// run enrols, and then keeps the certificate and the configuration as they should be,
// until ctx ends.
func (d *DataPlane) run(ctx context.Context) error {
	c := d.config
	instance, err := enrolment.Enrol(ctx, enrolment.Config{
		Addresses: c.Addresses, Service: c.Service, Node: c.Node, Credential: c.Credential,
		KeyFile: c.KeyFile, Logger: c.Logger.Named("enrolment"), Now: c.Now,
	})
	if errors.Is(err, enrolment.ErrDenied) {
		d.resources.forget()
	}
	if err != nil {
		return err
	}
	source, err := tokens.New(tokens.Config{
		TokenURL: c.TokenURL, Issuer: instance.Issuer(), Assertion: instance.Assertion, Authorities: instance.Authorities,
		Logger: c.Logger.Named("tokens"), Registerer: c.Registerer, Now: c.Now,
	})
	if err != nil {
		return fmt.Errorf("getting tokens of %s: %w", instance.Issuer(), err)
	}
	d.outbound.start(source)
	d.instance = instance
	close(d.identity)

	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return instance.Run(ctx) })
	g.Go(func() error {
		return xdsclient.Run(ctx, xdsclient.Config{
			Addresses: c.Addresses, TLS: instance.TLSConfig(), Node: c.Node, Service: c.Service, Agent: c.Agent,
			Subscriptions: d.resources.subscriptions(), Handler: d.resources,
			Logger: c.Logger.Named("ads"), Registerer: c.Registerer, Now: c.Now,
		})
	})
	return g.Wait()
}

// markReady is called when a ruleset has come, and when it is known who may be called.
func (d *DataPlane) markReady() {
	if d.guard.inForce.Load() == nil || d.callees.Load() == nil {
		return
	}
	select {
	case <-d.ready:
	default:
		d.config.Logger.Info("ready: the first ruleset is in force", "service", d.config.Service)
		close(d.ready)
	}
}
