package enrolment

import (
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/internal/jointoken"
	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// proof is what an instance has proved itself with.
type proof struct {
	by string
	// token is the join token that it uses up; nil if there is none.
	token *store.JoinToken
	// Who is not enrolled any more has no right by what it has used before.
	used string
}

// refusal is a credential that does not do. The caller hears the same whatever it
// was; the audit has what it was about, in words of ours, and the log has the rest.
type refusal struct{ about, reason string }

func (r *refusal) Error() string { return r.about + ": " + r.reason }

func refusef(about, format string, args ...any) error {
	return &refusal{about, fmt.Sprintf(format, args...)}
}

// judge returns what looks at the credential of a request; it writes nothing, and
// may be asked again when the records have changed meanwhile.
func (s *Server) judge(ctx context.Context, r request, req *enrolmentv1.EnrolRequest) func() (proof, error) {
	switch c := req.GetCredential().(type) {
	case *enrolmentv1.EnrolRequest_JoinToken:
		return func() (proof, error) { return s.byJoinToken(ctx, r, c.JoinToken) }
	case *enrolmentv1.EnrolRequest_KubernetesToken:
		return func() (proof, error) { return s.byKubernetes(r, c.KubernetesToken, s.Mesh.Service(r.service)) }
	case *enrolmentv1.EnrolRequest_KeyAssertion:
		return sync.OnceValues(func() (proof, error) { return s.byKey(r, c.KeyAssertion) }) // it is good once
	}
	return func() (proof, error) { return proof{}, refusef("no credential", "the request has none") }
}

func (s *Server) byJoinToken(ctx context.Context, r request, text string) (proof, error) {
	given, err := jointoken.Parse(text)
	if err != nil {
		return proof{}, refusef("not a join token", "%v", err)
	}
	kept, err := s.Records.JoinToken(ctx, r.service, given.ID)
	if err != nil && !errors.Is(err, store.ErrUnknown) {
		return proof{}, err
	}
	// The same work for an ID that is not there: the hash of nothing is equal to none.
	if !hmac.Equal(Hash(s.Pepper, kept.Service, given), kept.Hash) {
		return proof{}, refusef("join token unknown", "service %q has no join token %s, or its secret is wrong", r.service, given.ID)
	}
	p := proof{by: "join-token/" + kept.ID}
	used := slices.Contains(kept.Instances, r.instance)
	switch {
	case !s.Now().Before(kept.Expires):
		return proof{}, refusef("join token expired", "it is %s", kept.ID)
	case used: // the answer was lost on the way, maybe
		p.used = "join token " + kept.ID
	case len(kept.Instances) >= kept.Uses:
		return proof{}, refusef("join token used up", "it is %s", kept.ID)
	default:
		p.token = &kept
	}
	return p, nil
}

// byKubernetes takes a projected token of a service account that the service
// names. Its cluster is an Issuer whose keys are followed as any other's.
func (s *Server) byKubernetes(r request, text string, spec *policyv1.ServiceSpec) (proof, error) {
	workloads := spec.GetBootstrap().GetKubernetes()
	var names []string
	for _, w := range workloads {
		names = append(names, w.GetIssuer())
	}
	token, err := verifyKubernetes(text, s.Mesh.Issuers(names), s.Now())
	if err != nil {
		return proof{}, refusef("Kubernetes token not valid", "%v", err)
	}
	for _, w := range workloads {
		audiences := w.GetAudiences()
		if len(audiences) == 0 {
			audiences = []string{s.Mesh.Issuer()}
		}
		if w.GetIssuer() != token.Issuer || subjectOf(w) != token.Subject || !token.For(audiences...) {
			continue
		}
		if !token.IssuedAt.After(s.Now().Add(-store.ForgetRevocations)) {
			return proof{}, refusef("Kubernetes token too old", "it is over %d days old", store.ForgetRevocations/(24*time.Hour))
		}
		if before := s.Mesh.RevokedBefore(r.service); !token.IssuedAt.After(before) {
			return proof{}, refusef("Kubernetes token revoked", "it is of before the instances of %q were revoked, or the service was made again", r.service)
		}
		return proof{by: "kubernetes/" + w.GetIssuer() + "/" + w.GetNamespace() + "/" + w.GetServiceAccount()}, nil
	}
	return proof{}, refusef("Kubernetes token not named", "it is of %q for %q, which spec.bootstrap of service %q does not name", token.Subject, token.Audience, r.service)
}

func subjectOf(w *policyv1.KubernetesWorkload) string {
	return "system:serviceaccount:" + w.GetNamespace() + ":" + w.GetServiceAccount()
}

// byKey takes a key that is enrolled.
func (s *Server) byKey(r request, assertion string) (proof, error) {
	service, instance, err := s.Assertions.VerifyAssertion(assertion)
	switch {
	case err != nil:
		return proof{}, refusef("key assertion not valid", "%v", err)
	case service != r.service || instance != r.instance:
		return proof{}, refusef("key assertion not valid", "it is of instance %s/%s", service, instance)
	}
	return proof{used: "its key"}, nil
}
