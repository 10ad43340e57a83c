package importer

import (
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// callers are issuers, whose every subject counts, and single subjects.
type callers struct {
	issuers  []string
	subjects []*policyv1.Subject
}

func (c callers) empty() bool { return len(c.issuers)+len(c.subjects) == 0 }

func (c *callers) addIssuer(name string) {
	if !slices.Contains(c.issuers, name) {
		c.issuers = append(c.issuers, name)
	}
}

func (c *callers) addSubject(issuer, subject string) {
	if !slices.ContainsFunc(c.subjects, func(s *policyv1.Subject) bool { return s.GetIssuer() == issuer && s.GetSubject() == subject }) {
		c.subjects = append(c.subjects, &policyv1.Subject{Issuer: issuer, Subject: subject})
	}
}

// names are the resources of issuers given by iss.
func (c *converter) names(issuers []string) []string {
	var out []string
	for _, iss := range issuers {
		out = append(out, c.issuers[iss].name)
	}
	return out
}

// principals reads ISS/SUB, ISS/* and *. Both parts may hold slashes, so that
// the issuers that are accepted decide where one ends.
func (c *converter) principals(values []textAt) (out callers) {
	for _, v := range values {
		prefix, wild := strings.CutSuffix(v.text, "*")
		switch {
		case v.text == "*":
			for _, name := range c.names(c.accepted) {
				out.addIssuer(name)
			}
		case strings.Contains(prefix, "*"), wild && !strings.HasSuffix(prefix, "/"):
			c.lose(v.node, "%q: a wildcard stands for all subjects of an issuer (ISS/*) or for all callers (*), nothing else", clip(v.text))
		case wild:
			c.prefix(v, prefix, &out)
		default:
			c.exact(v, &out)
		}
	}
	return out
}

func (c *converter) prefix(v textAt, prefix string, out *callers) {
	found := false
	for _, iss := range c.accepted {
		switch name := c.issuers[iss].name; {
		case strings.HasPrefix(iss+"/", prefix):
			found = true
			out.addIssuer(name)
		case strings.HasPrefix(prefix, iss+"/"):
			found = true
			c.lose(v.node, "%q could stand for subjects of %q that begin alike; subjects are matched exactly", clip(v.text), clip(iss))
		}
	}
	if !found {
		c.nobody(v)
	}
}

func (c *converter) exact(v textAt, out *callers) {
	found := false
	for _, iss := range c.accepted {
		if sub, ok := strings.CutPrefix(v.text, iss+"/"); ok && sub != "" {
			found = true
			out.addSubject(c.issuers[iss].name, sub)
		}
	}
	if !found {
		c.nobody(v)
	}
}

// nobody is said of a principal that nobody can be.
func (c *converter) nobody(v textAt) {
	c.leave(v.node, "%q is a caller of no issuer whose tokens are taken there; nobody can be it", clip(v.text))
}

var claimKey = regexp.MustCompile(`^request\.auth\.claims((?:\[[^\[\]]+\])+)$`)

// conditions reads when, all of which must hold; ok is false if the rule is
// left out for it.
func (c *converter) conditions(rule object) (out part, ok bool) {
	c.lost, c.never = false, false
	for _, n := range rule.list("when") {
		c.condition(c.object(n, "key", "values", "notValues"), &out)
	}
	at, _ := rule.at("when")
	return out, c.keep(at)
}

func (c *converter) condition(o object, out *part) {
	key := o.need("key")
	values, not := o.texts("values"), o.texts("notValues")
	if len(values)+len(not) == 0 {
		c.fault(o.node, "values and notValues are missing")
		return
	}
	path := claimPath(key)
	switch {
	case len(path) == 1 && slices.Contains(c.split, path[0]) && (compared(values) || compared(not)):
		c.lose(o.node, "Istio takes the claim %q apart at blanks, and compares each part; here it would be compared whole", clip(path[0]))
	case key == "request.auth.principal":
		c.caller(o, out, c.principals, values, not)
	case path == nil:
		c.lose(o.node, "the key %q is not looked at; request.auth.claims, principal, audiences and presenter are", clip(key))
	case slices.Equal(path, []string{"iss"}):
		c.caller(o, out, c.issuersOf, values, not)
	case slices.Equal(path, []string{"sub"}):
		c.caller(o, out, c.subjectsOf, values, not)
	default:
		c.claim(o, out, path, values, not)
	}
}

// claimPath is where the claim of a key stands; nil for other keys.
func claimPath(key string) []string {
	switch m := claimKey.FindStringSubmatch(key); {
	case key == "request.auth.audiences":
		return []string{"aud"}
	case key == "request.auth.presenter":
		return []string{"azp"}
	case m != nil:
		return strings.Split(strings.Trim(m[1], "[]"), "][")
	}
	return nil
}

// compared says whether a claim must be looked at for a list, and not only be
// there.
func compared(values []textAt) bool {
	return len(values) > 0 && !slices.ContainsFunc(values, func(v textAt) bool { return v.text == "*" })
}

// caller is a condition on who asks.
func (c *converter) caller(o object, out *part, read func([]textAt) callers, values, not []textAt) {
	if len(values) > 0 {
		found := read(values)
		if out.callers != nil {
			c.lose(o.node, "a second condition on iss, sub or the principal, which both must hold, has no place")
			return
		}
		out.callers, c.never = &found, c.never || found.empty()
	}
	if len(not) > 0 {
		found := read(not)
		out.not.issuers = append(out.not.issuers, found.issuers...)
		out.not.subjects = append(out.not.subjects, found.subjects...)
	}
}

// issuersOf reads values of the claim iss.
func (c *converter) issuersOf(values []textAt) (out callers) {
	for _, v := range values {
		switch {
		case v.text == "*":
			for _, name := range c.names(c.accepted) {
				out.addIssuer(name)
			}
		case strings.Contains(v.text, "*"):
			c.lose(v.node, "%q: %s", clip(v.text), wildcardReason)
		case slices.Contains(c.accepted, v.text):
			out.addIssuer(c.issuers[v.text].name)
		default:
			c.nobody(v)
		}
	}
	return out
}

// subjectsOf reads values of the claim sub: of any issuer.
func (c *converter) subjectsOf(values []textAt) (out callers) {
	for _, v := range values {
		if strings.Contains(v.text, "*") {
			c.lose(v.node, "%q: %s", clip(v.text), wildcardReason)
			continue
		}
		for _, name := range c.names(c.accepted) {
			out.addSubject(name, v.text)
		}
	}
	return out
}

const wildcardReason = "values are compared whole; of wildcards only * alone has a place"

// claim is a condition on any other claim.
func (c *converter) claim(o object, out *part, path []string, values, not []textAt) {
	if len(values) > 0 {
		out.when = append(out.when, c.compare(path, values, policyv1.Condition_IN, policyv1.Condition_EXISTS))
	}
	if len(not) > 0 {
		out.unless = append(out.unless, c.compare(path, not, policyv1.Condition_NOT_IN, policyv1.Condition_NOT_EXISTS))
	}
}

func (c *converter) compare(path []string, values []textAt, in, any policyv1.Condition_Operator) *policyv1.Condition {
	out := &policyv1.Condition{ClaimPath: path, Op: in}
	for _, v := range values {
		switch {
		case v.text == "*":
			return &policyv1.Condition{ClaimPath: path, Op: any}
		case strings.HasPrefix(v.text, "*") || strings.HasSuffix(v.text, "*"):
			c.lose(v.node, "%q: %s", clip(v.text), wildcardReason)
		default:
			out.Values = append(out.Values, structpb.NewStringValue(v.text))
		}
	}
	return out
}
