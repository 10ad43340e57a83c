package importer

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

type authorizationPolicy struct {
	node
	id, name    string
	scope       scope
	action      policyv1.AuthorizationPolicySpec_Action
	enforcement policyv1.Enforcement
	spec        object
}

func (i *istio) authorizationPolicy(k istioObject, spec object) {
	p := authorizationPolicy{node: k.node, id: k.id, name: k.name, spec: spec}
	switch action := spec.text("action"); action {
	case "", "ALLOW":
		p.action = policyv1.AuthorizationPolicySpec_ALLOW
	case "DENY":
		p.action = policyv1.AuthorizationPolicySpec_DENY
	case "AUDIT":
		i.leave(k.node, "AUDIT only marks requests for a log; import it as a policy with enforcement OBSERVE by hand")
		return
	case "CUSTOM":
		i.leave(k.node, "CUSTOM asks another server for each request: what it refuses is not refused here")
		return
	default:
		at, _ := spec.at("action")
		i.fault(at, "%q is no action; there are ALLOW, DENY, AUDIT and CUSTOM", clip(action))
		return
	}
	if i.dryRun(k) {
		p.enforcement = policyv1.Enforcement_OBSERVE
	}
	var ok bool
	p.scope, ok = i.scope(k, spec)
	switch {
	case ok:
		i.rules = append(i.rules, p)
	case p.action == policyv1.AuthorizationPolicySpec_DENY:
		i.leave(k.node, "what the DENY refused gets in")
	default:
		i.leave(k.node, "what the ALLOW did not let in gets in, where no other ALLOW is about it")
	}
}

// dryRun reads the annotation as Istio does, which enforces a policy whose
// annotation it can't read.
func (i *istio) dryRun(k istioObject) bool {
	const annotation = "istio.io/dry-run"
	if !k.annotations.has(annotation) {
		return false
	}
	text := k.annotations.text(annotation)
	dry, err := strconv.ParseBool(text)
	if at, _ := k.annotations.at(annotation); err != nil {
		i.warn(at, "%q is neither true nor false: the policy is enforced", clip(text))
	}
	return dry
}

// authorization writes the policies. An ALLOW for all counts beside those of a
// service in Istio, but not here, where the service's own decide: it is written
// for those services too.
func (i *istio) authorization() {
	for _, p := range i.rules {
		spec := &policyv1.AuthorizationPolicySpec{Action: p.action, Enforcement: p.enforcement}
		if !p.scope.all {
			spec.Target = target(p.scope.services)
		}
		rules := p.spec.list("rules")
		for _, n := range rules {
			spec.Rules = append(spec.Rules, i.ruleOrNote(p, n)...)
		}
		if p.action == policyv1.AuthorizationPolicySpec_DENY && len(spec.GetRules()) == 0 {
			if len(rules) == 0 {
				i.warn(p.node, "a DENY without rules denies nothing, in Istio too: it is left out")
			} else {
				i.leave(p.node, "no rule is left: the policy is left out")
			}
			continue
		}
		i.addAuthorization(i.name("AuthorizationPolicy", p.name, p.id), spec)
		if own := i.ownAllow(p); p.scope.all && p.action == policyv1.AuthorizationPolicySpec_ALLOW && len(own) > 0 {
			i.addAuthorization(i.name("AuthorizationPolicy", p.name+"-services", p.id+" services"), &policyv1.AuthorizationPolicySpec{
				Target: target(own), Action: spec.GetAction(), Enforcement: spec.GetEnforcement(), Rules: spec.GetRules()})
		}
	}
}

// ownAllow are the services with an ALLOW of their own of the same enforcement.
func (i *istio) ownAllow(p authorizationPolicy) []string {
	var out []string
	for _, s := range i.services {
		if slices.ContainsFunc(i.rules, func(o authorizationPolicy) bool {
			return o.action == policyv1.AuthorizationPolicySpec_ALLOW && o.enforcement == p.enforcement && !o.scope.all && o.scope.includes(s)
		}) {
			out = append(out, s)
		}
	}
	return out
}

// part is one conjunct of a rule, or one of the alternatives of one.
type part struct {
	// Callers that are named, at most one constraint; nil names nobody.
	callers *callers
	not     callers
	to      *policyv1.Operation
	// What a claim must be, and what it must not be.
	when, unless []*policyv1.Condition
}

// converter reads one rule: the parts that it can't carry over it leaves, and
// the rule, or an alternative of it, with them.
type converter struct {
	*istio
	action   policyv1.AuthorizationPolicySpec_Action
	accepted []string
	split    []string
	// Something of the current part has no place.
	lost bool
	// The current part can never match.
	never bool
}

const untold = "is left out, and the import can't say why; please report it"

// ruleOrNote is rule, which must not lose a rule without saying so.
func (i *istio) ruleOrNote(p authorizationPolicy, n node) []*policyv1.AuthorizationRule {
	before := i.notes()
	rules := i.rule(p, n)
	if len(rules) == 0 && i.notes() == before {
		i.leave(n, untold)
	}
	return rules
}

func (i *istio) rule(p authorizationPolicy, n node) []*policyv1.AuthorizationRule {
	c := converter{istio: i, action: p.action, accepted: i.accepted(p.scope), split: i.split(p.scope)}
	o := i.object(n, "from", "to", "when")
	sources := alternatives(&c, o, "from", "source", c.source)
	operations := alternatives(&c, o, "to", "operation", c.operation)
	when, ok := c.conditions(o)
	if !ok {
		return nil
	}
	var out []*policyv1.AuthorizationRule
	for _, s := range sources {
		for _, to := range operations {
			out = append(out, c.join(n, s, to, when)...)
		}
	}
	return out
}

// alternatives reads a list of which one must match; without one there is one
// part that says nothing. An empty list is none: in proto3 the two are the same.
func alternatives(c *converter, rule object, list, field string, read func(object) part) []part {
	entries := rule.list(list)
	if len(entries) == 0 {
		return []part{{}}
	}
	var out []part
	for _, n := range entries {
		c.lost, c.never = false, false
		o := c.object(n, field).object(field)
		if len(o.keys) == 0 {
			c.fault(n, "%s is empty", field)
		}
		if len(o.keys) > 0 && len(given(o)) == 0 {
			c.warn(n, "%s has nothing but empty lists: it matches anything, in Istio too", field)
		}
		p := read(o)
		if c.keep(n) {
			out = append(out, p)
		}
	}
	return out
}

// keep says whether the part that was read can be used, and else says what
// becomes of it.
func (c *converter) keep(n node) bool {
	if c.never && !c.lost && c.withoutIssuers() {
		c.lose(n, noIssuers)
	}
	switch {
	case c.lost && c.action == policyv1.AuthorizationPolicySpec_DENY:
		c.leave(n, "left out of the DENY, so that what it refused gets in")
	case c.lost:
		c.leave(n, "left out of the ALLOW, so that what it let in is refused")
	case c.never:
		c.leave(n, "left out: it can never match")
	}
	return !c.lost && !c.never
}

func (c *converter) lose(n node, format string, args ...any) {
	c.lost = true
	c.leave(n, format, args...)
}

const (
	tlsIdentity = "identities of mutual TLS are not looked at: name the Service of the caller in from.services, once it calls with a token"
	addresses   = "addresses are not looked at"
)

var sourceReasons = map[string]string{
	"principals": tlsIdentity, "notPrincipals": tlsIdentity, "namespaces": tlsIdentity, "notNamespaces": tlsIdentity,
	"serviceAccounts": tlsIdentity, "notServiceAccounts": tlsIdentity,
	"ipBlocks": addresses, "notIpBlocks": addresses, "remoteIpBlocks": addresses, "notRemoteIpBlocks": addresses,
}

// given are the fields that say something. Null and an empty list do not: to
// Istio they are as if they were not there.
func given(o object) []string {
	return slices.DeleteFunc(slices.Clone(o.keys), func(field string) bool {
		n, ok := o.at(field)
		return !ok || n.yaml.Kind == yaml.SequenceNode && len(n.yaml.Content) == 0
	})
}

func (c *converter) source(o object) (p part) {
	for _, field := range given(o) {
		n, _ := o.at(field)
		switch field {
		case "requestPrincipals":
			found := c.principals(o.texts(field))
			p.callers, c.never = &found, c.never || found.empty()
		case "notRequestPrincipals":
			p.not = c.principals(o.texts(field))
		default:
			reason := sourceReasons[field]
			if reason == "" {
				reason = "unknown field"
			}
			c.lose(n, "%s", reason)
		}
	}
	return p
}

func (c *converter) operation(o object) (p part) {
	p.to = &policyv1.Operation{}
	for _, field := range given(o) {
		switch field {
		case "hosts":
			p.to.Hosts = c.requests(o, field, c.host)
		case "notHosts":
			p.to.NotHosts = c.requests(o, field, c.host)
		case "paths":
			p.to.Paths = c.requests(o, field, c.path)
		case "notPaths":
			p.to.NotPaths = c.requests(o, field, c.path)
		case "methods":
			p.to.Methods = c.requests(o, field, c.method)
		case "notMethods":
			p.to.NotMethods = c.requests(o, field, c.method)
		case "ports", "notPorts":
			n, _ := o.at(field)
			c.lose(n, "ports are not looked at")
		default:
			n, _ := o.at(field)
			c.lose(n, "unknown field")
		}
	}
	if proto.Equal(p.to, &policyv1.Operation{}) {
		p.to = nil // nothing but "*"
	}
	return p
}

// requests reads a list of hosts, paths or methods. "*" is all of them: no
// restriction, or with not_ one that never holds.
func (c *converter) requests(o object, field string, one func(textAt) (string, bool)) []string {
	var out []string
	all := false
	for _, t := range o.texts(field) {
		if t.text == "*" {
			all = true
			c.never = c.never || strings.HasPrefix(field, "not")
			continue
		}
		s, ok := one(t)
		if ok && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	if all {
		return nil
	}
	return out
}

func (c *converter) host(t textAt) (string, bool) {
	// "example.com:*" stands beside "example.com" for requests with a port,
	// which is not looked at here.
	name, ok := host(strings.TrimSuffix(t.text, ":*"))
	if !ok {
		c.lose(t.node, "%q %s", clip(t.text), hostReason)
	}
	return name, ok
}

func (c *converter) path(t textAt) (string, bool) {
	if !path(t.text) || strings.ContainsAny(t.text, "{}") {
		c.lose(t.node, "%q %s", clip(t.text), pathReason)
		return "", false
	}
	return t.text, true
}

func (c *converter) method(t textAt) (string, bool) {
	if !methodForm.MatchString(t.text) {
		c.lose(t.node, "%q is no method in upper case", clip(t.text))
		return "", false
	}
	return t.text, true
}

// join makes rules of one alternative of each kind. Where nothing asks for a
// token, Istio lets "not this value" match requests without one too; NOT_IN
// does not, so that these get a rule of their own.
func (c *converter) join(n node, s, to, when part) []*policyv1.AuthorizationRule {
	named := s.callers
	if when.callers != nil {
		if named != nil {
			c.lose(n, "names the caller in two ways (source and when), which both must hold")
			c.keep(n)
			return nil
		}
		named = when.callers
	}
	if len(c.accepted) == 0 {
		if named != nil || len(when.when) > 0 {
			c.unmatched(n)
			return nil
		}
		// Nobody has a principal or a claim: what must not be is not.
		return []*policyv1.AuthorizationRule{{To: to.to}}
	}
	from := source(named, s.not, when.not)
	out := []*policyv1.AuthorizationRule{{From: from, To: to.to, When: slices.Concat(when.when, when.unless)}}
	if len(when.unless) > 0 && len(when.when) == 0 && named == nil {
		out = append(out, &policyv1.AuthorizationRule{From: &policyv1.Source{NotIssuers: c.names(c.accepted)}, To: to.to})
	}
	return out
}

const noIssuers = "no rule of a RequestAuthentication is carried over for it, so that no request has a principal or claims here"

// withoutIssuers says that nobody has a principal here only because the import
// left out whom Istio knows.
func (c *converter) withoutIssuers() bool { return len(c.accepted) == 0 && c.lostIssuer }

// unmatched says why a rule that wants a principal or a claim is left out.
func (c *converter) unmatched(n node) {
	if !c.withoutIssuers() {
		c.leave(n, "left out: no RequestAuthentication is about it, so that no request has a principal or claims")
		return
	}
	c.lose(n, noIssuers)
	c.keep(n)
}

func source(named *callers, not ...callers) *policyv1.Source {
	out := &policyv1.Source{}
	if named != nil {
		out.Issuers, out.Subjects = named.issuers, named.subjects
	}
	for _, n := range not {
		out.NotIssuers = append(out.NotIssuers, n.issuers...)
		out.NotSubjects = append(out.NotSubjects, n.subjects...)
	}
	if len(out.Issuers)+len(out.Subjects)+len(out.NotIssuers)+len(out.NotSubjects) == 0 {
		return nil
	}
	return out
}
