package api

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// attempts is how often a write is tried anew after a conflict with another
// writer. Each try checks the whole result again.
const attempts = 8

// Apply implements adminv1.AdminServiceServer.
func (s *Server) Apply(ctx context.Context, req *adminv1.ApplyRequest) (*adminv1.ApplyResponse, error) {
	var docs []policy.Document
	for _, d := range req.GetDocuments() {
		docs = append(docs, policy.Document{Source: d.GetSource(), Content: d.GetContent()})
	}
	objects, faults := policy.Parse(docs)
	if len(objects)+len(faults) == 0 {
		return nil, status.Error(codes.InvalidArgument, "the documents hold no resource")
	}
	return s.write(ctx, req.GetDryRun(), func(state policy.State) (*plan, error) {
		p := newPlan(state)
		p.faults = slices.Clone(faults)
		if err := s.put(p, objects); err != nil {
			return nil, err
		}
		if req.GetPrune() {
			p.prune(objects, req.GetPruneSelector())
		}
		p.check(objects)
		return p, nil
	})
}

// Delete implements adminv1.AdminServiceServer.
func (s *Server) Delete(ctx context.Context, req *adminv1.DeleteRequest) (*adminv1.DeleteResponse, error) {
	resp, err := s.write(ctx, false, func(state policy.State) (*plan, error) {
		p := newPlan(state)
		for _, ref := range req.GetReferences() {
			if err := p.remove(ref); err != nil {
				return nil, err
			}
		}
		p.check(nil)
		return p, nil
	})
	if err != nil {
		return nil, err
	}
	return &adminv1.DeleteResponse{Revision: resp.GetRevision(), Changes: resp.GetChanges()}, nil
}

// write plans against the current state and commits, again if another writer
// was faster.
func (s *Server) write(ctx context.Context, dryRun bool, make func(policy.State) (*plan, error)) (*adminv1.ApplyResponse, error) {
	began := time.Now()
	for try := 1; ; try++ {
		state, base := s.Configuration.Current()
		p, err := make(state)
		if err != nil {
			return nil, err
		}
		if len(p.faults) == 0 {
			p.faults = s.DryRun(p.before, p.after, p.changed())
		}
		if len(p.faults) > 0 {
			return nil, faultStatus(p.faults)
		}
		resp := &adminv1.ApplyResponse{Revision: base, Changes: p.changes(), Warnings: p.warnings}
		puts, removes := p.writes()
		if dryRun || len(puts)+len(removes) == 0 {
			return resp, nil
		}
		revision, n, err := s.Configuration.Commit(ctx, base, puts, removes)
		switch {
		case err == nil:
			resp.Revision, resp.Transactions = revision, int32(n)
			s.written.add(revision, began)
			s.audit(resp)
			// An answer means that the next call sees what was written.
			return resp, s.reached(ctx, revision)
		case errors.Is(err, ErrConflict) && n == 0 && try < attempts:
			if err := s.reached(ctx, revision); err != nil {
				return nil, err
			}
		case errors.Is(err, ErrConflict) && n == 0:
			return nil, status.Error(codes.Aborted, "others keep changing the configuration at the same time; try again")
		default:
			return nil, status.Error(codes.Unavailable, err.Error())
		}
	}
}

func (s *Server) reached(ctx context.Context, revision int64) error {
	if err := s.Configuration.Reached(ctx, revision); err != nil {
		return status.FromContextError(err).Err()
	}
	return nil
}

func (s *Server) audit(resp *adminv1.ApplyResponse) {
	for _, c := range resp.GetChanges() {
		if c.GetAction() != adminv1.Change_UNCHANGED {
			s.Logger.Info("resource changed", "resource", c.GetKind()+"/"+c.GetName(), "action", c.GetAction().String(), "revision", resp.GetRevision())
		}
	}
}

// put adds the objects to a plan. A resource that names a revision is only
// taken if that is still the stored one.
func (s *Server) put(p *plan, objects []*policy.Object) error {
	for _, o := range objects {
		old := p.before[o.Key]
		r := proto.CloneOf(o.Resource)
		m := r.Metadata
		stored := old.GetMetadata()
		if m.GetRevision() != 0 && m.GetRevision() != stored.GetRevision() {
			return conflict(o.Key, m.GetRevision(), stored)
		}
		if m.GetUid() != "" && m.GetUid() != stored.GetUid() {
			p.fault(o, "metadata.uid", "the stored resource has another uid: it was made anew since. Leave uid and revision out to take it over")
		}
		m.Revision, m.Uid = stored.GetRevision(), stored.GetUid()
		if old == nil {
			m.Uid = s.NewUID()
		}
		p.keepBuiltin(o, r, old)
		p.after[o.Key] = r
	}
	return nil
}

func conflict(k policy.Key, named int64, stored *policyv1.Metadata) error {
	if stored == nil {
		return status.Errorf(codes.FailedPrecondition, "%s: names revision %d, but there is none (deleted?): leave metadata.revision out to create it", k, named)
	}
	return status.Errorf(codes.FailedPrecondition, "%s: names revision %d, but it was changed at revision %d: get it again, and make the change there", k, named, stored.GetRevision())
}

// plan is a change of the state, before it is written.
type plan struct {
	before, after policy.State
	faults        []policy.Fault
	warnings      []string
}

func newPlan(state policy.State) *plan { return &plan{before: state, after: state.Clone()} }

func (p *plan) fault(o *policy.Object, field, message string) {
	p.faults = append(p.faults, policy.Fault{Source: o.Source, Line: o.Line(field), Key: o.Key, Field: field, Message: message})
}

// keepBuiltin carries over what the built-in issuer can't change: names that
// are in tokens already.
func (p *plan) keepBuiltin(o *policy.Object, r, old *policyv1.Resource) {
	was := old.GetIssuer().GetKeySet().GetBuiltin()
	is := r.GetIssuer().GetKeySet().GetBuiltin()
	if was == nil || is == nil {
		return
	}
	if is.GetTrustDomain() == "" {
		is.TrustDomain = was.GetTrustDomain()
	}
	if is.GetTrustDomain() != was.GetTrustDomain() {
		p.fault(o, "spec.keySet.builtin.trustDomain", "can't be changed: every token and policy names "+was.GetTrustDomain())
	}
	if r.GetIssuer().GetIssuer() != old.GetIssuer().GetIssuer() {
		p.fault(o, "spec.issuer", "can't be changed here: tokens in use name "+old.GetIssuer().GetIssuer())
	}
}

func (p *plan) remove(ref *adminv1.Reference) error {
	k := policy.Key{Kind: kindOf(ref.GetKind()), Name: ref.GetName()}
	old := p.before[k]
	switch {
	case old == nil:
		return status.Errorf(codes.NotFound, "there is no %s", k)
	case k == (policy.Key{Kind: policy.KindIssuer, Name: policy.BuiltinIssuer}):
		return status.Errorf(codes.FailedPrecondition, "%s is the built-in issuer; it can't be deleted", k)
	case ref.GetRevision() != 0 && ref.GetRevision() != old.GetMetadata().GetRevision():
		return conflict(k, ref.GetRevision(), old.GetMetadata())
	}
	delete(p.after, k)
	return nil
}

// prune removes what is not among the objects and has all of the labels.
func (p *plan) prune(objects []*policy.Object, selector map[string]string) {
	keep := map[policy.Key]bool{{Kind: policy.KindIssuer, Name: policy.BuiltinIssuer}: true}
	for _, o := range objects {
		keep[o.Key] = true
	}
	for k, r := range p.before {
		if !keep[k] && selected(r.GetMetadata().GetLabels(), selector) {
			delete(p.after, k)
		}
	}
}

func selected(labels, selector map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}

// check adds the faults of meaning, each at its place in the documents. What
// was wrong before and is not part of this change doesn't block it.
func (p *plan) check(objects []*policy.Object) {
	given := map[policy.Key]*policy.Object{}
	for _, o := range objects {
		given[o.Key] = o
	}
	broken := map[policy.Key]bool{}
	for _, f := range p.faults {
		broken[f.Key] = true
	}
	faults := policy.Check(p.after)
	known := map[policy.Fault]bool{}
	if slices.ContainsFunc(faults, func(f policy.Fault) bool { return given[f.Key] == nil }) {
		for _, f := range policy.Check(p.before) {
			known[f] = true
		}
	}
	for _, f := range faults {
		o := given[f.Key]
		switch {
		case broken[f.Key], o == nil && known[f]:
			continue
		case o != nil:
			f.Source, f.Line = o.Source, o.Line(f.Field)
		}
		p.faults = append(p.faults, f)
	}
}

// writes returns what must be stored: puts in the order in which each step is
// valid, deletions in the reverse.
func (p *plan) writes() (puts []*policyv1.Resource, removes []policy.Key) {
	for _, k := range p.after.Keys() {
		if !proto.Equal(p.before[k], p.after[k]) {
			puts = append(puts, p.after[k])
		}
	}
	for _, k := range slices.Backward(p.before.Keys()) {
		if p.after[k] == nil {
			removes = append(removes, k)
		}
	}
	return puts, removes
}

// changed are the keys of what is written.
func (p *plan) changed() []policy.Key {
	puts, keys := p.writes()
	for _, r := range puts {
		keys = append(keys, policy.KeyOf(r))
	}
	return keys
}

// keys are those of before and after, in order.
func (p *plan) keys() []policy.Key {
	all := p.before.Clone()
	maps.Copy(all, p.after)
	return all.Keys()
}
