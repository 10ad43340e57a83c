package compile

import (
	"encoding/json"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// routes compiles one part of the service: one route, or two where preflight
// requests are told apart.
func (c *compiler) routes(name string, match *dataplanev1.RequestMatch) []*dataplanev1.Route {
	held := c.held(name)
	r := &dataplanev1.Route{
		Name:                   name,
		Match:                  match,
		Authentication:         c.authentication(held.enforced, held.observe),
		ObservedAuthentication: c.observedAuthentication(held.observed),
		Responses:              responses(held.enforced.Spec.GetResponses()),
	}
	r.Authorization, r.ObservedAuthorization = c.authorization(name)
	closeUnusable(r)
	return preflight(held, r)
}

// held is what holds for a route. What is enforced is only observed where no
// policy is enforced and this one could refuse something.
type held struct {
	enforced, observed policy.AuthenticationPolicy
	observe            bool
}

func (c *compiler) held(route string) held {
	enforced, observed := c.in.Policies.AuthenticationFor(c.service, route)
	switch {
	case enforced.Name == "" && observed.Name != "":
		return held{enforced: observed, observe: observed.Spec.GetMode() != policyv1.AuthenticationPolicySpec_PERMISSIVE}
	case enforced.Name == "":
		enforced.Spec = byDefault
	}
	return held{enforced: enforced, observed: observed}
}

// closeUnusable is about a route none of whose rules has a usable key: nothing
// can be verified. It refuses everything then, unless its policy lets in what
// does not verify.
func closeUnusable(r *dataplanev1.Route) {
	a := r.GetAuthentication()
	if a.GetMode() == dataplanev1.Authentication_OFF || len(a.GetRules()) > 0 {
		return
	}
	lenient := a.GetObserve() || a.GetMode() == dataplanev1.Authentication_PERMISSIVE
	r.Authentication = &dataplanev1.Authentication{Policy: a.GetPolicy(), Mode: dataplanev1.Authentication_OFF, ConsumerHeaders: a.GetConsumerHeaders()}
	if !lenient {
		// What was let in before the keys were lost would not be any more.
		r.Authentication.EndStreams = a.GetEndStreams()
		r.Authorization = &dataplanev1.Authorization{Restricted: true}
		r.ObservedAuthorization = nil
	}
}

// options is the method of preflight requests.
const options = "OPTIONS"

// preflight puts a route for OPTIONS requests in front where a policy does not
// run on them (CORS: a browser sends no credentials with them).
func preflight(h held, r *dataplanev1.Route) []*dataplanev1.Route {
	methods := r.GetMatch().GetMethods()
	free, freeObserved := skipsPreflight(h.enforced.Spec), skipsPreflight(h.observed.Spec)
	if !(free || freeObserved) || (len(methods) > 0 && !slices.Contains(methods, options)) {
		return []*dataplanev1.Route{r}
	}
	twin := proto.CloneOf(r)
	twin.Match.Methods = []string{options}
	if free {
		twin.Authentication = &dataplanev1.Authentication{Policy: r.GetAuthentication().GetPolicy(), Mode: dataplanev1.Authentication_OFF}
		twin.Authorization = &dataplanev1.Authorization{Deny: aboutRequests(r.GetAuthorization().GetDeny())}
		twin.ObservedAuthorization = nil
	}
	if freeObserved {
		twin.ObservedAuthentication = nil
	}
	// Where r is about OPTIONS alone it never matches, but its headers are still
	// those that callers must not set.
	return []*dataplanev1.Route{twin, r}
}

func skipsPreflight(s *policyv1.AuthenticationPolicySpec) bool {
	return s != nil && s.RunOnPreflight != nil && !s.GetRunOnPreflight() && s.GetMode() != policyv1.AuthenticationPolicySpec_OFF
}

// aboutRequests are the rules that don't look at callers.
func aboutRequests(rules []*dataplanev1.AuthorizationRule) []*dataplanev1.AuthorizationRule {
	var out []*dataplanev1.AuthorizationRule
	for _, r := range rules {
		if len(r.GetFrom())+len(r.GetNotFrom())+len(r.GetWhen()) == 0 {
			out = append(out, r)
		}
	}
	return out
}

func responses(list []*policyv1.Response) []*dataplanev1.Response {
	var out []*dataplanev1.Response
	for _, r := range list {
		contentType := r.GetContentType()
		switch {
		case contentType != "" || r.GetBody() == "":
		case isJSON(r.GetBody()):
			contentType = "application/json"
		default:
			contentType = "text/plain"
		}
		out = append(out, &dataplanev1.Response{Reasons: r.GetReasons(), Status: r.GetStatus(), Body: r.GetBody(), ContentType: contentType})
	}
	return out
}

// isJSON is about objects and lists: a text that is a number is a text.
func isJSON(body string) bool {
	body = strings.TrimSpace(body)
	return body != "" && strings.ContainsAny(body[:1], "{[") && json.Valid([]byte(body))
}
