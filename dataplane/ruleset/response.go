package ruleset

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/watchword-mesh/watchword/dataplane/reason"
)

// The codes of gRPC for the two statuses that a reason has.
const (
	grpcPermissionDenied = 7
	grpcUnauthenticated  = 16
	grpcUnavailable      = 14
)

// response is what refusals look like, for some reasons or (without any) for all.
type response struct {
	reasons           []string
	status            int
	body, contentType string
}

// refuse ends the evaluation. Before a route is known the answer is the default.
func (e *evaluation) refuse(word reason.Word, rule string) {
	d := &e.out
	d.Reason, d.Rule = word, rule
	own := e.response(word)
	d.Status, d.Body, d.ContentType = word.Status(), word.Body(), "application/json"
	if own.status != 0 {
		d.Status = own.status
	}
	if own.body != "" {
		d.Body, d.ContentType = own.body, own.contentType
	}
	if d.Status == 401 {
		d.WWWAuthenticate = challenge(e.rs.service, word)
	}
	if isGRPC(e.req) {
		d.answerGRPC(own.body)
	}
	if e.rec != nil {
		e.rec.refused(d)
	}
}

func (e *evaluation) response(word reason.Word) response {
	if e.route == nil {
		return response{}
	}
	for _, r := range e.route.responses {
		if len(r.reasons) == 0 || slices.Contains(r.reasons, string(word)) {
			return r
		}
	}
	return response{}
}

// challenge tells a caller to authenticate (RFC 6750 section 3), and never what
// it sent.
func challenge(service string, word reason.Word) string {
	c := fmt.Sprintf("Bearer realm=%q", service)
	if word != reason.TokenMissing {
		c += fmt.Sprintf(", error=\"invalid_token\", error_description=%q", string(word))
	}
	return c
}

// Refuse is the refusal of a request that no ruleset was asked about.
func Refuse(req Request, word reason.Word) Decision {
	d := Decision{Reason: word, Status: word.Status(), Body: word.Body(), ContentType: "application/json"}
	if unavailable := d.Status == 503; isGRPC(req) {
		if d.answerGRPC(""); unavailable {
			d.GRPCStatus = grpcUnavailable
		}
	}
	return d
}

// isGRPC says whether a caller understands only gRPC's own status: gRPC-Web has
// another content type and does not.
func isGRPC(r Request) bool {
	rest, ok := strings.CutPrefix(header(r.Header, "content-type"), "application/grpc")
	return ok && (rest == "" || rest[0] == '+')
}

// answerGRPC gives the refusal the form of gRPC: no body, and a status of its own.
func (d *Decision) answerGRPC(message string) {
	d.GRPCStatus, d.GRPCMessage = grpcPermissionDenied, message
	if d.Status == 401 {
		d.GRPCStatus = grpcUnauthenticated
	}
	if message == "" {
		d.GRPCMessage = string(d.Reason)
	}
	d.Status, d.Body, d.ContentType = 200, "", "application/grpc"
}

// RefusalHeader is the header section of the response to a request that is
// refused; for gRPC with what it has in its trailers. What was only observed is not in
// it, nor is it with Envoy: the caller learns why it was refused.
func (d *Decision) RefusalHeader() []Field {
	grpcStatus := ""
	if d.GRPCStatus != 0 {
		grpcStatus = strconv.Itoa(d.GRPCStatus)
	}
	all := []Field{
		{"content-type", d.ContentType},
		{"grpc-message", d.GRPCMessage},
		{"grpc-status", grpcStatus},
		{"www-authenticate", d.WWWAuthenticate},
		{reason.Header, string(d.Reason)},
	}
	return slices.DeleteFunc(all, func(f Field) bool { return f.Value == "" })
}
