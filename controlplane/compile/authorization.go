package compile

import (
	"fmt"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

func (c *compiler) authorization(route string) *dataplanev1.Authorization {
	deny, allow, restricted := c.in.Policies.AuthorizationFor(c.service, route)
	return &dataplanev1.Authorization{Deny: c.rules(deny), Allow: c.rules(allow), Restricted: restricted}
}

func (c *compiler) rules(policies []policy.AuthorizationPolicy) []*dataplanev1.AuthorizationRule {
	var out []*dataplanev1.AuthorizationRule
	for _, p := range policies {
		for i, r := range p.Spec.GetRules() {
			out = append(out, &dataplanev1.AuthorizationRule{
				Name: fmt.Sprintf("%s/%d", p.Name, i),
				From: c.principals(r.GetFrom()),
				To:   requests(r.GetTo()),
				When: conditions(r.GetWhen()),
			})
		}
	}
	return out
}

func (c *compiler) principals(from *policyv1.Source) []*dataplanev1.Principal {
	var out []*dataplanev1.Principal
	iss := func(name string) string { return c.in.State.Issuer(name).GetIssuer() }
	for _, s := range from.GetServices() {
		out = append(out, &dataplanev1.Principal{Issuer: iss(policy.BuiltinIssuer), Subject: c.in.Subject(s)})
	}
	for _, name := range from.GetIssuers() {
		out = append(out, &dataplanev1.Principal{Issuer: iss(name)})
	}
	for _, s := range from.GetSubjects() {
		out = append(out, &dataplanev1.Principal{Issuer: iss(s.GetIssuer()), Subject: s.GetSubject()})
	}
	return out
}

var operators = map[policyv1.Condition_Operator]dataplanev1.ClaimMatch_Operator{
	policyv1.Condition_OPERATOR_UNSPECIFIED: dataplanev1.ClaimMatch_IN,
	policyv1.Condition_IN:                   dataplanev1.ClaimMatch_IN,
	policyv1.Condition_NOT_IN:               dataplanev1.ClaimMatch_NOT_IN,
	policyv1.Condition_EXISTS:               dataplanev1.ClaimMatch_EXISTS,
}

func conditions(when []*policyv1.Condition) []*dataplanev1.ClaimMatch {
	var out []*dataplanev1.ClaimMatch
	for _, w := range when {
		out = append(out, &dataplanev1.ClaimMatch{ClaimPath: w.GetClaimPath(), Op: operators[w.GetOp()], Values: w.GetValues()})
	}
	return out
}
