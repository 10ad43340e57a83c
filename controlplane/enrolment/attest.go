package enrolment

import (
	"context"
	"crypto/hmac"
	"errors"
	"fmt"
	"slices"
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
}

// refusal is a credential that does not do. The caller hears the same whatever it
// was.
type refusal struct{ reason string }

func (r *refusal) Error() string { return r.reason }

func refusef(format string, args ...any) error { return &refusal{fmt.Sprintf(format, args...)} }

// attest looks at the credential of a request, and writes nothing. Known says that the key is enrolled
// for that service.
func (s *Server) attest(ctx context.Context, r request, req *enrolmentv1.EnrolRequest, known bool) (proof, error) {
	spec := s.Mesh.Service(r.service)
	switch c := req.GetCredential().(type) {
	case *enrolmentv1.EnrolRequest_JoinToken:
		return s.byJoinToken(ctx, r, c.JoinToken, known)
	case *enrolmentv1.EnrolRequest_KubernetesToken:
		return s.byKubernetes(r, c.KubernetesToken, spec)
	case *enrolmentv1.EnrolRequest_KeyAssertion:
		return s.byKey(r, c.KeyAssertion, known)
	}
	return proof{}, refusef("there is no credential")
}

func (s *Server) byJoinToken(ctx context.Context, r request, text string, known bool) (proof, error) {
	given, err := jointoken.Parse(text)
	if err != nil {
		return proof{}, refusef("%v", err)
	}
	kept, err := s.Records.FindJoinToken(ctx, given.ID)
	if err != nil && !errors.Is(err, store.ErrUnknown) {
		return proof{}, err
	}
	// The same work for an ID that is not there: the hash of nothing is equal to none.
	if !hmac.Equal(Hash(s.Pepper, kept.Service, given), kept.Hash) {
		return proof{}, refusef("there is no such join token, or its secret is wrong")
	}
	used := slices.Contains(kept.Instances, r.instance)
	by := "join-token/" + kept.ID
	switch {
	case kept.Service != r.service:
		return proof{}, refusef("join token %s is for service %q", kept.ID, kept.Service)
	case !s.Now().Before(kept.Expires):
		return proof{}, refusef("join token %s has expired", kept.ID)
	case used && known:
		return proof{by: by}, nil // the answer was lost on the way, maybe
	case used:
		return proof{}, refusef("the instance has used join token %s before, and was revoked since", kept.ID)
	case len(kept.Instances) >= kept.Uses:
		return proof{}, refusef("join token %s is used up", kept.ID)
	}
	return proof{by: by, token: &kept}, nil
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
		return proof{}, refusef("%v", err)
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
			return proof{}, refusef("the Kubernetes token is over %d days old", store.ForgetRevocations/(24*time.Hour))
		}
		if before := s.Mesh.RevokedBefore(r.service); !token.IssuedAt.After(before) {
			return proof{}, refusef("the Kubernetes token is of before the instances of %q were revoked, or the service was made again", r.service)
		}
		return proof{by: "kubernetes/" + w.GetIssuer() + "/" + w.GetNamespace() + "/" + w.GetServiceAccount()}, nil
	}
	return proof{}, refusef("the Kubernetes token is of %q for %q, which spec.bootstrap of service %q does not name", token.Subject, token.Audience, r.service)
}

func subjectOf(w *policyv1.KubernetesWorkload) string {
	return "system:serviceaccount:" + w.GetNamespace() + ":" + w.GetServiceAccount()
}

// byKey takes a key that is enrolled.
func (s *Server) byKey(r request, assertion string, known bool) (proof, error) {
	service, instance, err := s.Assertions.VerifyAssertion(assertion)
	switch {
	case err != nil:
		return proof{}, refusef("%v", err)
	case service != r.service || instance != r.instance:
		return proof{}, refusef("the assertion is of instance %s/%s", service, instance)
	case !known:
		return proof{}, refusef("the instance was revoked")
	}
	return proof{by: "key"}, nil
}
