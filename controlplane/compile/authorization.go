package compile

import (
	"fmt"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

func (c *compiler) authorization(route string) (enforced, observed *dataplanev1.Authorization) {
	held, seen := c.in.Policies.AuthorizationFor(c.service, route)
	if seen != nil {
		observed = c.authorizationOf(*seen)
	}
	return c.authorizationOf(held), observed
}

func (c *compiler) authorizationOf(a policy.Authorization) *dataplanev1.Authorization {
	return &dataplanev1.Authorization{Deny: c.rules(a.Deny), Allow: c.rules(a.Allow), Restricted: a.Restricted}
}

func (c *compiler) rules(policies []policy.AuthorizationPolicy) []*dataplanev1.AuthorizationRule {
	var out []*dataplanev1.AuthorizationRule
	for _, p := range policies {
		for i, r := range p.Spec.GetRules() {
			from := r.GetFrom()
			out = append(out, &dataplanev1.AuthorizationRule{
				Name:    fmt.Sprintf("%s/%d", p.Name, i),
				From:    c.principals(from.GetServices(), from.GetIssuers(), from.GetSubjects(), from.GetConsumers()),
				NotFrom: c.principals(from.GetNotServices(), from.GetNotIssuers(), from.GetNotSubjects(), from.GetNotConsumers()),
				To:      operation(r.GetTo()),
				When:    conditions(r.GetWhen()),
			})
		}
	}
	return out
}

func (c *compiler) principals(services, issuers []string, subjects []*policyv1.Subject, consumers []string) []*dataplanev1.Principal {
	var out []*dataplanev1.Principal
	for _, s := range services {
		out = append(out, &dataplanev1.Principal{Issuer: policy.BuiltinIssuer, Subject: c.in.Subject(s)})
		if c.in.State.Service(s).GetSelfIssued() != nil {
			out = append(out, &dataplanev1.Principal{Service: s})
		}
	}
	for _, name := range issuers {
		out = append(out, &dataplanev1.Principal{Issuer: name})
	}
	for _, s := range subjects {
		out = append(out, &dataplanev1.Principal{Issuer: s.GetIssuer(), Subject: s.GetSubject()})
	}
	for _, name := range consumers {
		out = append(out, &dataplanev1.Principal{Consumer: name})
	}
	return out
}

var operators = map[policyv1.Condition_Operator]dataplanev1.ClaimMatch_Operator{
	policyv1.Condition_OPERATOR_UNSPECIFIED: dataplanev1.ClaimMatch_IN,
	policyv1.Condition_IN:                   dataplanev1.ClaimMatch_IN,
	policyv1.Condition_NOT_IN:               dataplanev1.ClaimMatch_NOT_IN,
	policyv1.Condition_EXISTS:               dataplanev1.ClaimMatch_EXISTS,
	policyv1.Condition_NOT_EXISTS:           dataplanev1.ClaimMatch_NOT_EXISTS,
}

func conditions(when []*policyv1.Condition) []*dataplanev1.ClaimMatch {
	var out []*dataplanev1.ClaimMatch
	for _, w := range when {
		out = append(out, &dataplanev1.ClaimMatch{ClaimPath: w.GetClaimPath(), Op: operators[w.GetOp()], Values: w.GetValues()})
	}
	return out
}
