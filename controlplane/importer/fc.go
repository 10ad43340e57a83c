package importer

import (
	"strings"

	"go.yaml.in/yaml/v3"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// FunctionCompute imports the JWT authentication of custom domains of Alibaba
// Cloud Function Compute, as its API returns them (GetCustomDomain). The error
// is an *InputError.
func FunctionCompute(files []File, o Options) (Result, error) {
	f := fc{run: newRun(files), o: o, domains: map[string]node{}}
	docs := f.documents(files)
	for _, d := range docs {
		f.domain(d)
	}
	if len(docs) == 0 && len(f.faults) == 0 {
		f.fault(node{source: f.source()}, "there is no custom domain in it")
	}
	return f.result()
}

type fc struct {
	*run
	o Options
	// Where the domains stand, by their names in lower case.
	domains map[string]node
}

// Most fields of a domain say nothing about who may call.
var fcDomainFields = []string{"domainName", "authConfig", "routeConfig", "wafConfig", "corsConfig",
	"protocol", "certConfig", "tlsConfig", "accountId", "apiVersion", "createdTime", "lastModifiedTime", "subdomainCount"}

func (f *fc) domain(n node) {
	d := f.object(n, fcDomainFields...)
	name := d.need("domainName")
	for _, field := range []string{"routeConfig", "wafConfig", "corsConfig"} {
		if d.has(field) {
			at, _ := d.at(field)
			f.leave(at, "Watchword decides who may call; it does not forward, and has no firewall")
		}
	}
	config := d.object("authConfig", "authType", "authInfo")
	if !d.has("authConfig") {
		f.fault(n, "authConfig is missing")
		return
	}
	switch kind := config.need("authType"); kind {
	case "jwt":
	case "":
		return
	default:
		at, _ := config.at("authType")
		f.leave(at, "%q: only the type jwt is imported", clip(kind))
		return
	}
	domainHost, ok := host(name)
	if !ok && name != "" {
		at, _ := d.at("domainName")
		f.fault(at, "%q %s", clip(name), hostReason)
	}
	f.once(d, domainHost)
	info, ok := f.info(config)
	if !ok || name == "" {
		return
	}
	f.protect(info, domainHost)
}

// once says that a domain is given twice. Upper case makes no difference.
func (f *fc) once(d object, domain string) {
	at, ok := d.at("domainName")
	if !ok {
		return
	}
	if first, twice := f.domains[domain]; twice {
		f.fault(at, "%q is given twice; the first is in line %d of %s", clip(domain), first.yaml.Line, first.source)
		return
	}
	f.domains[domain] = at
}

// fcInfoFields are in the API's spelling and in that of its examples.
var fcInfoFields = []string{"jwks", "JWKS", "tokenLookup", "TokenLookup", "claimPassBy", "ClaimPassBy", "whitelist", "blacklist"}

// info is the object in authInfo, which the API has as a string.
func (f *fc) info(config object) (object, bool) {
	n, ok := config.at("authInfo")
	if !ok {
		f.fault(config.node, "authInfo is missing: jwks and tokenLookup")
		return object{}, false
	}
	if n.yaml.Kind == yaml.ScalarNode {
		text, ok := f.text(n)
		if !ok {
			return object{}, false
		}
		if n, ok = f.inside(n, text); !ok {
			return object{}, false
		}
	}
	info := f.object(n, fcInfoFields...)
	for i := 0; i < len(fcInfoFields)-2; i += 2 {
		if other, ok := info.fields[fcInfoFields[i+1]]; ok && !info.has(fcInfoFields[i]) {
			info.fields[fcInfoFields[i]] = other
		}
	}
	return info, true
}

func (f *fc) protect(info object, domain string) {
	rule := &policyv1.JwtRule{
		AudienceCheck: policyv1.JwtRule_UNCHECKED, Expiration: policyv1.TimeCheck_IF_PRESENT, ForwardOriginalToken: true,
	}
	spec := &policyv1.AuthenticationPolicySpec{Mode: policyv1.AuthenticationPolicySpec_STRICT, JwtRules: []*policyv1.JwtRule{rule}}
	text, at, ok := info.keySetText("jwks")
	if !info.has("jwks") {
		f.fault(info.node, "jwks is missing")
	}
	spec.AllowScripts = f.lookups(info, rule)
	spec.AllowScripts = f.claims(info, rule) || spec.AllowScripts
	spec.Responses = []*policyv1.Response{
		answer(401, "the jwt token is missing", "token_missing"),
		answer(0, "invalid or expired jwt"),
	}
	if !ok {
		return
	}
	set, ok := f.jwks(at, text)
	if !ok {
		f.leave(info.node, "the domain is left out: without a key no token could be verified")
		return
	}
	f.warn(at, "%s", uncheckedIssuer)
	f.warn(info.node, "%s", uncheckedAudience)
	f.warn(info.node, "%sIF_PRESENT", endless)
	service := f.name("Service", domain, domain)
	rule.Issuer = f.name("Issuer", domain, domain)
	f.addIssuer(rule.Issuer, &policyv1.IssuerSpec{KeySet: set})
	f.routes(info, domain, service, spec)
}

// routes makes one route of the domain, and one of its lists of paths.
func (f *fc) routes(info object, domain, service string, spec *policyv1.AuthenticationPolicySpec) {
	all := &policyv1.Route{Name: "domain", Hosts: []string{domain}}
	white, black := f.paths(info, "whitelist"), f.paths(info, "blacklist")
	if info.has("whitelist") && info.has("blacklist") {
		at, _ := info.at("blacklist")
		f.fault(at, "can't be given together with whitelist")
		return
	}
	routes := []*policyv1.Route{all}
	spec.Target = target([]string{service}, "domain")
	switch {
	case len(white.paths) > 0:
		routes = []*policyv1.Route{{Name: "whitelist", Hosts: []string{domain}, Paths: white.paths}, all}
		f.addAuthentication(f.name("AuthenticationPolicy", service+"-whitelist", "whitelist "+domain), open(target([]string{service}, "whitelist")))
	case len(black.paths) > 0 && !black.left:
		routes = []*policyv1.Route{{Name: "blacklist", Hosts: []string{domain}, Paths: black.paths}, all}
		spec.Target.Routes = []string{"blacklist"}
		f.addAuthentication(f.name("AuthenticationPolicy", service+"-rest", "rest "+domain), open(target([]string{service}, "domain")))
	case black.left:
		f.leave(black.at, "the list is left out, so that all paths need a token")
	}
	f.addService(f.o, service, &policyv1.ServiceSpec{Routes: routes})
	f.addAuthentication(f.name("AuthenticationPolicy", service, domain), spec)
}

type pathList struct {
	at    node
	paths []string
	left  bool // one of them has no place here
}

func (f *fc) paths(info object, field string) (out pathList) {
	out.at, _ = info.at(field)
	for _, p := range info.texts(field) {
		if !path(p.text) {
			f.leave(p.node, "%q %s", clip(p.text), pathReason)
			out.left = true
			continue
		}
		out.paths = append(out.paths, p.text)
	}
	return out
}

// entry is one of tokenLookup or claimPassBy: PLACE:A[:B].
type entry struct {
	node
	place, a, b string
}

// entries reads both forms: the API's string, and the list of objects of the
// tools. fields name the three parts there.
func (f *fc) entries(info object, field string, fields ...string) []entry {
	n, ok := info.at(field)
	if !ok {
		return nil
	}
	var out []entry
	if n.yaml.Kind == yaml.SequenceNode {
		for _, e := range f.list(n) {
			o := f.object(e, fields...)
			out = append(out, entry{e, o.need(fields[0]), o.text(fields[1]), o.text(fields[2])})
		}
		return out
	}
	text, _ := f.text(n)
	for part := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(part) == "" {
			continue
		}
		p := strings.SplitN(strings.TrimLeft(part, " "), ":", 3)
		e := entry{node: n, place: strings.TrimSpace(p[0])}
		if len(p) > 1 {
			e.a = strings.TrimSpace(p[1])
		}
		if len(p) > 2 {
			e.b = p[2]
		}
		out = append(out, e)
	}
	return out
}

// lookups sets where the token may be; it says whether scripts are needed.
func (f *fc) lookups(info object, rule *policyv1.JwtRule) (scripts bool) {
	for _, e := range f.entries(info, "tokenLookup", "readPosition", "parameterName", "prefix") {
		l := &policyv1.TokenLocation{Name: e.a, Prefix: e.b}
		if e.a == "" {
			f.fault(e.node, "a place of the token has no name; want such as header:Authorization:Bearer")
			continue
		}
		switch e.place {
		case "header":
			// The prefix is configured with or without the blank that must
			// stand between it and the token.
			if l.Prefix != "" && !strings.HasSuffix(l.Prefix, " ") {
				l.Prefix += " "
			}
			rule.FromHeaders = append(rule.FromHeaders, l)
			continue
		case "query":
			rule.FromParams = append(rule.FromParams, l)
		case "cookie":
			rule.FromCookies = append(rule.FromCookies, l)
		case "form":
			rule.FromForm = append(rule.FromForm, l)
		default:
			f.fault(e.node, "%q is no place of a token; there are header, query, cookie and form", clip(e.place))
		}
		scripts = scripts || l.Prefix != "" || e.place == "form"
	}
	if len(rule.FromHeaders)+len(rule.FromParams)+len(rule.FromCookies)+len(rule.FromForm) == 0 {
		f.fault(info.node, "tokenLookup is missing: where the token is, such as header:Authorization:Bearer")
	}
	return scripts
}

// claims sets what the function gets; it says whether scripts are needed.
func (f *fc) claims(info object, rule *policyv1.JwtRule) (scripts bool) {
	for _, e := range f.entries(info, "claimPassBy", "mappingParameterPosition", "claimName", "mappingParameterName") {
		if e.a == "" || e.b == "" {
			f.leave(e.node, "%q names no claim or nothing to write it to", clip(e.place))
			continue
		}
		c := &policyv1.OutputClaim{ClaimPath: []string{e.a}}
		switch e.place {
		case "header":
			c.Header = e.b
		case "query":
			c.Query = e.b
		case "cookie":
			c.Cookie = e.b
		case "form":
			c.Form = e.b
		default:
			f.fault(e.node, "%q is no place for a claim; there are header, query, cookie and form", clip(e.place))
			continue
		}
		scripts = scripts || c.Cookie != "" || c.Form != ""
		rule.OutputClaims = append(rule.OutputClaims, c)
	}
	return scripts
}
