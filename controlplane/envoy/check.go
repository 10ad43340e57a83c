package envoy

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// check refuses what Envoy would refuse, and what it would accept but enforce
// less of than is written. The compiler of policies makes no such ruleset; this
// is the last place before the wire. All faults are reported at once.
func check(rs *dataplanev1.Ruleset) error {
	var errs []error
	if rs.GetService() == "" {
		errs = append(errs, errors.New("the ruleset names no service"))
	}
	c := &checker{issuers: map[string]bool{}, sets: map[string]bool{}, consumers: map[string]bool{}, locations: tokenHeaders(rs)}
	for _, is := range rs.GetIssuers() {
		errs = append(errs, once(c.issuers, "issuer", is.GetName()), within(checkKeys(is.GetKeys()), "issuer %q", is.GetName()))
	}
	for _, co := range rs.GetConsumers() {
		errs = append(errs, once(c.consumers, "consumer", co.GetName()), within(checkConsumer(co), "consumer %q", co.GetName()))
	}
	for _, set := range rs.GetCredentialSets() {
		errs = append(errs, once(c.sets, "credential set", set.GetName()), within(c.credentialSet(set), "credential set %q", set.GetName()))
	}
	if own := rs.GetOwnSubjects(); own.GetPrefix() != "" && own.GetIssuer() == "" {
		errs = append(errs, fmt.Errorf("nobody is named who may sign for %s*: any issuer without an iss claim could", own.GetPrefix()))
	}
	errs = append(errs, checkStripped(rs.GetStrippedHeaders()), checkLastRoute(rs.GetRoutes()))
	for i, r := range rs.GetRoutes() {
		errs = append(errs, within(c.route(r), "route %d %q", i, r.GetName()))
	}
	return errors.Join(errs...)
}

// checker knows the names of the ruleset.
type checker struct {
	issuers, sets, consumers map[string]bool
	locations                map[string]bool // headers that tokens are read from
}

func once(seen map[string]bool, what, name string) error {
	if seen[name] {
		return fmt.Errorf("%s %q is there twice", what, name)
	}
	seen[name] = true
	return nil
}

// within says where each of the joined faults is.
func within(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	where := fmt.Sprintf(format, args...)
	list, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return fmt.Errorf("%s: %w", where, err)
	}
	var errs []error
	for _, e := range list.Unwrap() {
		errs = append(errs, within(e, "%s", where))
	}
	return errors.Join(errs...)
}

func checkKeys(keys []*dataplanev1.Key) error {
	if len(keys) == 0 {
		return errors.New("it has no keys: Envoy keeps the config it has, so revoked keys stay")
	}
	for i, k := range keys { // which is not in the error: it may be a secret
		var members map[string]json.RawMessage
		if json.Unmarshal([]byte(k.GetJwk()), &members) != nil || members == nil {
			return fmt.Errorf("key %d (kid %q) is not a JSON object: Envoy would keep the config it has", i, k.GetKid())
		}
	}
	return nil
}

func (c *checker) credentialSet(set *dataplanev1.CredentialSet) error {
	var errs []error
	if len(set.GetCredentials()) == 0 {
		errs = append(errs, errors.New("it is empty: no token could be verified"))
	}
	keys := map[string]bool{}
	services := 0
	for _, cr := range set.GetCredentials() {
		errs = append(errs, once(keys, "key", cr.GetKey()), within(c.credential(cr), "key %q", cr.GetKey()))
		if cr.GetService() != "" {
			services++
		}
	}
	if services > 0 && services < len(set.GetCredentials()) {
		errs = append(errs, errors.New("it has credentials of services beside others: who may sign for our subjects would depend on the key"))
	}
	return errors.Join(errs...)
}

func (c *checker) credential(cr *dataplanev1.Credential) error {
	errs := []error{checkKeys(cr.GetKeys())}
	switch k := cr.GetKey(); {
	case k == "" || hasControls(k):
		errs = append(errs, errors.New("it is empty or has control characters, which no header can carry"))
	case k == noCredential || slices.Contains(algorithms, k):
		errs = append(errs, errors.New("it is a name of our own"))
	}
	switch {
	case (cr.GetConsumer() == "") == (cr.GetService() == ""):
		errs = append(errs, errors.New("it is neither that of one consumer nor that of one service"))
	case cr.GetService() != "" && cr.GetSubject() == "":
		errs = append(errs, errors.New("the subject of the service is missing: it could sign for any"))
	case cr.GetConsumer() != "" && !c.consumers[cr.GetConsumer()]:
		errs = append(errs, fmt.Errorf("consumer %q is not in the ruleset", cr.GetConsumer()))
	}
	return errors.Join(errs...)
}

// algorithms are what verification.done leaves where a credential key would be.
var algorithms = []string{"ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"}

func checkLastRoute(routes []*dataplanev1.Route) error {
	if len(routes) == 0 {
		return errors.New("there are no routes")
	}
	if len(routes) > maxRoutes {
		return fmt.Errorf("%d routes are more than %d", len(routes), maxRoutes)
	}
	m := routes[len(routes)-1].GetMatch()
	if !proto.Equal(m, new(dataplanev1.RequestMatch)) && m != nil {
		return errors.New("the last route does not match every request")
	}
	return nil
}

func (c *checker) route(r *dataplanev1.Route) error {
	errs := []error{checkMatch(r.GetMatch()), c.authentication(r.GetAuthentication())}
	if o := r.GetObservedAuthentication(); o != nil {
		errs = append(errs, within(c.authentication(o), "observed"))
	}
	for _, rule := range authorizationRules(r) {
		errs = append(errs, within(checkAuthorizationRule(rule), "authorization rule %q", rule.GetName()))
	}
	for i, res := range r.GetResponses() {
		if s := res.GetStatus(); s != 0 && (s < 400 || s > 599) {
			errs = append(errs, fmt.Errorf("response %d: status %d is not that of a refusal", i, s))
		}
		if hasControls(res.GetContentType()) {
			errs = append(errs, fmt.Errorf("response %d: the content type has control characters, which no header can carry", i))
		}
	}
	return errors.Join(errs...)
}

func (c *checker) authentication(a *dataplanev1.Authentication) error {
	var errs []error
	switch {
	case a.GetMode() == dataplanev1.Authentication_OFF:
	case !looksAtTokens(a):
		errs = append(errs, fmt.Errorf("authentication mode %s is not known", a.GetMode()))
	case len(a.GetRules()) == 0:
		errs = append(errs, fmt.Errorf("mode %s needs a token rule", a.GetMode()))
	}
	if name := a.GetAnonymousConsumer(); name != "" && !c.consumers[name] {
		errs = append(errs, fmt.Errorf("anonymous consumer %q is not in the ruleset", name))
	}
	for _, h := range a.GetConsumerHeaders() {
		errs = append(errs, within(c.outputHeader(h.GetHeader()), "consumer header %q", h.GetHeader()))
	}
	if a.GetEndStreams() {
		errs = append(errs, errors.New("streams are to end with their token: Envoy looks at a request once, and can't end what it has let in"))
	}
	errs = append(errs, checkOutputsOnce(a))
	for i, tr := range a.GetRules() {
		errs = append(errs, within(c.tokenRule(tr, a.GetAllowScripts()), "token rule %d", i))
	}
	return errors.Join(errs...)
}

// longestPath of a match, in bytes.
const longestPath = 2048

func checkMatch(m *dataplanev1.RequestMatch) error {
	for _, h := range slices.Concat(m.GetHosts(), m.GetNotHosts()) {
		rest := strings.TrimPrefix(h, "*.")
		if rest == "" || strings.ContainsAny(rest, "*:") || rest != strings.ToLower(rest) {
			return fmt.Errorf("host %q is not a lower-case host name, with or without a leading %q", h, "*.")
		}
	}
	for _, p := range slices.Concat(m.GetPaths(), m.GetNotPaths()) {
		if !strings.HasPrefix(p, "/") || strings.Contains(strings.TrimSuffix(p, "/*"), "*") {
			return fmt.Errorf("path %q is neither like /a nor like /a/*", p)
		}
		if len(p) > longestPath {
			return fmt.Errorf("path %.40q... has more than %d bytes: Envoy would refuse the expression for it", p, longestPath)
		}
	}
	if slices.Contains(m.GetMethods(), "") || slices.Contains(m.GetNotMethods(), "") {
		return errors.New("a method is empty")
	}
	return nil
}

func (c *checker) tokenRule(tr *dataplanev1.TokenRule, scripts bool) error {
	errs := []error{c.whose(tr)}
	if slices.Contains(tr.GetAudiences(), "") || len(tr.GetAudiences()) == 0 && !tr.GetAudienceUnchecked() {
		errs = append(errs, errors.New("an audience is missing: Envoy would not check it"))
	}
	if len(tokenPlaces(tr)) == 0 {
		errs = append(errs, errors.New("it does not say where the token is: Envoy would look in places of its own"))
	}
	for _, l := range tokenPlaces(tr) {
		errs = append(errs, checkTokenPlace(l))
	}
	if slices.Contains(tr.GetRequiredClaims(), "") || slices.Contains(tr.GetTypes(), "") {
		errs = append(errs, errors.New("a required claim or a type is empty"))
	}
	for _, t := range []dataplanev1.TimeCheck{tr.GetExpiration(), tr.GetNotBefore()} {
		if t < dataplanev1.TimeCheck_TIME_CHECK_UNSPECIFIED || t > dataplanev1.TimeCheck_NOT_CHECKED {
			errs = append(errs, fmt.Errorf("time check %s is not known", t))
		}
	}
	if s := tr.GetClockSkew(); s.GetSeconds() < 0 || s.GetSeconds() > 1<<20 || s.GetNanos() != 0 {
		errs = append(errs, fmt.Errorf("clock skew %v is not a number of whole seconds", s.AsDuration()))
	}
	if d := tr.GetMaxLifetime(); d != nil && (d.AsDuration() <= 0 || d.GetSeconds() > 1<<32) {
		errs = append(errs, fmt.Errorf("max lifetime %v lets no token through", d.AsDuration()))
	}
	if !scripts {
		errs = append(errs, needsScripts(tr))
	}
	if h := tr.GetPayloadHeader(); h != "" {
		errs = append(errs, within(c.outputHeader(h), "payload header %q", h))
	}
	for _, oc := range tr.GetOutputClaims() {
		errs = append(errs, c.outputClaim(oc))
	}
	for _, m := range tr.GetConsumers() {
		if !c.consumers[m.GetConsumer()] {
			errs = append(errs, fmt.Errorf("consumer %q is not in the ruleset", m.GetConsumer()))
		}
		for _, w := range m.GetWhen() {
			errs = append(errs, within(checkClaimMatch(w), "consumer %q", m.GetConsumer()))
		}
	}
	return errors.Join(errs...)
}

// whose tokens a rule is for: those of one issuer, or of one credential set.
func (c *checker) whose(tr *dataplanev1.TokenRule) error {
	set, kc := tr.GetCredentialSet(), tr.GetKeyClaim()
	switch {
	case set == "" && !c.issuers[tr.GetIssuer()]:
		return fmt.Errorf("issuer %q is not in the ruleset", tr.GetIssuer())
	case set == "":
		return nil
	case tr.GetIssuer() != "":
		return errors.New("it has an issuer and a credential set")
	case !c.sets[set]:
		return fmt.Errorf("credential set %q is not in the ruleset", set)
	case kc.GetName() == "" || len(kc.GetSources()) == 0 || slices.Contains(kc.GetSources(), dataplanev1.KeyClaim_SOURCE_UNSPECIFIED):
		return errors.New("it does not say which claim names the credential")
	}
	return nil
}

// needsScripts refuses what Envoy does only with Lua, where that is not allowed.
func needsScripts(tr *dataplanev1.TokenRule) error {
	const otherwise = ": Envoy can't do that without scripts; allow them, or enforce the policy with the Go data plane"
	var errs []error
	for _, l := range tokenPlaces(tr) {
		switch {
		case l.kind == inForm:
			errs = append(errs, errors.New("a token in a form"+otherwise))
		case l.kind != inHeader && l.prefix != "":
			errs = append(errs, fmt.Errorf("the prefix of %s %q%s", l.kind, l.name, otherwise))
		}
	}
	for _, oc := range tr.GetOutputClaims() {
		if to := outputOf(oc); to.kind == toCookie || to.kind == toForm {
			errs = append(errs, fmt.Errorf("a claim into %s %q%s", to.kind, to.name, otherwise))
		}
	}
	return errors.Join(errs...)
}

func (c *checker) outputClaim(oc *dataplanev1.OutputClaim) error {
	places := 0
	for _, name := range []string{oc.GetHeader(), oc.GetQuery(), oc.GetCookie(), oc.GetForm()} {
		if name != "" {
			places++
		}
	}
	if places != 1 {
		return errors.New("an output claim goes to exactly one of header, query, cookie and form")
	}
	if name := oc.GetCookie(); name != "" && !wireName.MatchString(name) {
		return fmt.Errorf("output cookie %q is not the name of a cookie", name)
	}
	if oc.GetHeader() == "" {
		return within(checkClaimPath(oc.GetClaimPath()), "output %s %q", outputOf(oc).kind, outputOf(oc).name)
	}
	return within(errors.Join(c.outputHeader(oc.GetHeader()), checkClaimPath(oc.GetClaimPath())), "output header %q", oc.GetHeader())
}

func (c *checker) outputHeader(h string) error {
	switch {
	case !wireName.MatchString(h) || h == "host" || h != strings.ToLower(h) || slices.Contains(framing, h):
		return errors.New("it is not the name of a lower-case request header that may be set")
	case isOurs(h):
		return fmt.Errorf("names that begin with %s are our own", headerPrefix)
	case c.locations[strings.ReplaceAll(h, "_", "-")]:
		return errors.New("tokens are read from it, so it can't be removed first")
	}
	return nil
}

// tokenHeaders are the headers that any route reads tokens from.
func tokenHeaders(rs *dataplanev1.Ruleset) map[string]bool {
	out := map[string]bool{}
	for _, r := range rs.GetRoutes() {
		for _, tr := range slices.Concat(r.GetAuthentication().GetRules(), r.GetObservedAuthentication().GetRules()) {
			for _, h := range tr.GetFromHeaders() {
				out[strings.ReplaceAll(strings.ToLower(h.GetName()), "_", "-")] = true
			}
			if len(tr.GetFromCookies()) > 0 {
				out["cookie"] = true
			}
		}
	}
	return out
}

func checkAuthorizationRule(rule *dataplanev1.AuthorizationRule) error {
	errs := []error{checkMatch(rule.GetTo())}
	for _, p := range slices.Concat(rule.GetFrom(), rule.GetNotFrom()) {
		named := 0
		for _, name := range []string{p.GetIssuer(), p.GetService(), p.GetConsumer()} {
			if name != "" {
				named++
			}
		}
		switch {
		case named > 1:
			errs = append(errs, fmt.Errorf("a caller is named in %d ways", named))
		case named == 0 && p.GetSubject() == "":
			errs = append(errs, errors.New("a caller has no name"))
		case p.GetSubject() != "" && p.GetIssuer() == "":
			errs = append(errs, fmt.Errorf("subject %q has no issuer", p.GetSubject()))
		}
	}
	for _, m := range rule.GetWhen() {
		errs = append(errs, checkClaimMatch(m))
	}
	return errors.Join(errs...)
}

func checkClaimMatch(m *dataplanev1.ClaimMatch) error {
	if err := checkClaimPath(m.GetClaimPath()); err != nil {
		return err
	}
	where := strings.Join(m.GetClaimPath(), " > ")
	switch m.GetOp() {
	case dataplanev1.ClaimMatch_EXISTS, dataplanev1.ClaimMatch_NOT_EXISTS:
		if len(m.GetValues()) > 0 {
			return fmt.Errorf("claim %s: operator %s has values", where, m.GetOp())
		}
		return nil
	case dataplanev1.ClaimMatch_IN, dataplanev1.ClaimMatch_NOT_IN:
	default:
		return fmt.Errorf("claim %s: operator %s is not known", where, m.GetOp())
	}
	if len(m.GetValues()) == 0 {
		return fmt.Errorf("claim %s: there are no values", where)
	}
	for _, v := range m.GetValues() {
		switch v.GetKind().(type) {
		case *structpb.Value_StringValue, *structpb.Value_NumberValue, *structpb.Value_BoolValue:
		default:
			return fmt.Errorf("claim %s: a value is neither string, number nor boolean", where)
		}
	}
	return nil
}

func checkClaimPath(path []string) error {
	if len(path) == 0 || slices.Contains(path, "") {
		return errors.New("the path of a claim is empty, or has an empty name")
	}
	return nil
}
