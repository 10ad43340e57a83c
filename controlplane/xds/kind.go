package xds

import (
	"strings"
	"unicode"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/prometheus/client_golang/prometheus"
)

// wildcardName subscribes to all resources of a type.
const wildcardName = "*"

// kind is what the server knows about one type of resource.
type kind struct {
	typeURL string
	// batch: several resources may share a response. Envoy waits for the first
	// response only, so the types that it subscribes to by wildcard need it. All
	// others go one by one: after a refused response with several, Envoy enforces
	// the good ones but may claim their old versions when it reconnects.
	batch bool
	// request stands for the request of a response; it has the type only.
	request *discovery.DeltaDiscoveryRequest

	pushes, acks, nacks prometheus.Counter
}

// Type URLs of what Go data planes ask for: messages of watchword.dataplane.v1. All
// but the last are named by the service, that is "mesh.lease".
const (
	RulesetType     = "type.googleapis.com/watchword.dataplane.v1.Ruleset"
	RevocationsType = "type.googleapis.com/watchword.dataplane.v1.Revocations"
	OutboundType    = "type.googleapis.com/watchword.dataplane.v1.Outbound"
	LeaseType       = "type.googleapis.com/watchword.dataplane.v1.Lease"
)

// labels are the values of the metrics' label "type". What strangers ask for
// must not make new ones.
var labels = map[string]string{
	resource.ClusterType:         "cds",
	resource.EndpointType:        "eds",
	resource.ListenerType:        "lds",
	resource.RouteType:           "rds",
	resource.SecretType:          "sds",
	resource.ExtensionConfigType: "ecds",
	RulesetType:                  "ruleset",
	RevocationsType:              "revocations",
	OutboundType:                 "outbound",
	LeaseType:                    "lease",
}

const otherLabel = "other"

func newKind(typeURL string, m *metrics) *kind {
	label := labels[typeURL]
	if label == "" {
		label = otherLabel
	}
	return &kind{
		typeURL: typeURL,
		batch:   typeURL == resource.ClusterType || typeURL == resource.ListenerType,
		request: &discovery.DeltaDiscoveryRequest{TypeUrl: typeURL},
		pushes:  m.pushes.WithLabelValues(label),
		acks:    m.acks.WithLabelValues(label),
		nacks:   m.nacks.WithLabelValues(label),
	}
}

// kind of a type URL; those that Envoy asks for are shared by all streams.
func (s *Server) kind(typeURL string) *kind {
	if k := s.kinds[typeURL]; k != nil {
		return k
	}
	return newKind(typeURL, s.metrics)
}

const (
	// maxRefusal bounds what is kept of a NACK's text, in bytes.
	maxRefusal = 1 << 10
	// maxLabel bounds what is kept of a data plane's name for itself, in bytes.
	maxLabel = 256
)

// printable is the reason in a NACK.
func printable(text string) string { return tame(text, maxRefusal, "no reason given") }

// label is what a data plane calls itself.
func label(text, otherwise string) string { return tame(text, maxLabel, otherwise) }

// tame makes a data plane's own words fit for a log line and a table: no control
// characters, at most some bytes, and something else if nothing is left.
func tame(text string, most int, otherwise string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case r == unicode.ReplacementChar || !unicode.IsPrint(r):
			return -1
		}
		return r
	}, text[:min(len(text), 8*most)])
	for len(text) > most {
		text = strings.ToValidUTF8(text[:most], "")
	}
	if text = strings.TrimSpace(text); text == "" {
		return otherwise
	}
	return text
}
