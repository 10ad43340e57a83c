package controlplane

import (
	"context"
	"net/http"
	"time"

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
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, req *http.Request) {
		ctx, cancel := context.WithTimeout(req.Context(), 2*time.Second)
		defer cancel()
		if err := r.store.Ping(ctx); err != nil {
			r.Logger.Warn("not ready", "error", err)
			answer(w, http.StatusServiceUnavailable, "etcd does not answer")
			return
		}
		answer(w, http.StatusOK, "ok")
	})
	r.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "watchword_unreadable_records_total", Help: "Records of etcd that could not be read, so that the last good version stayed in force.",
	}, func() float64 { return float64(r.store.Unreadable()) }))
	// etcd's own metrics are in the default registry.
	all := prometheus.Gatherers{r.registry, withoutProcess{prometheus.DefaultGatherer}}
	mux.Handle("GET /metrics", promhttp.HandlerFor(all, promhttp.HandlerOpts{}))
	return mux
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text + "\n"))
}

// auditTokens logs what the token service refused; what it issued is counted,
// since a line for each token would be on the way of each.
func (r *replica) auditTokens() func(sts.Entry) {
	log := r.Logger.Named("audit")
	return func(e sts.Entry) {
		if log.IsDebug() {
			log.Debug("token request", "entry", e)
		}
	}
}
