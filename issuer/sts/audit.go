package sts

import (
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/watchword-mesh/watchword/internal/jointoken"
	"github.com/watchword-mesh/watchword/issuer/clientauth"
)

// Outcome is how a request for a token ended.
type Outcome string

// The outcomes.
const (
	Issued  Outcome = "issued"
	Refused Outcome = "refused"
)

// Entry is one record for the audit: a token was issued, or refused. It never
// holds a token or a secret.
type Entry struct {
	Time    time.Time
	Outcome Outcome
	// Service that asked. Refused for lack of authentication: the name that it
	// gave, if that looks like one.
	Service string
	// Credential is the ID of the client secret that was used, or
	// "instance/ID" of the instance that has proved that it is that.
	Credential string
	// Audience and Scope: of the token, or as asked for.
	Audience string
	Scope    string
	// ID is the `jti` of the token.
	ID string
	// Code (RFC 6749 section 5.2) and Reason, for operators, of a refusal.
	Code   string
	Reason string
	// Source is the address that the request came from, without port; empty if
	// it came through the admin API.
	Source string
}

// issued counts and records a token.
func (s *Server) issued(e Entry) {
	e.Time, e.Outcome = s.now().UTC(), Issued
	s.metrics.issued.Inc()
	s.audit(e)
	if s.log.IsDebug() {
		s.log.Debug("token issued", "service", e.Service, "audience", e.Audience, "scope", e.Scope, "jti", e.ID, "source", e.Source)
	}
}

// refused counts and records a refusal, and returns it.
func (s *Server) refused(e Entry, err *Error) *Error {
	e = s.recorded(e, err)
	if err.Status == http.StatusInternalServerError {
		s.log.Error("token not issued", "service", e.Service, "audience", e.Audience, "reason", e.Reason)
	} else if s.log.IsDebug() {
		s.log.Debug("token refused", "service", e.Service, "audience", e.Audience, "code", e.Code, "reason", e.Reason, "source", e.Source)
	}
	return err
}

func (s *Server) recorded(e Entry, err *Error) Entry {
	s.metrics.refused.WithLabelValues(err.Code).Inc()
	e.Time, e.Outcome, e.Code, e.Reason = s.now().UTC(), Refused, err.Code, err.reason()
	s.audit(e)
	return e
}

// refuseStranger is refused for a request that nobody authenticated. Each
// source may have so many of those; then it hears 429, and the audit, which
// has said what goes on, isn't filled with more of it.
func (s *Server) refuseStranger(e Entry, err *Error) *Error {
	wait, first := s.failures.Add(e.Source, s.now())
	if wait == 0 {
		s.warn(s.recorded(e, err))
		return err
	}
	limited := &Error{
		Code: CodeUnavailable, Status: http.StatusTooManyRequests, RetryAfter: wait,
		Description: "too many failed requests from this address; check the client credentials",
		Err:         err,
	}
	if !first {
		s.metrics.refused.WithLabelValues(limited.Code).Inc()
		return limited
	}
	s.warn(s.recorded(e, limited))
	return limited
}

// warn tells an operator why a client can't authenticate, which the client is not
// told. The limit of failures bounds how often.
func (s *Server) warn(e Entry) {
	s.log.Warn("client not authenticated", "service", e.Service, "reason", e.Reason, "source", e.Source)
}

// maxShown is how much of what a client sent is repeated to operators, in bytes.
const maxShown = 256

// shown makes what a client sent fit for audit and log. A credential that
// somebody put into the wrong parameter doesn't get there.
func shown(s string) string {
	if strings.Contains(s, clientauth.SecretPrefix) || strings.Contains(s, jointoken.Prefix) || strings.Contains(s, "eyJ") {
		return "[redacted]"
	}
	if len(s) > maxShown {
		return strings.ToValidUTF8(s[:maxShown], "") + "..."
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// serviceName is the look of a service's name. Client secrets of ours don't
// look like that, they have capital letters.
var serviceName = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{0,62}$`)

// shownName is shown for a client_id that nobody vouches for.
func shownName(claimed string) string {
	if !serviceName.MatchString(claimed) {
		return ""
	}
	return claimed
}
