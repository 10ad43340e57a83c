package ruleset

import (
	"time"

	"github.com/watchword-mesh/watchword/dataplane/reason"
)

// evaluation is one request on its way.
type evaluation struct {
	rs  *Ruleset
	req Request // without the headers that only we may set
	// what matches look at
	view view
	// seconds since 1970, as Envoy has them
	now     int64
	assumed *assumed // nil: tokens are those of the request
	memo    Memo     // nil: every token is verified anew
	parsed  []parsedToken
	route   *route
	out     Decision
	caller  identity
	rec     *recorder // nil: nobody asks

	// What the slices above and those of a rule that is tried need in most
	// requests, so that an evaluation is one piece of memory.
	parsedRoom [2]parsedToken
	foundRoom  [2]found
	verified   verified
}

func (rs *Ruleset) evaluate(req Request, token *assumed, now time.Time, rec *recorder) Decision {
	e := &evaluation{rs: rs, req: req, now: now.Unix(), assumed: token, rec: rec}
	if e.decide(); e.out.Allowed {
		e.out.Forward = e.forward()
	}
	return e.out
}

// decide does all but to make the request for the service.
func (e *evaluation) decide() {
	e.parsed = e.parsedRoom[:0]
	e.strip()
	e.view = newView(e.req)
	if word := e.guard(); word != "" {
		e.refuse(word, "")
		return
	}
	e.selectRoute()
	e.observeAuthentication()
	v, word := e.authenticate(e.route.enforced, e.route.enforced.observe)
	if word != "" {
		e.refuse(word, "")
		return
	}
	e.identify(v)
	c := &e.caller
	if rule, denied := e.authorize(e.route.authorization, c); denied {
		e.refuse(reason.ConsumerDenied, rule)
		return
	}
	e.observeAuthorization(c)
	if !e.checkRevocations() {
		e.refuse(reason.Revoked, "")
		return
	}
	e.out.Allowed = true
}

// selectRoute takes the first route that matches; Compile has seen to it that
// the last one does.
func (e *evaluation) selectRoute() {
	for _, r := range e.rs.routes {
		e.route = r
		part := r.match.fails(&e.view)
		if e.rec != nil {
			e.rec.route(r, part, &e.view)
		}
		if part == partNone {
			break
		}
	}
	e.out.Route = e.route.name
}

// observeAuthentication records what another authentication would refuse.
func (e *evaluation) observeAuthentication() {
	if e.route.observed == nil {
		return
	}
	defer e.rec.inside("observed ")()
	if _, word := e.authenticate(e.route.observed, false); word != "" {
		e.observe(word, "")
	}
}

func (e *evaluation) observeAuthorization(c *identity) {
	if e.route.observedAuthz == nil {
		return
	}
	defer e.rec.inside("observed ")()
	if rule, denied := e.authorize(e.route.observedAuthz, c); denied {
		e.observe(reason.ConsumerDenied, rule)
	}
}

// observe records a refusal that is not enforced; the first stays.
func (e *evaluation) observe(word reason.Word, rule string) {
	if e.out.Observed == "" {
		e.out.Observed, e.out.ObservedRule = word, rule
	}
}

// identity is the caller, and the token that says so if there is one.
type identity struct {
	verified *verified // nil: no token
	consumer *consumer // nil: none
	Caller
}
