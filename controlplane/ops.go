package controlplane

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/watchword-mesh/watchword/issuer/sts"
)

// opsHandler serves what machines look at: /livez says that the process
// answers, /readyz that it can be used, /metrics what it counts.
func (r *replica) opsHandler() http.Handler {
	r.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	ready := &readiness{ping: r.store.Ping, now: time.Now, log: r.Logger}
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if ready.ask() != nil {
			answer(w, http.StatusServiceUnavailable, "etcd does not answer")
			return
		}
		if _, ok := r.members.holds(); !ok {
			answer(w, http.StatusServiceUnavailable, "no place among the replicas in etcd")
			return
		}
		answer(w, http.StatusOK, "ok")
	})
	r.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "watchword_unreadable_records_total", Help: "Records of etcd that could not be read, so that the last good version stayed in force.",
	}, func() float64 { return float64(r.store.Unreadable()) }))
	// etcd's own metrics are in the default registry.
	all := prometheus.Gatherers{r.registry, withoutProcess{prometheus.DefaultGatherer}}
	mux.Handle("GET /metrics", promhttp.HandlerFor(all, promhttp.HandlerOpts{MaxRequestsInFlight: maxScrapes}))
	return mux
}

// maxScrapes is how many readers of /metrics are answered at the same time: each
// costs milliseconds, and nobody has to prove anything for it.
const maxScrapes = 4

// readyFor is how long an answer about etcd is given again. However often anybody
// asks, etcd is asked once in that time, and the log has one line.
const readyFor = time.Second

// readiness knows whether etcd answers.
type readiness struct {
	ping func(context.Context) error
	now  func() time.Time
	log  hclog.Logger

	mu    sync.Mutex // held while etcd is asked: others wait for the answer
	asked time.Time
	err   error
}

func (r *readiness) ask() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now := r.now(); !r.asked.IsZero() && now.Sub(r.asked) < readyFor {
		return r.err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if r.err = r.ping(ctx); r.err != nil {
		r.log.Warn("not ready", "error", r.err)
	}
	r.asked = r.now()
	return r.err
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n"))
}

// auditTokens logs each token request, issued or refused, and at debug alone: a
// line for each token would be on the way of each, and metrics count them.
func (r *replica) auditTokens() func(sts.Entry) {
	log := r.Logger.Named("audit")
	return func(e sts.Entry) {
		if log.IsDebug() {
			log.Debug("token request", "entry", e)
		}
	}
}
