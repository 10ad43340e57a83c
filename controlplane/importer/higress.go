package importer

import (
	"cmp"
	"slices"
	"strings"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Higress imports the configuration of the plugin jwt-auth: of the whole
// gateway, with its rules under _rules_, or the WasmPlugin that holds both. The
// error is an *InputError.
func Higress(files []File, o Options) (Result, error) {
	h := higress{run: newRun(files), o: o, consumers: map[string]string{}}
	h.gateway = cmp.Or(o.Gateway, "gateway")
	if label(h.gateway) != h.gateway {
		h.fault(node{}, "%q can't be the name of the gateway's Service: lower-case letters, digits and dashes", clip(h.gateway))
	}
	if o.Routes != nil {
		h.files = append(h.files, o.Routes.Name)
	}
	docs := h.documents(files)
	if len(docs) != 1 && len(h.faults) == 0 {
		h.faults = append(h.faults, Note{Source: h.source(), Message: "wants one configuration of jwt-auth, the gateway's with the rules in _rules_"})
	}
	known := h.knownRoutes(o.Routes)
	if len(docs) == 1 {
		h.convert(h.config(docs[0]), known)
	}
	return h.result()
}

type higress struct {
	*run
	o       Options
	gateway string
	// Resource by the name of the original.
	consumers map[string]string
	// A consumer could not keep its name, so that it goes to the service in
	// another field.
	renamed bool
	// The issuers of the consumers.
	issuers []string
	routes  []*policyv1.Route
	// A rule was left over: what it is about must not be open.
	left bool
}

// higressConfig is what both forms of the configuration have.
type higressConfig struct {
	at         node
	consumers  []node
	globalAuth *bool
	rules      []higressRule
}

type higressRule struct {
	node
	routes, domains, services []textAt
	config                    object
}

func (h *higress) config(n node) higressConfig {
	if o := h.object(n); o.has("kind") {
		return h.wasmPlugin(o)
	}
	return h.wholeConfig(n)
}

// wholeConfig is the gateway's, with the rules in it.
func (h *higress) wholeConfig(n node) higressConfig {
	o := h.object(n, "consumers", "global_auth", "_rules_")
	c := h.instance(o)
	for _, r := range o.list("_rules_") {
		rule := h.object(r, "_match_route_", "_match_domain_", "_match_service_", "_match_route_prefix_", "allow", "consumers")
		c.rules = append(c.rules, higressRule{node: r, routes: rule.texts("_match_route_"), domains: rule.texts("_match_domain_"),
			services: append(rule.texts("_match_service_"), rule.texts("_match_route_prefix_")...), config: rule})
	}
	return c
}

func (h *higress) instance(o object) higressConfig {
	c := higressConfig{at: o.node, consumers: o.list("consumers")}
	if len(c.consumers) == 0 {
		h.fault(o.node, "consumers is missing")
	}
	if o.has("global_auth") {
		c.globalAuth = boolean(o.flag("global_auth", false))
	}
	return c
}

// wasmPlugin reads the Kubernetes object (extensions.higress.io/v1alpha1).
func (h *higress) wasmPlugin(o object) higressConfig {
	if kind := o.text("kind"); kind != "WasmPlugin" {
		h.fault(o.node, "the kind %q is not imported; want a WasmPlugin, or the configuration of jwt-auth alone", clip(kind))
		return higressConfig{at: o.node}
	}
	spec := o.object("spec", "defaultConfig", "defaultConfigDisable", "matchRules",
		"url", "sha256", "phase", "priority", "imagePullPolicy", "imagePullSecret", "failStrategy", "selector", "pluginConfig", "pluginName", "verificationKey", "vmConfig")
	if spec.has("pluginConfig") {
		return h.pluginConfig(spec)
	}
	if spec.flag("defaultConfigDisable", false) {
		at, _ := spec.at("defaultConfigDisable")
		h.fault(at, "the plugin is switched off for the gateway, so that there is nothing to import")
		return higressConfig{at: o.node}
	}
	c := h.instance(spec.object("defaultConfig", "consumers", "global_auth"))
	for _, r := range spec.list("matchRules") {
		rule := h.object(r, "ingress", "domain", "service", "config", "configDisable")
		hr := higressRule{node: r, routes: rule.texts("ingress"), domains: rule.texts("domain"), services: rule.texts("service"),
			config: rule.object("config", "allow", "consumers")}
		if rule.flag("configDisable", false) {
			h.leaveRule(r, "the plugin is switched off here; write an AuthenticationPolicy with mode OFF")
			continue
		}
		c.rules = append(c.rules, hr)
	}
	return c
}

// pluginConfig is the configuration in Istio's place for it, which wins over
// those of Higress.
func (h *higress) pluginConfig(spec object) higressConfig {
	for _, field := range []string{"defaultConfig", "defaultConfigDisable", "matchRules"} {
		if at, ok := spec.at(field); ok {
			h.warn(at, "is not looked at, since there is a pluginConfig, in Higress too")
		}
	}
	at, _ := spec.at("pluginConfig")
	return h.wholeConfig(at)
}

func (h *higress) leaveRule(n node, format string, args ...any) {
	h.left = true
	h.leave(n, format, args...)
}

func (h *higress) convert(c higressConfig, known map[string]*policyv1.Route) {
	var rules []*policyv1.JwtRule
	for _, n := range c.consumers {
		if r := h.consumer(n); r != nil {
			rules = append(rules, r)
		}
	}
	h.alike(c.rules)
	var restricted []string
	for _, r := range c.rules {
		restricted = append(restricted, h.rule(r, known)...)
	}
	if len(h.faults) > 0 {
		return
	}
	h.addService(h.o, h.gateway, &policyv1.ServiceSpec{Routes: h.routes})
	if len(rules) == 0 {
		h.leave(c.at, "no consumer is left, so that there is no policy: the gateway takes tokens of Watchword's own issuer alone")
		return
	}
	everywhere := (c.globalAuth == nil && len(c.rules) == 0) || (c.globalAuth != nil && *c.globalAuth)
	h.policies(c.at, rules, everywhere, restricted)
}

// policies is one for the gateway, or one for the routes with rules beside an
// open gateway.
func (h *higress) policies(at node, rules []*policyv1.JwtRule, everywhere bool, restricted []string) {
	spec := &policyv1.AuthenticationPolicySpec{
		Target: target([]string{h.gateway}), Mode: policyv1.AuthenticationPolicySpec_STRICT, JwtRules: rules,
		ConsumerHeaders: []*policyv1.ConsumerHeader{{Attribute: h.nameAttribute(), Header: "X-Mse-Consumer"}},
		Responses: []*policyv1.Response{
			answer(401, "Jwt missing", "token_missing"),
			answer(401, "Jwt expired", "token_expired"),
			answer(403, "Access Denied", "consumer_denied"),
			answer(0, "Jwt verification fails"),
		},
		AllowScripts: slices.ContainsFunc(rules, rewritesCookie),
	}
	name := h.name("AuthenticationPolicy", h.gateway, "jwt")
	switch {
	case everywhere && h.left:
		h.leave(at, "since a rule is left over, what it is about is open to every consumer")
	case everywhere:
	case h.left:
		h.leave(at, "since a rule is left over, the whole gateway needs a token, where global_auth leaves open what no rule names, and what it is about is open to every consumer")
	case len(restricted) == 0:
		h.addAuthentication(name, open(spec.Target))
		return
	default:
		open := open(target([]string{h.gateway}))
		h.addAuthentication(h.name("AuthenticationPolicy", h.gateway+"-rest", "rest"), open)
		spec.Target.Routes = restricted
	}
	h.addAuthentication(name, spec)
}

// rewritesCookie says whether a token is to be removed from a cookie, which
// Envoy does not do by itself.
func rewritesCookie(r *policyv1.JwtRule) bool {
	return len(r.GetFromCookies()) > 0 && !r.GetForwardOriginalToken()
}

// alike warns where one token can be that of several consumers. In Higress one
// of them must be allowed; here the first that verifies it is the caller.
func (h *higress) alike(rules []higressRule) {
	slices.Sort(h.issuers)
	if len(slices.Compact(slices.Clone(h.issuers))) < len(h.issuers) && len(rules) > 0 {
		h.warn(rules[0].node, "consumers have the same issuer: a token that several verify is the first one's here, also where only a later one is allowed")
	}
}

func (h *higress) nameAttribute() policyv1.ConsumerHeader_Attribute {
	if h.renamed {
		return policyv1.ConsumerHeader_USERNAME
	}
	return policyv1.ConsumerHeader_NAME
}

var higressConsumerFields = []string{"name", "jwks", "issuer", "claims", "claims_to_headers", "from_headers", "from_params", "from_cookies", "clock_skew_seconds", "keep_token"}

// consumer adds one, and returns the rule for its tokens; nil if it is left.
func (h *higress) consumer(n node) *policyv1.JwtRule {
	o := h.object(n, higressConsumerFields...)
	original := o.need("name")
	text, at, ok := o.keySetText("jwks")
	if !ok && !o.has("jwks") {
		h.fault(n, "jwks is missing")
	}
	if h.consumers[original] != "" {
		h.fault(n, "the consumer %q is given twice", clip(original))
	}
	rule := h.rest(o)
	if !ok || original == "" {
		return nil
	}
	set, ok := h.jwks(at, text)
	key := strings.TrimSpace(o.text("issuer"))
	switch {
	case !ok:
		h.leave(n, "the consumer is left out: none of its keys can be used")
		return nil
	case key == "":
		h.leave(n, "the consumer is left out: without an issuer its tokens can't be told from others'")
		return nil
	case o.has("claims"):
		claims, _ := o.at("claims")
		h.leave(claims, "values of other claims have no place here, and without them more tokens would be taken: the consumer is left out")
		return nil
	}
	name := h.rename(n, "Consumer", original, original)
	h.renamed = h.renamed || name != original
	h.consumers[original] = name
	h.issuers = append(h.issuers, key)
	h.addConsumer(name, &policyv1.ConsumerSpec{Username: original, Credentials: []*policyv1.Credential{{Key: key, KeySet: set}}})
	rule.Consumers = &policyv1.ConsumerSelector{Names: []string{name}}
	h.warn(n, "%s", uncheckedAudience)
	h.warn(n, "a token needs an exp here, at most 10 years from now: jwt-auth asks for one in its documentation, but takes tokens without; write expiration: IF_PRESENT to take them too")
	return rule
}

// rest is what a rule says beside whose tokens it is for.
func (h *higress) rest(o object) *policyv1.JwtRule {
	rule := &policyv1.JwtRule{
		AudienceCheck: policyv1.JwtRule_UNCHECKED, Expiration: policyv1.TimeCheck_REQUIRED, MaxLifetime: seconds(longest),
		ForwardOriginalToken: o.flag("keep_token", true),
		FromParams:           locations(plain(o.texts("from_params"))),
		FromCookies:          locations(plain(o.texts("from_cookies"))),
	}
	for _, n := range o.list("from_headers") {
		f := h.object(n, "name", "value_prefix")
		rule.FromHeaders = append(rule.FromHeaders, &policyv1.TokenLocation{Name: f.need("name"), Prefix: f.text("value_prefix")})
	}
	usualLocations(rule)
	if skew, ok := o.seconds("clock_skew_seconds"); ok {
		rule.ClockSkew = seconds(skew)
	}
	for _, n := range o.list("claims_to_headers") {
		c := h.object(n, "claim", "header", "override")
		claim := &policyv1.OutputClaim{ClaimPath: strings.Split(c.need("claim"), "."), Header: c.need("header")}
		if !c.flag("override", true) {
			claim.Override = boolean(false)
		}
		rule.OutputClaims = append(rule.OutputClaims, claim)
	}
	return rule
}

// rule adds the routes of a rule and who may use them; it returns their names.
func (h *higress) rule(r higressRule, known map[string]*policyv1.Route) []string {
	switch {
	case len(r.routes) > 0 && len(r.domains) > 0, len(r.routes)+len(r.domains)+len(r.services) == 0:
		h.fault(r.node, "a rule is for either routes or domains")
		return nil
	case len(r.services) > 0:
		h.leaveRule(r.node, "a rule for an upstream service, or for routes by a prefix of their names: Watchword sees neither; write a rule for the routes")
		return nil
	case r.config.has("consumers"):
		h.leaveRule(r.node, "consumers of a rule alone are not imported; only those of the gateway are")
		return nil
	case !r.config.has("allow"):
		h.fault(r.node, "allow is missing: the consumers that the rule lets in")
		return nil
	}
	var names []string
	for _, t := range r.routes {
		if name := h.namedRoute(t, known); name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if name := h.domainRoute(r.domains); name != "" {
		names = append(names, name)
	}
	if len(names) > 0 {
		h.allow(r, names)
	}
	return names
}

// namedRoute is a route of the gateway, which the user describes.
func (h *higress) namedRoute(t textAt, known map[string]*policyv1.Route) string {
	route := known[t.text]
	if route == nil {
		h.leaveRule(t.node, "what the route %q matches stands in the gateway alone: describe it with --routes", clip(t.text))
		return ""
	}
	if slices.Contains(h.routes, route) {
		h.warn(t.node, "the route %q has a rule already, which wins", clip(t.text))
		return ""
	}
	route.Name = h.rename(t.node, "Route", t.text, "route "+t.text)
	h.routes = append(h.routes, route)
	return route.Name
}

func (h *higress) domainRoute(domains []textAt) string {
	route := &policyv1.Route{}
	for _, d := range domains {
		name, ok := host(d.text)
		if !ok {
			h.leaveRule(d.node, "the domain %q %s", clip(d.text), hostReason)
		} else if !slices.Contains(route.Hosts, name) {
			route.Hosts = append(route.Hosts, name)
		}
	}
	if len(route.GetHosts()) == 0 {
		return ""
	}
	// Each rule has a route of its own, even if two name the same domain.
	route.Name = h.name("Route", strings.TrimPrefix(route.GetHosts()[0], "*."), domains[0].path)
	h.routes = append(h.routes, route)
	return route.Name
}

func (h *higress) allow(r higressRule, routes []string) {
	var names []string
	for _, a := range r.config.texts("allow") {
		switch name := h.consumers[a.text]; {
		case name == "":
			h.leave(a.node, "there is no consumer %q; nobody is let in for it", clip(a.text))
		case !slices.Contains(names, name):
			names = append(names, name)
		}
	}
	spec := &policyv1.AuthorizationPolicySpec{Target: target([]string{h.gateway}, routes...), Action: policyv1.AuthorizationPolicySpec_ALLOW}
	if len(names) > 0 {
		spec.Rules = []*policyv1.AuthorizationRule{{From: &policyv1.Source{Consumers: names}}}
	}
	h.addAuthorization(h.name("AuthorizationPolicy", h.gateway+"-"+routes[0], routes[0]), spec)
}

// knownRoutes reads the user's file: what the gateway's routes match.
func (h *higress) knownRoutes(f *File) map[string]*policyv1.Route {
	out := map[string]*policyv1.Route{}
	if f == nil {
		return out
	}
	for _, d := range h.documentsOf(*f) {
		routes := h.object(d)
		for _, name := range routes.keys {
			n := routes.fields[name]
			out[name] = h.knownRoute(n, h.object(n, "hosts", "paths", "methods"))
		}
	}
	return out
}

func (h *higress) knownRoute(n node, o object) *policyv1.Route {
	route := &policyv1.Route{Methods: plain(o.texts("methods"))}
	for _, t := range o.texts("hosts") {
		name, ok := host(t.text)
		if !ok {
			h.fault(t.node, "%q %s", clip(t.text), hostReason)
		}
		route.Hosts = append(route.Hosts, name)
	}
	for _, t := range o.texts("paths") {
		if !path(t.text) {
			h.fault(t.node, "%q %s", clip(t.text), pathReason)
		}
		route.Paths = append(route.Paths, t.text)
	}
	if len(route.GetHosts())+len(route.GetPaths())+len(route.GetMethods()) == 0 {
		h.fault(n, "gives neither hosts nor paths nor methods: what does the route match?")
	}
	return route
}
