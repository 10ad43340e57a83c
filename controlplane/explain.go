package controlplane

import (
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/watchword-mesh/watchword/controlplane/api"
	"github.com/watchword-mesh/watchword/dataplane/ruleset"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// publishedRulesets are what the data planes of each service were last given. A
// service that could not be translated keeps what it has, as its data planes do.
type publishedRulesets struct {
	services sync.Map // name -> *publishedRuleset
}

// publishedRuleset is made ready when somebody first asks.
type publishedRuleset struct {
	ready func() (*ruleset.Ruleset, error)
}

// set takes a ruleset that is not changed any more; nil for a service that is gone.
func (p *publishedRulesets) set(service string, rs *dataplanev1.Ruleset, revoked *dataplanev1.Revocations) {
	if rs == nil {
		p.services.Delete(service)
		return
	}
	p.services.Store(service, &publishedRuleset{sync.OnceValues(func() (*ruleset.Ruleset, error) { return compiled(rs, revoked) })})
}

func compiled(m *dataplanev1.Ruleset, revoked *dataplanev1.Revocations) (*ruleset.Ruleset, error) {
	rs, err := ruleset.Compile(m)
	if err != nil {
		return nil, err
	}
	r, err := ruleset.CompileRevocations(revoked)
	if err != nil {
		return nil, err
	}
	return rs.Revoking(r), nil
}

// of returns api.ErrUnknown for a service that has none.
func (p *publishedRulesets) of(service string) (*ruleset.Ruleset, error) {
	v, ok := p.services.Load(service)
	if !ok {
		return nil, api.ErrUnknown
	}
	return v.(*publishedRuleset).ready()
}

// explainer implements api.Explainer.
type explainer struct {
	rulesets   *publishedRulesets
	dataPlanes dataPlanes
	now        func() time.Time
}

func (e explainer) Explain(req *adminv1.ExplainRequest) (*adminv1.ExplainResponse, error) {
	// First, so that what is explained is at least of this revision.
	planes, revision := e.dataPlanes.List(req.GetService())
	rs, err := e.rulesets.of(req.GetService())
	if err != nil {
		return nil, err
	}
	now := e.now()
	var d ruleset.Decision
	var steps []ruleset.Step
	if req.GetToken() == "" {
		d, steps = rs.Explain(requestOf(req), now)
	} else {
		d, steps = rs.ExplainToken(requestOf(req), req.GetToken(), now)
	}
	resp := decisionProto(&d)
	resp.Revision, resp.Time, resp.DataPlanes = revision, timestamppb.New(now), planes
	for _, s := range steps {
		resp.Steps = append(resp.Steps, &adminv1.ExplainStep{Name: s.Name, Outcome: s.Outcome, Detail: s.Detail})
	}
	return resp, nil
}

func requestOf(req *adminv1.ExplainRequest) ruleset.Request {
	r := ruleset.Request{Method: req.GetMethod(), Authority: req.GetHost(), Path: req.GetPath(), Header: fieldsOf(req.GetHeaders())}
	return r.Completed(req.GetService(), fieldsOf(req.GetForm()))
}

func fieldsOf(list []*adminv1.ExplainField) []ruleset.Field {
	var out []ruleset.Field
	for _, f := range list {
		out = append(out, ruleset.Field{Name: f.GetName(), Value: f.GetValue()})
	}
	return out
}

func decisionProto(d *ruleset.Decision) *adminv1.ExplainResponse {
	out := &adminv1.ExplainResponse{
		Allowed: d.Allowed, Reason: string(d.Reason), Rule: d.Rule,
		Observed: string(d.Observed), ObservedRule: d.ObservedRule, Route: d.Route,
	}
	if c := d.Caller; c != (ruleset.Caller{}) {
		out.Caller = &adminv1.ExplainCaller{
			Issuer: c.Issuer, Iss: c.Iss, Subject: c.Subject, Service: c.Service,
			Consumer: c.Consumer, Credential: c.Credential, Anonymous: c.Anonymous,
		}
	}
	if !d.Allowed {
		out.Refusal = &adminv1.ExplainRefusal{Status: int32(d.Status), Body: d.Body}
		for _, f := range d.RefusalHeader() {
			out.Refusal.Headers = append(out.Refusal.Headers, &adminv1.ExplainField{Name: f.Name, Value: f.Value})
		}
	}
	return out
}
