package accesslog

import (
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	logsdatav1 "go.opentelemetry.io/proto/otlp/logs/v1"

	"github.com/watchword-mesh/watchword/controlplane/envoy"
	"github.com/watchword-mesh/watchword/dataplane/reason"
)

// Other stands for the services and reasons that are not told apart.
const Other = "(other)"

// maxText is how long a text from elsewhere may be, in bytes.
const maxText = 256

type record = logsdatav1.LogRecord

// Refusal is one request that was refused, or would have been.
type Refusal struct {
	Time    time.Time
	Service string
	Node    string
	// Peer is the IP address of the client.
	Peer string
	// Route is the name of the route in the policies, "" for requests of no named
	// one, or an id if the name is not known.
	Route  string
	Method string
	// Path without the query.
	Path string
	// Status that the client got, 0 if there is none.
	Status int
	Caller Caller
	// Reason is one of package reason, or Other.
	Reason reason.Word
	// Rule is POLICY/INDEX of the authorization rule that refused, if one did.
	Rule string
	// Observed says that the request was let through.
	Observed bool
}

// Caller is who made a request. The zero value is nobody that is known: the
// request had no token that could be verified. All text is the caller's own.
type Caller struct {
	Consumer, Issuer, Subject string
	// Other are all callers that are not told apart.
	Other bool
}

// refusals are what a record tells: one that was enforced, one that was only
// observed, both, or nothing.
func (s *Server) refusals(from sender, rec *record, now time.Time) []Refusal {
	is := texts(rec.GetAttributes())
	o, ok := envoy.Outcome(envoy.Reported(is))
	if !ok {
		return nil
	}
	r := Refusal{
		Time:    startTime(rec, now),
		Service: from.service,
		Node:    from.node,
		Peer:    clean(is[envoy.ReportedPeer]),
		Route:   s.route(from.service, o.RouteID),
		Method:  clean(is[envoy.ReportedMethod]),
		Path:    path(is[envoy.ReportedPath]),
		Status:  httpStatus(is[envoy.ReportedStatus]),
		Caller:  Caller{Consumer: clean(o.Consumer), Issuer: clean(o.Issuer), Subject: clean(o.Subject)},
	}
	var out []Refusal
	if o.Reason != "" {
		r.Reason, r.Rule = word(o.Reason), clean(o.Rule)
		out = append(out, r)
	}
	if o.Observed != "" {
		r.Reason, r.Rule, r.Observed = word(o.Observed), clean(o.ObservedRule), true
		out = append(out, r)
	}
	return out
}

// texts are the attributes that are text, the last of a name.
func texts(attributes []*commonv1.KeyValue) map[string]string {
	out := make(map[string]string, len(attributes))
	for _, a := range attributes {
		out[a.GetKey()] = a.GetValue().GetStringValue()
	}
	return out
}

func (s *Server) route(service, id string) string {
	if name, ok := s.RouteName(service, id); ok {
		return name
	}
	return clean(id)
}

// startTime is when Envoy got the request, or now if that can't be.
func startTime(rec *record, now time.Time) time.Time {
	if rec.GetTimeUnixNano() > math.MaxInt64 {
		return now
	}
	t := time.Unix(0, int64(rec.GetTimeUnixNano())).UTC()
	if t.After(now) || t.Before(now.Add(-24*time.Hour)) {
		return now
	}
	return t
}

// word keeps the number of reasons bounded.
func word(w reason.Word) reason.Word {
	if reason.Known(w) {
		return w
	}
	return Other
}

func httpStatus(s string) int {
	n, err := strconv.ParseUint(s, 10, 10)
	if err != nil {
		return 0
	}
	return int(n)
}

// path drops a query, which Envoy has dropped before, and what a client has
// made a part of the path that should have been one.
func path(s string) string {
	if i := strings.IndexAny(s, "?#;"); i >= 0 {
		s = s[:i]
	}
	return clean(s)
}

// clean bounds a text, and cuts out what may be a token. The result shares no
// memory with the text, which may be much longer.
func clean(s string) string {
	// Before it is cut to length: the half of a token may be enough to know whose
	// it is, but not enough to be known as one.
	s = redact(strings.ToValidUTF8(s, "\ufffd"))
	if len(s) > maxText {
		end := maxText
		for !utf8.RuneStart(s[end]) {
			end--
		}
		s = s[:end]
	}
	return strings.Clone(s)
}
