package policy

import (
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// A small world, in which any two patterns are likely to have to do with each
// other.
var (
	hosts       = []string{"a.b", "x.a.b", "y.x.a.b", "b", "xa.b"}
	hostsOf     = append(slices.Clone(hosts), "*.b", "*.a.b", "*.x.a.b")
	paths       = []string{"/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/ab/c"}
	pathsOf     = append(slices.Clone(paths), "/*", "/a/*", "/a/b/*", "/ab/*")
	methodNames = []string{"GET", "POST", "PUT"}
)

func someOf(from []string) *rapid.Generator[[]string] {
	return rapid.SliceOfNDistinct(rapid.SampledFrom(from), 0, min(3, len(from)), rapid.ID)
}

func randomRoute(t *rapid.T, name string) *policyv1.Route {
	return &policyv1.Route{
		Name:    name,
		Hosts:   someOf(hostsOf).Draw(t, name+" hosts"),
		Paths:   someOf(pathsOf).Draw(t, name+" paths"),
		Methods: someOf(methodNames).Draw(t, name+" methods"),
	}
}

// matches is what the words of the proto say, request by request.
func matches(r *policyv1.Route, host, path, method string) bool {
	any := func(list []string, one func(string) bool) bool {
		return len(list) == 0 || slices.ContainsFunc(list, one)
	}
	return any(r.GetHosts(), func(h string) bool {
		suffix, wild := strings.CutPrefix(h, "*")
		return h == host || (wild && strings.HasSuffix(host, suffix) && host != suffix)
	}) && any(r.GetPaths(), func(p string) bool {
		prefix, wild := strings.CutSuffix(p, "*")
		return p == path || (wild && strings.HasPrefix(path, prefix))
	}) && any(r.GetMethods(), func(m string) bool { return m == method })
}

// If a covers b, then every request that b matches is matched by a. It may miss
// that a covers b, but not where b has one host, path and method at most, and
// no wildcard: then the requests decide.
func TestCovers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := randomRoute(t, "a"), randomRoute(t, "b")
		stray := ""
		for _, h := range hosts {
			for _, p := range paths {
				for _, m := range methodNames {
					if matches(b, h, p, m) && !matches(a, h, p, m) {
						stray = fmt.Sprintf("%s %s%s", m, h, p)
					}
				}
			}
		}
		plain := len(b.GetHosts()) == 1 && len(b.GetPaths()) == 1 && len(b.GetMethods()) == 1 && !strings.Contains(b.GetHosts()[0]+b.GetPaths()[0], "*")
		switch got := covers(a, b); {
		case got && stray != "":
			t.Errorf("covers(%v, %v) = true, but only b matches %s", a, b, stray)
		case !got && plain && stray == "":
			t.Errorf("covers(%v, %v) = false, but a matches all that b does", a, b)
		}
	})
}

// An operation of which the not_ lists are said to leave nothing matches no
// request; and one that matches none in this small world is found where it names
// single hosts, paths and methods.
func TestNotLists(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		yes, no := randomRoute(t, "yes"), randomRoute(t, "no")
		o := &policyv1.Operation{Hosts: yes.GetHosts(), Paths: yes.GetPaths(), Methods: yes.GetMethods(),
			NotHosts: no.GetHosts(), NotPaths: no.GetPaths(), NotMethods: no.GetMethods()}
		c := &checker{}
		c.operation("to", o)
		never := slices.ContainsFunc(c.faults, func(f Fault) bool { return strings.Contains(f.Message, "excludes all") })
		excludes := func(list []string, r *policyv1.Route, host, path, method string) bool {
			return len(list) > 0 && matches(r, host, path, method)
		}
		found := ""
		for _, h := range hosts {
			for _, p := range paths {
				for _, m := range methodNames {
					if matches(yes, h, p, m) && !excludes(no.GetHosts(), &policyv1.Route{Hosts: no.GetHosts()}, h, p, m) &&
						!excludes(no.GetPaths(), &policyv1.Route{Paths: no.GetPaths()}, h, p, m) &&
						!excludes(no.GetMethods(), &policyv1.Route{Methods: no.GetMethods()}, h, p, m) {
						found = fmt.Sprintf("%s %s%s", m, h, p)
					}
				}
			}
		}
		single := !strings.Contains(strings.Join(yes.GetHosts(), "")+strings.Join(yes.GetPaths(), ""), "*") &&
			len(yes.GetHosts()) > 0 && len(yes.GetPaths()) > 0 && len(yes.GetMethods()) > 0
		switch {
		case never && found != "":
			t.Errorf("%v is said to match nothing, but matches %s", o, found)
		case !never && single && found == "":
			t.Errorf("%v matches nothing, but that is not said", o)
		}
	})
}

// token is what a JwtRule decides on.
type token struct {
	signer, audience, place string
	late, lifetime          int // seconds
	exp, extra              bool
}

// accepts is what the words of the proto say; a rule without audiences takes
// the service's own, "own". The tokens are signed by issuers, or with the
// credentials of consumers.
func accepts(r *policyv1.JwtRule, tok token) bool {
	audiences, where, skew, lifetime := r.GetAudiences(), places(r), 60, 86400
	if len(audiences) == 0 {
		audiences = []string{"own"}
	}
	if r.GetClockSkew() != nil {
		skew = int(r.GetClockSkew().GetSeconds())
	}
	if r.GetMaxLifetime() != nil {
		lifetime = int(r.GetMaxLifetime().GetSeconds())
	}
	signer := r.GetIssuer() == tok.signer
	if by := r.GetConsumers(); by != nil {
		signer = strings.HasPrefix(tok.signer, "consumer-") && Selects(by, tok.signer, nil)
	}
	audience := r.GetAudienceCheck() == policyv1.JwtRule_UNCHECKED || slices.Contains(audiences, tok.audience)
	expires := tok.exp
	switch r.GetExpiration() {
	case policyv1.TimeCheck_IF_PRESENT:
		expires = true
	case policyv1.TimeCheck_NOT_CHECKED:
		expires, skew, lifetime = true, 1<<30, 1<<30
	}
	return signer && audience && slices.Contains(where, tok.place) && tok.late <= skew && tok.lifetime <= lifetime && expires &&
		(tok.extra || len(r.GetRequiredClaims()) == 0)
}

// If a shadows b, then a verifies every token that b does. Rules have either
// the service's own audiences or, for foreign issuers, given ones.
func TestShadows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := randomRule(t, "a"), randomRule(t, "b")
		if !shadows(a, b) {
			return
		}
		for tok := range tokens(append(places(a), places(b)...)) {
			if accepts(b, tok) && !accepts(a, tok) {
				t.Fatalf("shadows(%v, %v) = true, but only b takes %+v", a, b, tok)
			}
		}
	})
}

// A rule shadows one that differs only in what narrows it.
func TestShadowsFindsCopies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := randomRule(t, "a")
		b := proto.CloneOf(a)
		b.ForwardOriginalToken = !a.ForwardOriginalToken
		if a.GetAudienceCheck() != policyv1.JwtRule_UNCHECKED && len(b.GetAudiences()) > 1 {
			b.Audiences = b.Audiences[1:]
		}
		if !shadows(a, b) {
			t.Fatalf("shadows(%v, %v) = false", a, b)
		}
	})
}

func tokens(places []string) iter.Seq[token] {
	return func(yield func(token) bool) {
		for _, signer := range []string{"i", "j", "consumer-a", "consumer-b", ""} {
			for _, audience := range []string{"own", "x", "y"} {
				for _, place := range places {
					for _, late := range []int{0, 30, 60, 120} {
						for _, lifetime := range []int{60, 3600, 86400, 172800} {
							for i := range 4 {
								if !yield(token{signer, audience, place, late, lifetime, i&1 == 0, i&2 == 0}) {
									return
								}
							}
						}
					}
				}
			}
		}
	}
}

func locationsNamed(list []string) []*policyv1.TokenLocation {
	var out []*policyv1.TokenLocation
	for _, n := range list {
		out = append(out, &policyv1.TokenLocation{Name: n})
	}
	return out
}

func randomRule(t *rapid.T, name string) *policyv1.JwtRule {
	r := &policyv1.JwtRule{
		FromParams:     locationsNamed(someOf([]string{"t", "u"}).Draw(t, name+" params")),
		FromCookies:    locationsNamed(someOf([]string{"t", "u"}).Draw(t, name+" cookies")),
		FromForm:       locationsNamed(someOf([]string{"t"}).Draw(t, name+" form")),
		ClockSkew:      rapid.SampledFrom(durations(0, 30, 60, 120)).Draw(t, name+" skew"),
		MaxLifetime:    rapid.SampledFrom(durations(0, 60, 3600, 172800)).Draw(t, name+" lifetime"),
		Expiration:     policyv1.TimeCheck(rapid.IntRange(0, 3).Draw(t, name+" expiration")),
		RequiredClaims: someOf([]string{"extra"}).Draw(t, name+" required"),
	}
	switch signer := rapid.SampledFrom([]string{"i", "j", "consumer-a", "consumer-b", "all"}).Draw(t, name+" signer"); signer {
	case "i", "j":
		r.Issuer = signer
	case "all":
		r.Consumers = &policyv1.ConsumerSelector{All: true}
	default:
		r.Consumers = &policyv1.ConsumerSelector{Names: []string{signer}}
	}
	if r.GetIssuer() != "i" {
		if rapid.Bool().Draw(t, name+" unchecked") {
			r.AudienceCheck = policyv1.JwtRule_UNCHECKED
		} else {
			r.Audiences = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"x", "y", "own"}), 1, 3, rapid.ID).Draw(t, name+" audiences")
		}
	}
	for _, h := range someOf([]string{"Authorization", "authorization", "x-token"}).Draw(t, name+" headers") {
		prefix := rapid.SampledFrom([]string{"", "Bearer "}).Draw(t, name+" prefix")
		r.FromHeaders = append(r.FromHeaders, &policyv1.TokenLocation{Name: h, Prefix: prefix})
	}
	return r
}

// durations are in seconds; 0 is none.
func durations(seconds ...int64) []*durationpb.Duration {
	var out []*durationpb.Duration
	for _, s := range seconds {
		var d *durationpb.Duration
		if s > 0 {
			d = &durationpb.Duration{Seconds: s}
		}
		out = append(out, d)
	}
	return out
}
