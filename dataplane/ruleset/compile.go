package ruleset

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/structpb"

	"github.com/watchword-mesh/watchword/internal/jose"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// Compile makes a ruleset ready to be enforced. The error names all that is
// wrong with it, and where; it holds no key. A ruleset of which anything could
// not be enforced as it is written is refused as a whole.
func Compile(rs *dataplanev1.Ruleset) (*Ruleset, error) {
	c := &compiler{
		out: &Ruleset{
			service: rs.GetService(), ours: ownHeaders{}, consumers: map[string]*consumer{},
			leased: rs.GetLeased(), ownPrefix: rs.GetOwnSubjects().GetPrefix(), ownIssuer: rs.GetOwnSubjects().GetIssuer(),
		},
		issuers: map[string]*issuer{}, sets: map[string]*credentialSet{},
	}
	for _, h := range rs.GetStrippedHeaders() {
		c.out.ours.add(strings.ToLower(h))
	}
	c.names(rs)
	for i, r := range rs.GetRoutes() {
		c.at = fmt.Sprintf("route %q", r.GetName())
		c.out.routes = append(c.out.routes, c.route(r))
		if last := &c.out.routes[i].match; i == len(rs.GetRoutes())-1 && !last.matchesAll() {
			c.fault("it is the last one and does not match every request; add a route without a match")
		}
	}
	if c.at = ""; len(rs.GetRoutes()) == 0 {
		c.fault("there is no route; the last one has to match every request")
	}
	if len(c.faults) > 0 {
		return nil, fmt.Errorf("ruleset of service %q can't be enforced: %w", rs.GetService(), errors.Join(c.faults...))
	}
	return c.out, nil
}

// compiler collects faults, so that all come at once.
type compiler struct {
	out     *Ruleset
	issuers map[string]*issuer
	sets    map[string]*credentialSet
	at      string // what is being compiled
	faults  []error
}

func (c *compiler) fault(format string, args ...any) {
	err := fmt.Errorf(format, args...)
	if c.at != "" {
		err = fmt.Errorf("%s: %w", c.at, err)
	}
	c.faults = append(c.faults, err)
}

// names compiles what routes refer to.
func (c *compiler) names(rs *dataplanev1.Ruleset) {
	for _, p := range rs.GetConsumers() {
		c.at = fmt.Sprintf("consumer %q", p.GetName())
		c.inHeader(p.GetName(), p.GetId(), p.GetUsername(), p.GetCustomId())
		c.out.consumers[p.GetName()] = &consumer{name: p.GetName(), id: p.GetId(), username: p.GetUsername(), customID: p.GetCustomId()}
	}
	for _, is := range rs.GetIssuers() {
		c.at = fmt.Sprintf("issuer %q", is.GetName())
		c.issuers[is.GetName()] = &issuer{name: is.GetName(), iss: is.GetIssuer(), keys: c.keys(is.GetKeys())}
	}
	for _, s := range rs.GetCredentialSets() {
		c.sets[s.GetName()] = c.credentialSet(s)
	}
}

// inHeader refuses what a header is to tell the service and can't hold.
func (c *compiler) inHeader(values ...string) {
	if slices.ContainsFunc(values, control) {
		c.fault("it has a control character, which can't be in a header")
	}
}

func (c *compiler) credentialSet(s *dataplanev1.CredentialSet) *credentialSet {
	out := &credentialSet{name: s.GetName(), byKey: make(map[string]*credential, len(s.GetCredentials()))}
	for _, cr := range s.GetCredentials() {
		c.at = fmt.Sprintf("credential %q of set %q", cr.GetKey(), s.GetName())
		switch {
		case cr.GetKey() == "":
			c.fault("it has no key; a token could not name it")
		case out.byKey[cr.GetKey()] != nil:
			c.fault("it is there twice")
		case (cr.GetConsumer() == "") == (cr.GetService() == ""):
			c.fault("it has to belong either to a consumer or to a service")
		case cr.GetService() != "" && cr.GetSubject() == "":
			c.fault("service %q has no subject", cr.GetService())
		}
		c.inHeader(cr.GetKey())
		out.byKey[cr.GetKey()] = &credential{
			key: cr.GetKey(), keys: c.keys(cr.GetKeys()),
			consumer: c.consumer(cr.GetConsumer()), service: cr.GetService(), subject: cr.GetSubject(),
		}
	}
	return out
}

// consumer is nil for no name. One that is not listed has nothing but a name.
func (c *compiler) consumer(name string) *consumer {
	if name == "" {
		return nil
	}
	if c.out.consumers[name] == nil {
		c.out.consumers[name] = &consumer{name: name}
	}
	return c.out.consumers[name]
}

// keys are parsed whatever their strength: the policy has been judged before.
func (c *compiler) keys(list []*dataplanev1.Key) jose.KeySet {
	if len(list) == 0 {
		c.fault("it has no key")
	}
	var out []jose.Key
	for i, k := range list {
		keys, faults := jose.ParseSet([]byte(`{"keys":[`+k.GetJwk()+`]}`), jose.SetOptions{AllowWeak: true})
		switch {
		case len(faults) > 0:
			c.fault("key %d (kid %q): %s", i, k.GetKid(), faults[0].Message)
		case len(keys) != 1 || keys[0].ID() != k.GetKid() || keys[0].Algorithm() != k.GetAlgorithm():
			c.fault("key %d (kid %q): its JWK is not of this kid and algorithm %q", i, k.GetKid(), k.GetAlgorithm())
		default:
			out = append(out, keys[0])
		}
	}
	return jose.NewKeySet(out)
}

func (c *compiler) route(r *dataplanev1.Route) *route {
	out := &route{
		name: r.GetName(), match: newRequestMatch(r.GetMatch()),
		enforced: c.authentication(r.GetAuthentication()), authorization: c.authorization(r.GetAuthorization()),
	}
	c.ourHeaders(r.GetAuthentication())
	c.guards(&out.match)
	for _, list := range [][]authorizationRule{out.authorization.deny, out.authorization.allow} {
		for i := range list {
			c.guards(&list[i].to)
		}
	}
	if a := r.GetObservedAuthentication(); a != nil {
		// What is only observed changes nothing in the request.
		places := c.out.outputPlaces
		out.observed = c.authentication(a)
		c.out.outputPlaces = places
	}
	if a := r.GetObservedAuthorization(); a != nil {
		out.observedAuthz = c.authorization(a)
	}
	for _, p := range r.GetResponses() {
		out.responses = append(out.responses, response{
			reasons: slices.Clone(p.GetReasons()), status: int(p.GetStatus()), body: p.GetBody(), contentType: p.GetContentType(),
		})
	}
	return out
}

// guards switches the guard on for what a match looks at. What is only observed
// refuses nothing, so it has no guard.
func (c *compiler) guards(m *requestMatch) {
	c.out.looksAtHosts = c.out.looksAtHosts || m.looksAtHosts()
	c.out.looksAtPaths = c.out.looksAtPaths || m.looksAtPaths()
}

// ourHeaders are stripped from every request, on whatever route.
func (c *compiler) ourHeaders(a *dataplanev1.Authentication) {
	add := func(name string) {
		if name != "" {
			c.out.ours.add(strings.ToLower(name))
		}
	}
	for _, h := range a.GetConsumerHeaders() {
		add(h.GetHeader())
	}
	for _, r := range a.GetRules() {
		add(r.GetPayloadHeader())
		for _, o := range r.GetOutputClaims() {
			if !o.GetKeepExisting() {
				add(o.GetHeader())
			}
		}
	}
}

func (c *compiler) authentication(a *dataplanev1.Authentication) *authentication {
	out := &authentication{
		mode: a.GetMode(), observe: a.GetObserve(), anonymous: c.consumer(a.GetAnonymousConsumer()), rewriteCookies: a.GetAllowScripts(),
		endStreams: a.GetEndStreams(),
	}
	if out.mode == dataplanev1.Authentication_OFF {
		return out
	}
	if out.mode < dataplanev1.Authentication_STRICT || out.mode > dataplanev1.Authentication_PERMISSIVE {
		c.fault("authentication mode %s is not known", out.mode)
	}
	if len(a.GetRules()) == 0 {
		c.fault("authentication mode %s without a token rule; use OFF", out.mode)
	}
	for _, h := range a.GetConsumerHeaders() {
		if h.GetAttribute() < dataplanev1.ConsumerHeader_NAME || h.GetAttribute() > dataplanev1.ConsumerHeader_ANONYMOUS || h.GetHeader() == "" {
			c.fault("consumer header %q: attribute %s is not known", h.GetHeader(), h.GetAttribute())
		}
		out.headers = append(out.headers, consumerHeader{h.GetAttribute(), h.GetHeader()})
	}
	at := c.at
	for i, r := range a.GetRules() {
		c.at = fmt.Sprintf("%s: token rule %d", at, i)
		rule := c.tokenRule(r)
		out.rules = append(out.rules, rule)
		for _, l := range rule.locations {
			c.out.forms = c.out.forms || l.place == inForm
		}
		for _, o := range rule.outputs {
			c.out.forms = c.out.forms || o.place == inForm
			places := &c.out.outputPlaces
			if o.place == inForm {
				places = &out.outputPlaces
			}
			if o.place != inHeader && !slices.Contains(*places, o.location) {
				*places = append(*places, o.location)
			}
		}
	}
	c.at = at
	return out
}

func (c *compiler) tokenRule(r *dataplanev1.TokenRule) *tokenRule {
	out := &tokenRule{
		locations:         newLocations(r),
		skew:              r.GetClockSkew().AsDuration().Truncate(time.Second).Seconds(),
		maxLifetime:       math.Inf(1),
		audiences:         each(r.GetAudiences(), comparableAudience),
		audienceUnchecked: r.GetAudienceUnchecked(),
		expiration:        r.GetExpiration(), notBefore: r.GetNotBefore(),
		required: slices.Clone(r.GetRequiredClaims()), types: each(r.GetTypes(), mediaType),
		payloadHeader: r.GetPayloadHeader(), keepToken: r.GetForwardOriginalToken(),
	}
	if d := r.GetMaxLifetime(); d != nil {
		out.maxLifetime = d.AsDuration().Seconds()
	}
	c.owner(out, r)
	if len(out.locations) == 0 {
		c.fault("it has no place where a token could be")
	}
	if len(out.audiences) == 0 && !out.audienceUnchecked {
		c.fault("it has no audience, and audience_unchecked is not set")
	}
	for _, check := range []dataplanev1.TimeCheck{out.expiration, out.notBefore} {
		if check < dataplanev1.TimeCheck_REQUIRED || check > dataplanev1.TimeCheck_NOT_CHECKED {
			c.fault("expiration or not_before: %s is not known", check)
		}
	}
	for _, o := range r.GetOutputClaims() {
		out.outputs = append(out.outputs, c.output(o))
	}
	// In a query, a cookie and a form they have an order: that of Envoy, which
	// has to do with those of all rules in one.
	slices.SortStableFunc(out.outputs, func(a, b output) int {
		if a.place != b.place || a.place == inHeader {
			return cmp.Compare(a.place, b.place)
		}
		return cmp.Compare(a.name, b.name)
	})
	for _, m := range r.GetConsumers() {
		if m.GetConsumer() == "" {
			c.fault("a match names no consumer")
		}
		out.consumers = append(out.consumers, consumerMatch{c.consumer(m.GetConsumer()), c.conditions(m.GetWhen())})
	}
	return out
}

// owner finds what a token rule names.
func (c *compiler) owner(out *tokenRule, r *dataplanev1.TokenRule) {
	if r.GetCredentialSet() == "" {
		if out.issuer = c.issuers[r.GetIssuer()]; out.issuer == nil {
			c.fault("there is no issuer %q", r.GetIssuer())
		}
		return
	}
	if r.GetIssuer() != "" {
		c.fault("it has both issuer %q and credential set %q", r.GetIssuer(), r.GetCredentialSet())
	}
	if out.set = c.sets[r.GetCredentialSet()]; out.set == nil {
		c.fault("there is no credential set %q", r.GetCredentialSet())
	}
	out.keyClaim, out.sources = r.GetKeyClaim().GetName(), slices.Clone(r.GetKeyClaim().GetSources())
	if out.keyClaim == "" || len(out.sources) == 0 || slices.ContainsFunc(out.sources, func(s dataplanev1.KeyClaim_Source) bool {
		return s != dataplanev1.KeyClaim_PAYLOAD && s != dataplanev1.KeyClaim_HEADER
	}) {
		c.fault("its key claim needs a name, and sources that are PAYLOAD or HEADER")
	}
}

func (c *compiler) output(o *dataplanev1.OutputClaim) output {
	out := output{path: slices.Clone(o.GetClaimPath()), keep: o.GetKeepExisting()}
	places := 0
	for p, name := range []string{o.GetHeader(), o.GetQuery(), o.GetCookie(), o.GetForm()} {
		if name != "" {
			out.location = location{place: place(p), name: name}
			places++
		}
	}
	if places != 1 || len(out.path) == 0 {
		c.fault("output claim %s needs a path and exactly one place", dotted(out.path))
	}
	return out
}

func (c *compiler) authorization(a *dataplanev1.Authorization) *authorization {
	return &authorization{restricted: a.GetRestricted(), deny: c.rules(a.GetDeny()), allow: c.rules(a.GetAllow())}
}

func (c *compiler) rules(list []*dataplanev1.AuthorizationRule) []authorizationRule {
	at := c.at
	defer func() { c.at = at }()
	var out []authorizationRule
	for _, r := range list {
		c.at = fmt.Sprintf("%s: authorization rule %s", at, r.GetName())
		out = append(out, authorizationRule{
			name: r.GetName(), from: c.principals(r.GetFrom()), notFrom: c.principals(r.GetNotFrom()),
			to: newRequestMatch(r.GetTo()), when: c.conditions(r.GetWhen()),
		})
	}
	return out
}

func (c *compiler) principals(list []*dataplanev1.Principal) []principal {
	return each(list, func(p *dataplanev1.Principal) principal {
		out := principal{issuer: p.GetIssuer(), subject: p.GetSubject(), service: p.GetService(), consumer: p.GetConsumer()}
		switch {
		case out == principal{}:
			c.fault("a principal names nobody")
		case out.subject != "" && out.issuer == "":
			c.fault("subject %q without an issuer; anybody could sign for it", out.subject)
		}
		return out
	})
}

func (c *compiler) conditions(list []*dataplanev1.ClaimMatch) []condition {
	return each(list, func(m *dataplanev1.ClaimMatch) condition {
		out := condition{path: slices.Clone(m.GetClaimPath()), op: m.GetOp()}
		compares := out.op == dataplanev1.ClaimMatch_IN || out.op == dataplanev1.ClaimMatch_NOT_IN
		switch {
		case len(out.path) == 0:
			c.fault("a condition has no claim path")
		case out.op < dataplanev1.ClaimMatch_IN || out.op > dataplanev1.ClaimMatch_NOT_EXISTS:
			c.fault("claim %s: operator %s is not known", dotted(out.path), out.op)
		case compares != (len(m.GetValues()) > 0):
			c.fault("claim %s: operator %s with %d values", dotted(out.path), out.op, len(m.GetValues()))
		}
		for _, v := range m.GetValues() {
			switch v.GetKind().(type) {
			case *structpb.Value_StringValue, *structpb.Value_NumberValue, *structpb.Value_BoolValue:
				out.values = append(out.values, v.AsInterface())
			default:
				c.fault("claim %s: a value is neither text nor a number nor a boolean", dotted(out.path))
			}
		}
		return out
	})
}
