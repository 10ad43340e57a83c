package controlplane

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// withoutProcess leaves out what both registries have: the Go runtime and the
// process.
type withoutProcess struct{ prometheus.Gatherer }

func (g withoutProcess) Gather() ([]*dto.MetricFamily, error) {
	all, err := g.Gatherer.Gather()
	var out []*dto.MetricFamily
	for _, f := range all {
		if !strings.HasPrefix(f.GetName(), "go_") && !strings.HasPrefix(f.GetName(), "process_") && !strings.HasPrefix(f.GetName(), "promhttp_") {
			out = append(out, f)
		}
	}
	return out, err
}
