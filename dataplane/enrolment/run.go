package enrolment

import (
	"context"
	"math/rand/v2"
	"time"

	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
)

// Run keeps the certificate valid until ctx ends, and then gives its cause. It
// renews when the control plane has said to, and tries again whatever the answer
// is: who is refused now may not be when a mistake has been undone. Once the
// certificate has ended, the key is what it proves itself by, as after a stop. The
// credential is for a start alone: who was revoked does not come back by itself.
func (i *Identity) Run(ctx context.Context) error {
	return run(ctx, i.renewal, i.renew, i.config.Now)
}

// renewal is when to renew next.
func (i *Identity) renewal() time.Time { return i.current.Load().renew }

// run is the times of Run, without what is done at them.
func run(ctx context.Context, renewal func() time.Time, renew func(context.Context, int) error, now func() time.Time) error {
	for failures := 0; ; {
		d := earlier(renewal().Sub(now()))
		if failures > 0 {
			d = backoff(failures - 1)
		}
		if err := wait(ctx, d); err != nil {
			return err
		}
		if err := renew(ctx, failures); err != nil {
			failures++
			continue
		}
		failures = 0
	}
}

// earlier takes up to a tenth off a wait: instances that were started together
// shall not renew together for ever.
func earlier(d time.Duration) time.Duration {
	if d < 10 {
		return max(d, 0)
	}
	return d - rand.N(d/10)
}

// renew asks once for a new certificate, and logs how it went.
func (i *Identity) renew(ctx context.Context, failures int) error {
	last := i.current.Load()
	var g *granted
	var err error
	if last.valid(i.config.Now()) {
		g, err = i.ask(ctx, i.renewCall(last))
	} else {
		g, err = i.enrol(ctx, keyAssertion{i, last})
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		i.log().Error("the certificate is not renewed; trying again", "service", i.config.Service, "instance", i.key.instance,
			"expires", last.leaf.NotAfter, "failures", failures+1, "error", err)
		return err
	}
	i.take(g)
	select {
	case i.changed <- struct{}{}:
	default: // one is waiting already
	}
	i.log().Debug("renewed", "service", g.service, "instance", i.key.instance, "expires", g.leaf.NotAfter)
	return nil
}

func (i *Identity) renewCall(last *granted) call {
	return call{
		trust: last.trust(), client: i.certificate(), now: i.config.Now,
		send: func(ctx context.Context, client enrolmentv1.EnrolmentServiceClient) (*enrolmentv1.Identity, error) {
			resp, err := client.Renew(ctx, &enrolmentv1.RenewRequest{})
			return resp.GetIdentity(), err
		},
	}
}
