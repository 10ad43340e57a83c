package envoy

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// plan is a ruleset, laid out for the filters of the chain.
type plan struct {
	rs        *dataplanev1.Ruleset
	issuers   map[string]*dataplanev1.Issuer
	sets      map[string]*dataplanev1.CredentialSet
	consumers map[string]*dataplanev1.Consumer
	// treatments by first use, and the index of each route's.
	treatments []*treatment
	ofRoute    []int
	// What is enforced, and what is only recorded (nil for nothing).
	enforced, observed *verification
	script             *tokenScript
	outputs            []output
}

// treatment is what is done about the token of a request. Routes that do the
// same share one, so that what it costs is not paid for each route.
type treatment struct {
	id                       string
	authentication, observed *dataplanev1.Authentication
	responses                []*dataplanev1.Response
}

func newPlan(rs *dataplanev1.Ruleset) *plan {
	p := &plan{
		rs:        rs,
		issuers:   byName(rs.GetIssuers()),
		sets:      byName(rs.GetCredentialSets()),
		consumers: byName(rs.GetConsumers()),
	}
	p.treat()
	// The observed one comes first in the chain: the enforced one takes tokens
	// out of the request.
	p.observed = newVerification(p, "watchword_observed_", "watchword.observed.", func(t *treatment) *dataplanev1.Authentication { return t.observed })
	p.enforced = newVerification(p, "watchword_", "watchword.", func(t *treatment) *dataplanev1.Authentication { return t.authentication })
	p.outputs = findOutputs(rs)
	p.script = newTokenScript(p.observed, p.enforced)
	return p
}

func byName[T interface{ GetName() string }](list []T) map[string]T {
	out := make(map[string]T, len(list))
	for _, e := range list {
		out[e.GetName()] = e
	}
	return out
}

// treat finds the distinct treatments. If each route has its own, they have the
// names of the routes.
func (p *plan) treat() {
	known := map[string]int{}
	for i, r := range p.rs.GetRoutes() {
		t := &treatment{authentication: r.GetAuthentication(), observed: r.GetObservedAuthentication(), responses: r.GetResponses()}
		key := encoded(&dataplanev1.Route{Authentication: withoutOrigin(t.authentication), ObservedAuthentication: withoutOrigin(t.observed), Responses: t.responses})
		n, ok := known[key]
		if !ok {
			n = len(p.treatments)
			known[key] = n
			t.id = routeID(i)
			p.treatments = append(p.treatments, t)
		}
		p.ofRoute = append(p.ofRoute, n)
	}
	if p.shared() {
		for n, t := range p.treatments {
			t.id = fmt.Sprintf("treatment-%04d", n)
		}
	}
}

// withoutOrigin leaves out what changes nothing.
func withoutOrigin(a *dataplanev1.Authentication) *dataplanev1.Authentication {
	if a.GetPolicy() == "" {
		return a
	}
	a = proto.CloneOf(a)
	a.Policy = ""
	return a
}

// shared says whether there are fewer treatments than routes.
func (p *plan) shared() bool { return len(p.treatments) < len(p.ofRoute) }

// treatmentMetadata and treatmentState are where the chain keeps the treatment
// of a request.
func (p *plan) treatmentMetadata() string {
	if p.shared() {
		return treatmentKey
	}
	return routeKey
}

func (p *plan) treatmentState() string {
	if p.shared() {
		return treatmentStateKey
	}
	return routeStateKey
}

// place is the rule at one position of a treatment. Places with equal rules at
// equal positions have the same mark: the number under which the metadata say
// that it was this rule that has verified the token.
type place struct {
	treatment, position, mark int
	rule                      *dataplanev1.TokenRule
}

// verification is the authentication of all treatments, either that which is
// enforced or that which is observed.
type verification struct {
	plan *plan
	// keys of metadata and of filter state begin with these
	metadataPrefix, statePrefix string
	authentications             []*dataplanev1.Authentication // by treatment
	// places in order of treatments
	places           []place
	positions, marks int
	instances        []*instance
}

// newVerification returns nil if no treatment looks at tokens in this way.
func newVerification(p *plan, metadataPrefix, statePrefix string, of func(*treatment) *dataplanev1.Authentication) *verification {
	v := &verification{plan: p, metadataPrefix: metadataPrefix, statePrefix: statePrefix}
	for n, t := range p.treatments {
		a := of(t)
		v.authentications = append(v.authentications, a)
		if !looksAtTokens(a) {
			continue
		}
		for i, rule := range a.GetRules() {
			v.places = append(v.places, place{treatment: n, position: i, rule: rule})
		}
		v.positions = max(v.positions, len(a.GetRules()))
	}
	if len(v.places) == 0 {
		return nil
	}
	v.mark()
	v.divide()
	return v
}

func (v *verification) mark() {
	known := map[string]int{}
	for i, pl := range v.places {
		key := fmt.Sprint(pl.position, v.permissive(pl), v.authentications[pl.treatment].GetAllowScripts(), encoded(pl.rule))
		n, ok := known[key]
		if !ok {
			n = len(known)
			known[key] = n
		}
		v.places[i].mark = n
	}
	v.marks = len(known)
}

func looksAtTokens(a *dataplanev1.Authentication) bool {
	switch a.GetMode() {
	case dataplanev1.Authentication_STRICT, dataplanev1.Authentication_OPTIONAL, dataplanev1.Authentication_PERMISSIVE:
		return true
	}
	return false
}

// instance is one jwt_authn filter. The rules of a treatment are spread over
// several only where one of them has to look its key up first.
type instance struct {
	number   int
	name     string // of the filter
	stateKey string // what its requirements are found by
	places   []place
	// lookup says that the requirements are found by the key claim of a token;
	// else by the treatment.
	lookup bool
}

// divide spreads the places over instances: runs of rules that need no lookup
// share one, and each lookup has its own, in the order of the rules.
func (v *verification) divide() {
	type slot struct{ stage, lookup int }
	bySlot := map[slot]*instance{}
	var order []slot
	stage, after := 0, false
	for _, pl := range v.places {
		s := slot{lookup: -1}
		lookup := v.plan.needsLookup(pl.rule)
		switch {
		case pl.position == 0:
			stage = 0
		case lookup || after:
			stage++
		}
		if s.stage, after = stage, lookup; lookup {
			s.lookup = pl.mark
		}
		if bySlot[s] == nil {
			bySlot[s] = &instance{lookup: lookup}
			order = append(order, s)
		}
		bySlot[s].places = append(bySlot[s].places, pl)
	}
	slices.SortStableFunc(order, func(a, b slot) int { return a.stage - b.stage })
	for n, s := range order {
		in := bySlot[s]
		in.number = n
		in.name = v.statePrefix + "jwt"
		if len(order) > 1 {
			in.name += fmt.Sprint(".", n)
		}
		in.stateKey = fmt.Sprintf("%sjwt.%d.v1", v.statePrefix, n)
		v.instances = append(v.instances, in)
	}
}

// needsLookup says whether the key of a token has to be found by its claims. A
// set of one is like an issuer.
func (p *plan) needsLookup(r *dataplanev1.TokenRule) bool {
	if r.GetCredentialSet() == "" {
		return false
	}
	kc := r.GetKeyClaim()
	byIssuer := kc.GetName() == "iss" && slices.Equal(kc.GetSources(), []dataplanev1.KeyClaim_Source{dataplanev1.KeyClaim_PAYLOAD})
	return !byIssuer || len(p.sets[r.GetCredentialSet()].GetCredentials()) > 1
}

// credentials are those of a rule, none for an issuer's.
func (p *plan) credentials(r *dataplanev1.TokenRule) []*dataplanev1.Credential {
	return p.sets[r.GetCredentialSet()].GetCredentials()
}

// instanceOf finds the instance that a place is in.
func (v *verification) instanceOf(pl place) *instance {
	for _, in := range v.instances {
		if slices.ContainsFunc(in.places, func(o place) bool { return o.treatment == pl.treatment && o.position == pl.position }) {
			return in
		}
	}
	return nil
}

// at returns the places of one treatment, in order.
func (v *verification) at(treatment int) []place {
	var out []place
	for _, pl := range v.places {
		if pl.treatment == treatment {
			out = append(out, pl)
		}
	}
	return out
}

// placesWhere are those whose rule a condition holds for.
func (v *verification) placesWhere(holds func(place) bool) []place {
	if v == nil {
		return nil
	}
	var out []place
	for _, pl := range v.places {
		if holds(pl) {
			out = append(out, pl)
		}
	}
	return out
}

func (v *verification) payloadKey() string    { return v.metadataPrefix + "jwt" }
func (v *verification) byKey(mark int) string { return fmt.Sprintf("%sby_%d", v.metadataPrefix, mark) }
func (v *verification) failedKey(i int) string {
	return fmt.Sprintf("%sfailed_%d", v.metadataPrefix, i)
}
func (v *verification) byState(mark int) string {
	return fmt.Sprintf("%sby.%d.v1", v.statePrefix, mark)
}
func (v *verification) failedState(i int) string {
	return fmt.Sprintf("%sfailed.%d.v1", v.statePrefix, i)
}

// verifiedState holds the algorithm of the token that was verified, or
// "no".
func (v *verification) verifiedState() string { return v.statePrefix + "verified.v1" }

const notVerified = "no"
