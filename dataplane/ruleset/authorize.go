package ruleset

import "slices"

// authorization is who may do what.
type authorization struct {
	deny, allow []authorizationRule
	// only what an allow rule matches is let through
	restricted bool
}

type authorizationRule struct {
	name          string
	from, notFrom []principal
	to            requestMatch
	when          []condition
}

// principal is a caller; each of its parts that is not empty has to be right.
type principal struct{ issuer, subject, service, consumer string }

func (p principal) is(c *identity) bool {
	switch {
	case p == principal{},
		p.issuer != "" && p.issuer != c.Issuer,
		p.subject != "" && p.subject != c.Subject,
		p.service != "" && p.service != c.Service,
		p.consumer != "" && p.consumer != c.Consumer:
		return false
	}
	return true
}

// miss is why a rule does not match.
type miss int

const (
	missNone miss = iota
	missFrom
	missNotFrom
	missTo
	missWhen
)

// misses is the first part of a rule that keeps it from matching; missNone if it
// matches.
func (r *authorizationRule) misses(c *identity, v *view) miss {
	is := func(p principal) bool { return p.is(c) }
	switch {
	case len(r.from) > 0 && !slices.ContainsFunc(r.from, is):
		return missFrom
	case slices.ContainsFunc(r.notFrom, is):
		return missNotFrom
	case r.to.fails(v) != partNone:
		return missTo
	case !allHold(r.when, c.claims()):
		return missWhen
	}
	return missNone
}

// claims are nil without a verified token.
func (c *identity) claims() claims {
	if c.verified == nil {
		return nil
	}
	return c.verified.claims
}

// authorize refuses what a deny rule matches, and on a restricted route what no
// allow rule matches. The name is that of the deny rule, if one did it.
func (e *evaluation) authorize(a *authorization, c *identity) (rule string, denied bool) {
	if r := e.firstMatch("deny", a.deny, c); r != nil {
		return r.name, true
	}
	if !a.restricted {
		if e.rec != nil {
			e.rec.add("authorization", "allowed", "not restricted, and no deny rule matches")
		}
		return "", false
	}
	r := e.firstMatch("allow", a.allow, c)
	if r == nil && e.rec != nil {
		e.rec.add("authorization", "consumer_denied", "restricted, and no allow rule matches")
	}
	return "", r == nil
}

func (e *evaluation) firstMatch(kind string, rules []authorizationRule, c *identity) *authorizationRule {
	for i := range rules {
		m := rules[i].misses(c, &e.view)
		if e.rec != nil {
			e.rec.authorizationRule(kind, &rules[i], m, c, &e.view)
		}
		if m == missNone {
			return &rules[i]
		}
	}
	return nil
}
