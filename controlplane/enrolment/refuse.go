package enrolment

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/bearer"
	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/internal/identity"
	"github.com/watchword-mesh/watchword/issuer/ca"
	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
)

// maxNode is the longest name that an instance may give itself, in bytes.
const maxNode = 256

// read checks what of a request is checked before the credential.
func read(req *enrolmentv1.EnrolRequest, source string) (request, error) {
	r := request{source: source, service: req.GetService(), node: req.GetNode()}
	if _, err := identity.Parse(identity.ID{TrustDomain: "x", Service: r.service}.String()); err != nil {
		r.service = ""
		return r, refusef("request not valid", "what it asks for can't be the name of a service")
	}
	if len(r.node) > maxNode || strings.ContainsFunc(r.node, unicode.IsControl) {
		return r, refusef("request not valid", "the name that it gives itself is too long, or has control characters")
	}
	key, spki, err := ca.ParseRequest(req.GetCertificateRequest())
	if err != nil {
		return r, refusef("request not valid", "%v", err)
	}
	public, err := ca.InstanceKey(spki)
	if err != nil {
		return r, refusef("request not valid", "%v", err)
	}
	r.key, r.jwk, r.instance = key, public.JWK(), identity.InstanceOf(spki)
	return r, nil
}

func verifyKubernetes(text string, issuers []bearer.Issuer, now time.Time) (bearer.Token, error) {
	token, err := bearer.Verify(text, issuers, now)
	if err == nil && token.IssuedAt.IsZero() {
		err = errors.New("the token has no iat")
	}
	return token, err
}

// refuse turns an error into what the caller hears, and has it written down.
func (s *Server) refuse(ctx context.Context, r request, err error) error {
	var refused *refusal
	var told *answer
	switch {
	case errors.As(err, &refused):
		return s.refused(r, refused)
	case errors.Is(err, store.ErrNoService):
		return s.refused(r, &refusal{"service unknown", err.Error()})
	case errors.Is(err, store.ErrRevoked):
		return s.refused(r, &refusal{"instance revoked", err.Error()})
	case errors.Is(err, store.ErrUsedUp):
		return s.refused(r, &refusal{"join token used up", err.Error()})
	case errors.As(err, &told):
		return told.error
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	}
	// Whatever else it is, also a status of etcd's, is none of a stranger's business.
	return s.fault("enrolling an instance", err)
}

// answer is an error that the caller may hear as it is.
type answer struct{ error }

func answerf(code codes.Code, text string) error { return &answer{status.Error(code, text)} }

// refused is one of two sentences. A source that keeps failing hears the second,
// and is written down no more.
func (s *Server) refused(r request, err *refusal) error {
	s.metrics.refused.Inc()
	wait, first := s.failed.Add(r.source, s.Now())
	if wait == 0 || first {
		s.Logger.Warn("enrolment refused", "service", r.service, "instance", r.instance, "source", r.source, "reason", err)
		s.Refused(audit.Entry{Source: r.source, Method: "Enrol", Outcome: audit.Refused, Reason: s.audited(r, err)})
	}
	if wait > 0 {
		return status.Error(codes.ResourceExhausted, "too many failed enrolments from this address; check the credential")
	}
	return status.Errorf(codes.PermissionDenied, "the credential does not enrol an instance of service %q: it may be wrong, used up, expired or for another service; the control plane's log says which", r.service)
}

// audited is the reason for the audit. Nobody is known, so that it is an entry among
// those of strangers, who must not choose its words: the service is named if there
// is one of that name.
func (s *Server) audited(r request, err *refusal) string {
	if s.Mesh.Service(r.service) == nil {
		return err.about
	}
	return err.about + ", for service " + r.service
}

func (s *Server) fault(what string, err error) error {
	s.Logger.Error(what, "error", err)
	return status.Error(codes.Unavailable, "the control plane can't do this now; try again")
}
