package importer

import (
	"cmp"
	"slices"
	"strings"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

var kongPluginReasons = map[string]string{
	"acl": "groups of consumers have no place here: write an AuthorizationPolicy with from.consumers",
}

// plugin reads one use of a plugin, inside of a service or route or beside
// them.
func (k *kong) plugin(n node, s *kongService, r *kongRoute) {
	o := k.object(n, "name", "id", "instance_name", "enabled", "config", "_config", "service", "route", "consumer", "consumer_group", "tags", "protocols", "run_on", "ordering", "created_at", "updated_at")
	p := kongPlugin{node: n, name: o.need("name"), inService: s, inRoute: r,
		service: k.reference(o, "service"), route: k.reference(o, "route"),
		consumer: k.reference(o, "consumer"), group: k.reference(o, "consumer_group")}
	switch {
	case !o.flag("enabled", true):
		k.warn(n, "the plugin %q is disabled in the original, and left out", clip(p.name))
	case p.name == "jwt":
		p.config = k.config(o)
		p.base64 = p.config.flag("secret_is_base64", false)
		p.anonymous = p.config.text("anonymous")
		k.plugins = append(k.plugins, p)
	default:
		k.other(p)
	}
}

// other is a plugin beside jwt.
func (k *kong) other(p kongPlugin) {
	reason := cmp.Or(kongPluginReasons[p.name], "only jwt is")
	if kongGuards(p.name) {
		k.guards = append(k.guards, p)
		if p.consumer+p.group == "" {
			reason += "; where it holds no request gets in without a token, but what it checks is not checked here"
		}
	}
	k.leave(p.node, "the plugin %q is not imported: %s", clip(p.name), reason)
}

// sharedConfigs are those that plugins name in _config.
func (k *kong) sharedConfigs(n node) {
	file := k.object(n)
	at, ok := file.at("_plugin_configs")
	if !ok {
		return
	}
	for name, config := range k.object(at).fields {
		if _, there := k.configs[name]; there {
			k.fault(config, "is in another file too")
		}
		k.configs[name] = config
	}
}

// config is what a plugin is configured with: its own fields first, then those
// of the shared configuration that it names.
func (k *kong) config(o object) object {
	own := o.object("config", kongConfigFields...)
	name := o.text("_config")
	if name == "" {
		return own
	}
	shared, ok := k.configs[name]
	if !ok {
		at, _ := o.at("_config")
		k.fault(at, "there is no %q among _plugin_configs", clip(name))
		return own
	}
	for field, value := range k.object(shared, kongConfigFields...).fields {
		if _, there := own.fields[field]; !there {
			own.fields[field] = value
		}
	}
	return own
}

// assign gives each use of a plugin to what it is for.
func (k *kong) assign() {
	for i := range k.guards {
		k.guard(&k.guards[i])
	}
	for i := range k.plugins {
		p := &k.plugins[i]
		if p.consumer+p.group != "" {
			k.leave(p.node, "jwt for one consumer alone has no place here, and Kong does not run it so either")
			continue
		}
		at := k.place(p)
		switch {
		case at == nil:
			k.leave(p.node, "is for a service or route that is not in the file")
		case at.plugin != nil:
			k.leave(p.node, "jwt is configured there already (line %d)", at.plugin.yaml.Line)
		default:
			at.plugin = p
		}
	}
}

// place is where the plugin belongs; nil if there is no such place.
func (k *kong) place(p *kongPlugin) *kongScope {
	switch {
	case p.inRoute != nil:
		return &p.inRoute.kongScope
	case p.route != "":
		for _, s := range k.services {
			for _, r := range s.routes {
				if r.original == p.route || r.id == p.route {
					return &r.kongScope
				}
			}
		}
		return nil
	case p.inService != nil:
		return &p.inService.kongScope
	case p.service != "":
		for _, s := range k.services {
			if s.original == p.service || s.id == p.service {
				return &s.kongScope
			}
		}
		return nil
	}
	return &k.global
}

// policies writes one for each use of jwt, and for what no use is for one that
// asks for no token.
func (k *kong) policies() {
	if p := k.global.plugin; p != nil {
		k.warn(p.node, "the global plugin becomes a policy for the whole mesh, also for Services that Kong does not know")
		k.addAuthentication(k.name("AuthenticationPolicy", "kong", "global"), k.policy(p, nil, k.closed(nil, nil)))
	}
	for _, s := range k.services {
		k.limits(s)
		k.addService(k.o, s.name, &policyv1.ServiceSpec{Routes: k.ordered(s)})
		k.servicePolicies(s)
	}
}

func (k *kong) servicePolicies(s *kongService) {
	if p := k.own(s, nil); p != nil {
		k.addAuthentication(k.name("AuthenticationPolicy", s.name, s.name), k.policy(p, target([]string{s.name}), k.closed(s, nil)))
	}
	var unprotected []string
	for _, r := range s.routes {
		if r.left {
			if r.plugin != nil {
				k.leave(r.plugin.node, "is for a route that is left out")
			}
			continue
		}
		k.prefixes(s, r)
		if k.routePolicy(s, r) {
			unprotected = append(unprotected, r.names...)
		}
	}
	k.unprotected(s, unprotected)
}

// routePolicy writes the policy of a route if it needs one of its own, and says
// whether it is one for everybody.
func (k *kong) routePolicy(s *kongService, r *kongRoute) bool {
	switch p, h := k.own(s, r), k.holds(s, r); {
	case p != nil:
		k.addAuthentication(k.name("AuthenticationPolicy", s.name+"-"+r.route.GetName(), s.name+"/"+r.route.GetName()),
			k.policy(p, target([]string{s.name}, r.names...), k.closed(s, r)))
	case h.plugin == nil && h.guard != "":
		k.leave(r.node, "requests without a token stay refused, since %s; tokens of Watchword's own issuer alone get in until a policy says otherwise", k.closed(s, r))
	}
	return k.access(s, r) == everybody
}

// prefixes speaks of a route whose paths are prefixes of characters in Kong.
func (k *kong) prefixes(s *kongService, r *kongRoute) {
	const text = "Kong's paths are prefixes of characters, so that /a matches /ab too: what goes on without a slash is not of this route here"
	switch {
	case !r.shared():
	case s.most > k.granted(s, r):
		k.leave(r.node, text+", and may be of one that needs no token")
	case r.plugin != nil:
		k.warn(r.node, text)
	}
}

func (k *kong) unprotected(s *kongService, routes []string) {
	switch {
	case len(routes) == 0:
	case s.limit < everybody:
		k.leave(s.node, "routes that are open stay closed, since one that is not is left out, whose requests they could match")
	default:
		k.warn(s.node, "no jwt in the original: its requests need no token (mode OFF)")
		k.addAuthentication(k.name("AuthenticationPolicy", s.name+"-open", s.name+"/open"), open(target([]string{s.name}, routes...)))
	}
}

var kongConfigFields = []string{"uri_param_names", "cookie_names", "header_names", "claims_to_verify", "key_claim_name", "secret_is_base64", "anonymous", "run_on_preflight", "maximum_expiration"}

// policy is what the configuration of one use of jwt says. Where closed gives a
// reason, no request gets in without a token.
func (k *kong) policy(p *kongPlugin, t *policyv1.Target, closed string) *policyv1.AuthenticationPolicySpec {
	c := p.config
	claim := cmp.Or(c.text("key_claim_name"), "iss")
	verified := plain(c.texts("claims_to_verify"))
	rule := &policyv1.JwtRule{
		Consumers: &policyv1.ConsumerSelector{All: true},
		KeyClaim: &policyv1.KeyClaim{Name: claim, Sources: []policyv1.KeyClaim_Source{
			policyv1.KeyClaim_PAYLOAD, policyv1.KeyClaim_HEADER}},
		ClockSkew: seconds(0), ForwardOriginalToken: true, AudienceCheck: policyv1.JwtRule_UNCHECKED,
		Expiration: k.check(p, verified, "exp"), NotBefore: k.check(p, verified, "nbf"),
	}
	k.locations(c, rule)
	k.lifetime(c, rule)
	k.warn(p.node, "%s", uncheckedAudience)
	spec := &policyv1.AuthenticationPolicySpec{
		Target: t, Mode: policyv1.AuthenticationPolicySpec_STRICT, JwtRules: []*policyv1.JwtRule{rule},
		ConsumerHeaders: kongHeaders(), Responses: kongResponses(claim, rule),
	}
	if !c.flag("run_on_preflight", true) {
		k.preflight(p, spec, closed)
	}
	k.anonymous(p, spec, closed)
	return spec
}

// check is REQUIRED for a claim of claims_to_verify: Kong wants it there.
func (k *kong) check(p *kongPlugin, verified []string, claim string) policyv1.TimeCheck {
	if slices.Contains(verified, claim) {
		return policyv1.TimeCheck_REQUIRED
	}
	if claim == "exp" {
		k.warn(p.node, "exp is not among claims_to_verify, so that tokens never end: expiration NOT_CHECKED")
	}
	return policyv1.TimeCheck_NOT_CHECKED
}

func (k *kong) locations(c object, rule *policyv1.JwtRule) {
	params, headers := plain(c.texts("uri_param_names")), plain(c.texts("header_names"))
	if !c.has("uri_param_names") {
		params = []string{"jwt"}
	}
	if !c.has("header_names") {
		headers = []string{"authorization"}
	}
	for _, h := range headers {
		rule.FromHeaders = append(rule.FromHeaders, &policyv1.TokenLocation{Name: h, Prefix: bearer})
	}
	rule.FromParams = locations(params)
	rule.FromCookies = locations(plain(c.texts("cookie_names")))
	if len(headers)+len(params)+len(rule.FromCookies) == 0 {
		k.leave(c.node, "names no place of a token, so that Kong refuses every request; here a rule without one looks at the header Authorization")
	}
}

func (k *kong) lifetime(c object, rule *policyv1.JwtRule) {
	most, _ := c.seconds("maximum_expiration")
	required := rule.GetExpiration() == policyv1.TimeCheck_REQUIRED
	switch {
	case most > 0 && !required:
		at, _ := c.at("maximum_expiration")
		k.fault(at, "needs exp among claims_to_verify")
	case most > 0:
		rule.MaxLifetime = seconds(most)
	case required:
		rule.MaxLifetime = seconds(longest)
	}
}

// wherever says where a policy holds: what is said of one use of jwt may be of
// a part alone of what it is for.
func wherever(t *policyv1.Target) string {
	switch {
	case t == nil:
		return "everywhere"
	case len(t.GetRoutes()) == 0:
		return "in " + t.GetServices()[0]
	}
	return "in " + t.GetServices()[0] + " (" + strings.Join(t.GetRoutes(), ", ") + ")"
}

// preflight lets preflight requests in, unless all are to be refused.
func (k *kong) preflight(p *kongPlugin, spec *policyv1.AuthenticationPolicySpec, closed string) {
	if closed == "" {
		spec.RunOnPreflight = boolean(false)
		return
	}
	at, _ := p.config.at("run_on_preflight")
	k.leave(at, "preflight requests need a token too %s, since %s", wherever(spec.GetTarget()), closed)
}

func (k *kong) anonymous(p *kongPlugin, spec *policyv1.AuthenticationPolicySpec, closed string) {
	if p.anonymous == "" {
		return
	}
	at, _ := p.config.at("anonymous")
	consumer, refuses := k.consumers[p.anonymous], ""
	if consumer != nil {
		refuses = k.refuses(consumer)
	}
	switch {
	case consumer == nil:
		k.leave(at, "there is no consumer %q; without a valid token requests are refused", clip(p.anonymous))
	case refuses == "request-termination":
		k.warn(at, "the consumer has the plugin request-termination: without a valid token requests are refused (mode STRICT)")
	case refuses != "":
		k.leave(at, "the consumer has the plugin %q, which may refuse it: without a valid token requests are refused (mode STRICT)", clip(refuses))
	case closed != "":
		k.leave(at, "without a valid token requests are refused %s (mode STRICT), since %s", wherever(spec.GetTarget()), closed)
	default:
		spec.Mode = policyv1.AuthenticationPolicySpec_PERMISSIVE
		spec.AnonymousConsumer = consumer.name
		k.bothTimes(at, spec.GetJwtRules()[0])
	}
}

// bothTimes has exp and nbf checked where Kong checks one of them. A data plane
// that looks at one alone refuses what fails it, also where all are to be let
// in; a token that fails both checks together is none.
func (k *kong) bothTimes(at node, rule *policyv1.JwtRule) {
	const text = "beside anonymous, exp and nbf are looked at together: "
	switch unchecked := policyv1.TimeCheck_NOT_CHECKED; {
	case rule.GetExpiration() == rule.GetNotBefore():
	case rule.GetNotBefore() == unchecked:
		rule.NotBefore = policyv1.TimeCheck_IF_PRESENT
		k.warn(at, text+"a token whose nbf is in the future is nobody's here (notBefore IF_PRESENT)")
	case rule.GetExpiration() == unchecked:
		rule.Expiration = policyv1.TimeCheck_IF_PRESENT
		k.warn(at, text+"a token that has expired is nobody's here (expiration IF_PRESENT)")
	}
}

func kongHeaders() []*policyv1.ConsumerHeader {
	return []*policyv1.ConsumerHeader{
		{Attribute: policyv1.ConsumerHeader_ID, Header: "X-Consumer-ID"},
		{Attribute: policyv1.ConsumerHeader_CUSTOM_ID, Header: "X-Consumer-Custom-ID"},
		{Attribute: policyv1.ConsumerHeader_USERNAME, Header: "X-Consumer-Username"},
		{Attribute: policyv1.ConsumerHeader_CREDENTIAL, Header: "X-Credential-Identifier"},
		{Attribute: policyv1.ConsumerHeader_ANONYMOUS, Header: "X-Anonymous-Consumer"},
	}
}

// kongResponses are the statuses and bodies of the plugin. It tells a token
// without the key claim from one with an unknown key, and has several texts for
// what it can't read; each of our words has one.
func kongResponses(claim string, rule *policyv1.JwtRule) []*policyv1.Response {
	message := func(text string) string { return `{"message":` + quoted(text) + `}` }
	out := []*policyv1.Response{
		answer(401, message("Unauthorized"), "token_missing"),
		answer(401, message("Bad token; invalid JSON"), "token_malformed"),
		answer(401, message("No credentials found for given '"+claim+"'"), "credential_unknown"),
		answer(401, message("Invalid algorithm"), "algorithm_not_allowed", "key_unknown"),
		answer(403, message("Invalid signature"), "signature_invalid"),
	}
	exp, nbf := rule.GetExpiration() == policyv1.TimeCheck_REQUIRED, rule.GetNotBefore() == policyv1.TimeCheck_REQUIRED
	missing := ""
	if exp {
		out = append(out, answer(401, `{"exp":"token expired"}`, "token_expired"))
		missing = `"exp":"must be a number"`
	}
	if nbf {
		out = append(out, answer(401, `{"nbf":"token not valid yet"}`, "token_not_yet_valid"))
		if missing == "" {
			missing = `"nbf":"must be a number"`
		}
	}
	if missing != "" {
		out = append(out, answer(401, "{"+missing+"}", "claim_missing"))
	}
	if d := rule.GetMaxLifetime(); d != nil && d.AsDuration() < longest {
		out = append(out, answer(403, `{"exp":"exceeds maximum allowed expiration"}`, "lifetime_exceeded"))
	}
	return append(out, answer(0, message("Unauthorized")))
}
