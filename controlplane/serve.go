package controlplane

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/watchword-mesh/watchword/controlplane/transport"
	"github.com/watchword-mesh/watchword/controlplane/xds"
)

// serve runs everything until the first fault or the end of ctx.
func (r *replica) serve(ctx context.Context, l *listeners) error {
	if err := l.openAdminSocket(r.Config); err != nil {
		return err
	}
	admin, stopAdmin, err := r.api.Handler()
	if err != nil {
		return err
	}
	defer stopAdmin()
	g, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, r.kek.end)()
	limits := r.limits()
	g.Go(func() error { return r.loop.run(ctx) })
	g.Go(func() error { return r.store.Watch(ctx, r.loop.current.Load(), r.loop.mailbox.put) })
	g.Go(func() error { return r.fetcher.Run(ctx) })
	g.Go(func() error { return r.members.keep(ctx) })
	g.Go(func() error { return r.store.WatchCluster(ctx, r.cluster.see) })
	g.Go(func() error { return r.records.run(ctx) })
	g.Go(func() error { return r.members.leadership(ctx, r.lead) })
	g.Go(func() error { return r.sweep(ctx) })
	g.Go(func() error { r.refused.Run(ctx); return nil })
	context.AfterFunc(ctx, func() { now := time.Now(); r.stopping.Store(&now) })
	r.serveADS(ctx, g, transport.Limit(l.xds, limits.xds, r.full("ads")), limits.xds)
	logger := r.Logger.Named("http")
	serveHTTP(ctx, g, logger, admin, 0, l.admin.guarded(limits.admin, r.doors.admin(), r.full("admin")), transport.Limit(l.socket, limits.socket, r.full("admin_socket")))
	serveHTTP(ctx, g, logger, r.sts.Handler(), answerTimeout, l.sts.guarded(limits.sts, r.doors.public(), r.full("sts")))
	serveHTTP(ctx, g, logger, r.opsHandler(), answerTimeout, l.ops.guarded(limits.ops, r.doors.public(), r.full("ops")))
	r.announce(l)
	err = g.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}

// serveADS serves data planes, and those that are to become some, until ctx ends.
func (r *replica) serveADS(ctx context.Context, g *errgroup.Group, l net.Listener, limits transport.Limits) {
	gate := newGate(identities{loop: r.loop}, limits, r.registry, r.full("ads_peer"))
	ads := grpc.NewServer(append(xds.ServerOptions(), grpc.Creds(gate.credentials(r.doors.dataPlanes())), grpc.StreamInterceptor(gate.stream), grpc.ConnectionTimeout(headerTimeout))...)
	gated := transport.UnreadUnary(ads, gate.stream)
	r.xds.Register(gated)
	r.refusals.Register(gated)
	r.enrol.Register(gated)
	g.Go(func() error {
		if err := ads.Serve(l); !errors.Is(err, grpc.ErrServerStopped) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		r.xds.Close()
		ads.Stop()
		r.refusals.Wait()
		return nil
	})
}
