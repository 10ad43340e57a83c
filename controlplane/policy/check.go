package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/watchword-mesh/watchword/internal/identity"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Check finds every fault of a whole State: those of single resources, and
// those between them. Faults carry Key and Field but no source.
func Check(s State) []Fault { return CheckSince(s, nil) }

// CheckSince is Check for a State that follows on one that was checked: what
// is dear to check alone and is the same resource (not merely an equal one) is
// taken as sound.
func CheckSince(s, since State) []Fault {
	c := &checker{state: s, since: since, policies: s.Policies()}
	c.shared()
	for _, k := range c.order() {
		c.key = k
		c.metadata(s[k].GetMetadata())
		switch k.Kind {
		case KindIssuer:
			c.issuer(s[k].GetIssuer())
		case KindConsumer:
			c.consumer(s[k].GetConsumer())
		case KindService:
			c.service(s[k].GetService())
		case KindAuthenticationPolicy:
			c.authentication(s[k].GetAuthenticationPolicy())
		case KindAuthorizationPolicy:
			c.authorization(s[k].GetAuthorizationPolicy())
		case KindRoleBinding:
			c.roleBinding(s[k].GetRoleBinding())
		}
	}
	return c.faults
}

// order puts the resources that were there before first, so that what must be
// unique is found at the one that is new.
func (c *checker) order() []Key {
	var old, fresh []Key
	for _, k := range c.state.Keys() {
		if c.since != nil && c.since[k] == c.state[k] {
			old = append(old, k)
		} else {
			fresh = append(fresh, k)
		}
	}
	return append(old, fresh...)
}

// checker gathers the faults of one State.
type checker struct {
	state State
	since State
	key   Key
	// policies of the state.
	policies *Policies
	faults   []Fault
	// The first owner of what must be unique in the mesh: of an `iss`, of an
	// audience, of a host, and of what names a consumer by (attribute, value).
	issuers    map[string]Key
	audiences  map[string]string
	hosts      map[string]string
	identities map[[2]string]string
	// The service that each Kubernetes workload is of.
	workloads map[workload]string
	// The authentication policy that holds each place.
	targets map[place]string
	// The services that sign with each key, by its thumbprint, once one asks.
	signers map[string][]string
	// The service of each audience, whenever it is checked; made when one asks.
	callees map[string]string
	// What is wrong with an Issuer that vouches for instances or people, by its
	// name, as far as it was asked for; "" if nothing is.
	vouching map[string]string
	// All services, and the callers that each authentication policy can tell, by
	// its name and by where it holds, as far as they were asked for.
	services []string
	told     map[string]*callers
	arriving map[place]*callers
}

// place is where one authentication policy of an enforcement can hold; the
// service is empty for the mesh, the route for the rest of a service.
type place struct {
	observe        bool
	service, route string
}

func (c *checker) fault(field, format string, args ...any) {
	c.faults = append(c.faults, Fault{Key: c.key, Field: field, Message: fmt.Sprintf(format, args...)})
}

// add takes over faults that are found apart from a state.
func (c *checker) add(faults []Fault) {
	for _, f := range faults {
		c.fault(f.Field, "%s", f.Message)
	}
}

// fresh says whether the resource must be checked by itself: it isn't the one
// that was checked when it was stored.
func (c *checker) fresh() bool { return c.since == nil || c.since[c.key] != c.state[c.key] }

func (c *checker) shared() {
	c.issuers, c.audiences, c.identities = map[string]Key{}, map[string]string{}, map[[2]string]string{}
	c.hosts = map[string]string{}
	c.targets, c.told, c.arriving = map[place]string{}, map[string]*callers{}, map[place]*callers{}
	c.workloads, c.vouching = map[workload]string{}, map[string]string{}
	c.services = c.state.Services()
}

var (
	labelText   = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_./]{0,61}[A-Za-z0-9])?$`)
	headerName  = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$") // RFC 9110 section 5.1
	methodName  = regexp.MustCompile(`^[A-Z][A-Z-]{0,31}$`)
	scopeToken  = regexp.MustCompile(`^[\x21\x23-\x5B\x5D-\x7E]{1,128}$`) // RFC 6749 section 3.3
	hostPattern = regexp.MustCompile(`^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	pathPattern = regexp.MustCompile(`^/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*$`)
	trustDomain = regexp.MustCompile(`^[a-z0-9._-]{1,255}$`) // SPIFFE-ID section 2.1
)

func (c *checker) metadata(m *policyv1.Metadata) {
	if !identity.IsName(m.GetName()) {
		c.fault("metadata.name", "%q is not a name: lower-case letters, digits and dashes, at most 63, a letter or digit at both ends", clip(m.GetName()))
	}
	for _, k := range sortedKeys(m.GetLabels()) {
		if v := m.GetLabels()[k]; !labelText.MatchString(k) || (v != "" && !labelText.MatchString(v)) {
			c.fault("metadata.labels."+k, "is not a label: letters, digits and - _ . /, at most 63")
		}
	}
}

func sortedKeys(m map[string]string) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func index(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }

// known checks that names refer to resources, each once.
func (c *checker) known(field string, kind Kind, names []string) {
	for i, n := range names {
		if c.state[Key{kind, n}] == nil {
			c.fault(index(field, i), "there is no %s %q", kind, clip(n))
		}
		c.once(field, names, i)
	}
}

func (c *checker) once(field string, list []string, i int) {
	if slices.Index(list, list[i]) < i {
		c.fault(index(field, i), "%q is given twice", clip(list[i]))
	}
}

// texts checks a list against a pattern, each entry once.
func (c *checker) texts(field string, list []string, p *regexp.Regexp, want string) {
	for i, s := range list {
		if !p.MatchString(s) {
			c.fault(index(field, i), "%q is not %s", clip(s), want)
		}
		c.once(field, list, i)
	}
}

// audience checks one value of `aud`.
func (c *checker) audience(field, aud string) {
	switch {
	case aud == "":
		c.fault(field, "is empty; name the service that the token is for")
	case SameAudience(aud) == AdminAudience:
		c.fault(field, "%q is the audience of the admin API: whoever is sent a token for it could use it there. Choose another", clip(aud))
	case strings.Contains(aud, "*"):
		c.fault(field, "%q: a wildcard is not allowed; name each audience", clip(aud))
	case len(aud) > 256 || strings.ContainsFunc(aud, func(r rune) bool { return r <= ' ' || r == 0x7f }):
		c.fault(field, "%q is not an audience: no blanks or control characters, at most 256 bytes", clip(aud))
	}
}

// SameAudience folds what Envoy's jwt_authn takes for one audience: it
// compares without http:// or https:// and without a slash at the end.
func SameAudience(aud string) string {
	aud = strings.TrimPrefix(strings.TrimPrefix(aud, "http://"), "https://")
	return strings.TrimSuffix(aud, "/")
}

// seconds checks a duration that Envoy takes in whole seconds.
func (c *checker) seconds(field string, d *durationpb.Duration, least, most time.Duration) {
	if d == nil {
		return
	}
	if v := d.AsDuration(); v < least || v > most || v%time.Second != 0 {
		c.fault(field, "%s is not a whole number of seconds from %s to %s", short(v), short(least), short(most))
	}
}

func short(d time.Duration) string { return DurationText(durationpb.New(d)) }

func (c *checker) target(t *policyv1.Target) {
	if t != nil && len(t.GetServices())+len(t.GetRoutes()) == 0 {
		// A template that renders nothing must not widen a policy.
		c.fault("spec.target", "is empty: leave it out for the whole mesh")
	}
	c.known("spec.target.services", KindService, t.GetServices())
	if len(t.GetRoutes()) > 0 && len(t.GetServices()) == 0 {
		c.fault("spec.target.routes", "routes belong to services; name the services too")
	}
	for i, route := range t.GetRoutes() {
		c.once("spec.target.routes", t.GetRoutes(), i)
		for _, name := range t.GetServices() {
			spec := c.state.Service(name)
			if spec != nil && !slices.ContainsFunc(spec.GetRoutes(), func(r *policyv1.Route) bool { return r.GetName() == route }) {
				c.fault(index("spec.target.routes", i), "Service %q has no route %q", name, clip(route))
			}
		}
	}
}

// requests checks the lists that Route and Operation share.
func (c *checker) requests(field string, hosts, paths, methods requestList) {
	c.texts(field+"."+hosts.name, hosts.list, hostPattern, `a host name: lower case, without port, such as "orders.example.com" or "*.example.com"`)
	c.texts(field+"."+methods.name, methods.list, methodName, `an HTTP method in upper case, such as "GET"`)
	for i, p := range paths.list {
		c.path(index(field+"."+paths.name, i), p)
		c.once(field+"."+paths.name, paths.list, i)
	}
}

// requestList is a list with the name of its field.
type requestList struct {
	name string
	list []string
}

// path accepts only what a normalised path can be: a rule on anything else
// would never match.
func (c *checker) path(field, p string) {
	body, wild := strings.CutSuffix(p, "*")
	switch {
	case !pathPattern.MatchString(p) || len(p) > 1024:
		c.fault(field, "%q is not a path: it begins with / and has no query; percent-encode other characters", clip(p))
	case strings.Contains(body, "*") || (wild && !strings.HasSuffix(body, "/")):
		c.fault(field, `%q: "*" may only be last, after a slash, such as "/orders/*"`, clip(p))
	case strings.Contains(p, "//") || strings.Contains(p+"/", "/./") || strings.Contains(p+"/", "/../"):
		c.fault(field, "%q can never match: paths are normalised first, so that //, /./ and /../ are gone", clip(p))
	case strings.Contains(p, ";") || strings.Contains(p, "%3B"):
		c.fault(field, "%q can never match: servers leave out parameters such as ;v=1 or take them for text, so that requests with a semicolon are refused where paths are looked at", clip(p))
	case !canonicalEscapes(p):
		c.fault(field, "%q can never match: escapes are two upper-case hex digits, and only of characters that need one", clip(p))
	}
}

var escape = regexp.MustCompile(`%..?|%$`)
var needed = regexp.MustCompile(`^%(2[0-9A-C]|3[A-F]|40|5[B-E]|60|7[B-DF]|[89ABD-F][0-9A-F]|C[2-9A-F])$`)

// canonicalEscapes refuses escapes of letters, digits, - . _ ~ and of the
// slashes, which a normalised path does not have.
func canonicalEscapes(p string) bool {
	for _, e := range escape.FindAllString(p, -1) {
		if !needed.MatchString(e) || e == "%2F" || e == "%5C" {
			return false
		}
	}
	return true
}
