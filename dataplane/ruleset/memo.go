package ruleset

import (
	"strings"
	"time"

	"github.com/watchword-mesh/watchword/internal/jose"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// Memo remembers tokens that a key has verified, by their text, so that they need
// not be read and verified again. It may forget any at any time. It is used
// concurrently, and may outlive the ruleset: what it has says with which key a
// token was verified, and counts only where that is a key that may verify it now.
// All else (times, audience, claims, who may do what) is looked at anew for each
// request.
type Memo interface {
	Get(text string) *VerifiedToken
	Put(text string, t *VerifiedToken)
}

// VerifiedToken is a token, read, and the key that has verified it. It is never
// changed.
type VerifiedToken struct{ token *token }

// String does not show the token.
func (*VerifiedToken) String() string { return "ruleset.VerifiedToken" }

// GoString is String.
func (t *VerifiedToken) GoString() string { return t.String() }

// Expires is when the token ends by its own `exp`; the zero time is never.
func (t *VerifiedToken) Expires() time.Time {
	if exp := t.token.claims.seconds("exp"); exp > 0 && exp < endless {
		return time.Unix(int64(exp), 0)
	}
	return time.Time{}
}

// Verdict is a Decision, and the request for the service, which is made only where
// somebody asks for it.
type Verdict struct{ e evaluation }

// Decide decides on one request at one time. With a memo (nil: none) the decision
// is the same.
func (rs *Ruleset) Decide(req Request, now time.Time, memo Memo) *Verdict {
	v := &Verdict{evaluation{rs: rs, req: req, now: now.Unix(), memo: memo}}
	v.e.decide()
	return v
}

// By tells whether it was this ruleset that decided.
func (v *Verdict) By(rs *Ruleset) bool { return v.e.rs == rs }

// Decision is what becomes of the request; Forward is not set.
func (v *Verdict) Decision() *Decision { return &v.e.out }

// Forward is the request for the service. It is for one that is allowed, and may
// share memory with the one that was decided on.
func (v *Verdict) Forward() Request { return v.e.forward() }

// Own tells whether a header is one that only we may set, so that a caller's must go
// wherever it stands: trailers, too.
func (v *Verdict) Own(header string) bool { return v.e.rs.ours.has(header) }

// Claims is the payload of the verified token, as it was signed; nil without one.
func (v *Verdict) Claims() []byte {
	if t := v.e.caller.verified; t != nil {
		return t.token.Unverified.Claims()
	}
	return nil
}

// CallerService is the name of the service of this mesh that calls; empty if it is
// none.
func (v *Verdict) CallerService() string {
	c, t := &v.e.caller, v.e.caller.verified
	if c.Service != "" || t == nil || t.rule.issuer == nil || t.rule.issuer.iss == "" || t.rule.issuer.iss != v.e.rs.ownIssuer {
		return c.Service
	}
	service, ok := strings.CutPrefix(c.Subject, v.e.rs.ownPrefix)
	if !ok || v.e.rs.ownPrefix == "" {
		return ""
	}
	return service
}

// EndsWith tells when what this request opened has to end, where the policy says so;
// ok is false where it does not. The zero time is never.
func (v *Verdict) EndsWith() (end time.Time, ok bool) {
	a, t := v.e.route.enforced, v.e.caller.verified
	if !v.e.out.Allowed || !a.endStreams || t == nil {
		return time.Time{}, false
	}
	if end = (&VerifiedToken{t.token}).Expires(); !end.IsZero() && t.rule.expiration != dataplanev1.TimeCheck_NOT_CHECKED {
		// The first second in which it is refused (RFC 7519 section 4.1.4).
		return end.Add(time.Duration(t.rule.skew)*time.Second + time.Second), true
	}
	return time.Time{}, true
}

// remembered is the token of that text, if it was verified before.
func (e *evaluation) remembered(text string) *token {
	// What explains tells all that is looked at.
	if e.memo == nil || e.rec != nil || e.assumed != nil {
		return nil
	}
	if t := e.memo.Get(text); t != nil {
		return t.token
	}
	return nil
}

// remember keeps a token that a key has just verified, also for other rules of this
// request, and other places in it.
func (e *evaluation) remember(t *token, by jose.Key) {
	known := *t
	known.by = by
	for i := range e.parsed {
		if e.parsed[i].token == t {
			e.parsed[i].token = &known
		}
	}
	if e.memo != nil && e.rec == nil && e.assumed == nil {
		e.memo.Put(known.text, &VerifiedToken{&known})
	}
}
