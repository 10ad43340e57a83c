package importer

import (
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// longest is the highest maxLifetime that a policy may set: for originals that
// want an exp and have no limit. Left out, it would be 24 hours.
const longest = 10 * 365 * 24 * time.Hour

const bearer = "Bearer "

// What is warned of wherever the original does not check it.
const (
	uncheckedAudience = "aud is not checked in the original, so that a token for any other service is good here too: audienceCheck UNCHECKED"
	uncheckedIssuer   = "iss is not checked in the original, so that whoever holds a key may write anything there: the Issuer has no issuer"
	endless           = "a token without exp is taken and never ends, as in the original: expiration "
)

func (r *run) add(name string, res *policyv1.Resource) {
	res.Metadata = &policyv1.Metadata{Name: name}
	r.resources = append(r.resources, res)
}

func (r *run) addIssuer(name string, s *policyv1.IssuerSpec) {
	r.add(name, &policyv1.Resource{Spec: &policyv1.Resource_Issuer{Issuer: s}})
}

func (r *run) addConsumer(name string, s *policyv1.ConsumerSpec) {
	r.add(name, &policyv1.Resource{Spec: &policyv1.Resource_Consumer{Consumer: s}})
}

// addService adds a Service unless the user has it already.
func (r *run) addService(o Options, name string, s *policyv1.ServiceSpec) {
	r.present[name] = s
	if !o.OmitServices {
		r.add(name, &policyv1.Resource{Spec: &policyv1.Resource_Service{Service: s}})
	}
}

func (r *run) addAuthentication(name string, s *policyv1.AuthenticationPolicySpec) {
	r.add(name, &policyv1.Resource{Spec: &policyv1.Resource_AuthenticationPolicy{AuthenticationPolicy: s}})
}

func (r *run) addAuthorization(name string, s *policyv1.AuthorizationPolicySpec) {
	r.add(name, &policyv1.Resource{Spec: &policyv1.Resource_AuthorizationPolicy{AuthorizationPolicy: s}})
}

func target(services []string, routes ...string) *policyv1.Target {
	return &policyv1.Target{Services: services, Routes: routes}
}

// open is a policy that looks at no token.
func open(t *policyv1.Target) *policyv1.AuthenticationPolicySpec {
	return &policyv1.AuthenticationPolicySpec{Target: t, Mode: policyv1.AuthenticationPolicySpec_OFF}
}

func locations(names []string) []*policyv1.TokenLocation {
	var out []*policyv1.TokenLocation
	for _, n := range names {
		out = append(out, &policyv1.TokenLocation{Name: n})
	}
	return out
}

// usualLocations are where Istio and Higress look if nothing is said.
func usualLocations(r *policyv1.JwtRule) {
	if len(r.GetFromHeaders())+len(r.GetFromParams())+len(r.GetFromCookies()) == 0 {
		r.FromHeaders = []*policyv1.TokenLocation{{Name: "Authorization", Prefix: bearer}}
		r.FromParams = locations([]string{"access_token"})
	}
}

func seconds(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

func boolean(b bool) *bool { return &b }

// answer is what callers are told for some reasons; no reasons are all that no
// other answer names, with their own status.
func answer(status uint32, body string, reasons ...string) *policyv1.Response {
	return &policyv1.Response{Reasons: reasons, Status: status, Body: body}
}
