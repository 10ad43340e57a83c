package controlplane

import (
	"context"
	"encoding/pem"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/store"
)

// What is kept of the audit, and how often and for how long at most the rest is
// swept out. What strangers can have written down has its own share.
const (
	auditEntries  = 100_000
	auditRefusals = 20_000
	auditAge      = 365 * 24 * time.Hour
	sweepEvery    = 10 * time.Minute
	sweepFor      = 2 * time.Minute
	// refusalsPerMinute bounds what strangers can have written down.
	refusalsPerMinute = 60
	// lastWords is how long a stop may take for those that are not written yet.
	lastWords = 5 * time.Second
)

// sweep removes what has ended: join tokens, instances that have not renewed for
// long, old entries of the audit.
func (r *replica) sweep(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		removed, err := sweepOut(ctx, r.store)
		if err != nil && ctx.Err() == nil {
			r.Logger.Warn("what has ended could not be swept out; trying again later", "error", err)
		} else if removed > 0 {
			r.Logger.Debug("swept out what has ended", "records", removed)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// sweeper is the store, as far as sweepOut needs it.
type sweeper interface {
	Sweep(ctx context.Context, now time.Time, keep store.Retention) (removed int, more bool, err error)
}

// sweepOut sweeps until nothing is left that has ended, or for sweepFor.
func sweepOut(ctx context.Context, s sweeper) (removed int, err error) {
	began := time.Now()
	for more := true; more && err == nil && ctx.Err() == nil && time.Since(began) < sweepFor; {
		var n int
		n, more, err = s.Sweep(ctx, time.Now(), store.Retention{AuditEntries: auditEntries, Refusals: auditRefusals, AuditAge: auditAge})
		removed += n
	}
	return removed, err
}

// noteRefusal writes a refused attempt down.
func (r *replica) noteRefusal(e audit.Entry) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if at := r.stopping.Load(); at != nil && time.Since(*at) > lastWords {
		return // etcd is away, and others wait for the end
	}
	if err := r.store.Record(ctx, e); err != nil {
		r.Logger.Warn("a refused attempt could not be written down", "actor", e.Actor, "source", e.Source, "method", e.Method, "reason", e.Reason, "error", err)
	}
}

// caFile in the data folder has the CA certificates, for clients on this machine.
const caFile = "ca.pem"

// openDoors makes the TLS configurations, and shows the CA to clients here.
func (r *replica) openDoors(l *listeners) error {
	names, err := l.names(r.Config, mesh{loop: r.loop}.Issuer())
	if err != nil {
		return err
	}
	if r.doors, err = newDoors(r.Config, r.loop.authority, names); err != nil {
		return err
	}
	r.diagnosis.doors, r.diagnosis.at = r.doors, l
	var text []byte
	for _, c := range r.loop.authority().Certificates() {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	path := filepath.Join(r.DataDir, caFile)
	if err := os.WriteFile(path+".new", text, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// limits of the listeners, and a word about them if the system allows less than we
// would.
func (r *replica) limits() shares {
	n := descriptors()
	s := sharesOf(n)
	if s.xds.Total < xdsLimits.Total {
		r.Logger.Warn("the limit of open files is too low for all connections that there might be; raise it for a large mesh (ulimit -n, LimitNOFILE)",
			"open_files", n, "data_planes", s.xds.Total, "token_service", s.sts.Total)
	}
	return s
}

func newOverload(r prometheus.Registerer) *prometheus.CounterVec {
	v := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "watchword_connections_refused_total", Help: "Connections beyond the limits of a listener.",
	}, []string{"listener"})
	r.MustRegister(v)
	return v
}

// full counts connections that a listener had no place for.
func (r *replica) full(listener string) func() {
	return r.overload.WithLabelValues(listener).Inc
}
