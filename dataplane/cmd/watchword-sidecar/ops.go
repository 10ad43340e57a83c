package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// ops serves what probes and Prometheus ask for.
type ops struct {
	server http.Server
	served chan error
}

// openOps is not ready from the moment at which ctx has ended, so that no new callers
// come while requests drain.
func (s *sidecar) openOps(ctx context.Context) (*ops, error) {
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		switch {
		case ctx.Err() != nil:
			http.Error(w, "draining", http.StatusServiceUnavailable)
		case !s.plane.Serving():
			http.Error(w, "there is no ruleset in force, or no lease", http.StatusServiceUnavailable)
		case !s.listening():
			http.Error(w, "a listener is not open, or it is not known yet who may be called", http.StatusServiceUnavailable)
		default:
			_, _ = fmt.Fprintln(w, "ok")
		}
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{}))
	l, err := listen(s.flags.opsListen)
	if err != nil {
		return nil, fmt.Errorf("listener for health and metrics: %w", err)
	}
	s.log.Info("listening", "for", "health and metrics", "address", s.flags.opsListen)
	o := &ops{served: make(chan error, 1), server: http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second, MaxHeaderBytes: 16 << 10,
	}}
	go func() { o.served <- o.server.Serve(l) }()
	return o, nil
}

func (o *ops) close() {
	_ = o.server.Close()
	<-o.served
}

// listening tells whether every listener that should be there is open, and knows whom
// it may call.
func (s *sidecar) listening() bool {
	l, _ := s.plane.Listeners()
	for name, want := range map[string]string{"inbound": s.inbound(l).Address, "outbound": s.outbound(l)} {
		if at, _ := s.open.Load(name); want != "" && at != want {
			return false
		}
	}
	now, cancel := context.WithCancel(context.Background())
	cancel()
	return s.plane.Ready(now) == nil
}
