package api

import (
	"context"
	"errors"
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
	if err := s.meets(ctx, adminv1.AdminService_Apply_FullMethodName); err != nil {
		return nil, err
	}
	var docs []policy.Document
	for _, d := range req.GetDocuments() {
		docs = append(docs, policy.Document{Source: d.GetSource(), Content: d.GetContent()})
	}
	objects, faults := policy.Parse(docs)
	if len(objects)+len(faults) == 0 {
		return nil, status.Error(codes.InvalidArgument, "the documents hold no resource")
	}
	return s.write(ctx, "Apply", req.GetDryRun(), func(state policy.State) (*plan, error) {
		if err := mayName(ctx, state, objects, nil); err != nil {
			return nil, err
		}
		p := newPlan(state)
		p.dryRun = req.GetDryRun()
		p.faults = slices.Clone(faults)
		if err := s.put(p, objects); err != nil {
			return nil, err
		}
		if req.GetPrune() {
			if err := mayPrune(ctx, state); err != nil {
				return nil, err
			}
			p.prune(objects, req.GetPruneSelector())
		}
		for _, o := range objects {
			p.given = append(p.given, o.Key)
		}
		p.check(objects)
		p.warnings = policy.Warnings(objects, p.after)
		return p, nil
	})
}

// Delete implements adminv1.AdminServiceServer.
func (s *Server) Delete(ctx context.Context, req *adminv1.DeleteRequest) (*adminv1.DeleteResponse, error) {
	if err := s.meets(ctx, adminv1.AdminService_Delete_FullMethodName); err != nil {
		return nil, err
	}
	var keys []policy.Key
	for _, ref := range req.GetReferences() {
		keys = append(keys, referred(ref))
	}
	resp, err := s.write(ctx, "Delete", false, func(state policy.State) (*plan, error) {
		if err := mayName(ctx, state, nil, keys); err != nil {
			return nil, err
		}
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
	return &adminv1.DeleteResponse{Revision: resp.GetRevision(), Changes: resp.GetChanges(), Services: resp.GetServices()}, nil
}

// write plans against the current state and commits, again if another writer
// was faster. The method is for the audit.
func (s *Server) write(ctx context.Context, method string, dryRun bool, make func(policy.State) (*plan, error)) (*adminv1.ApplyResponse, error) {
	began := time.Now()
	s.writing.Lock()
	defer s.writing.Unlock()
	for try := 1; ; try++ {
		state, base := s.Configuration.Current()
		p, err := make(state)
		if err == nil {
			err = permitted(ctx, p)
		}
		if err != nil {
			return nil, err
		}
		steps, err := s.steps(ctx, p)
		if err != nil {
			return nil, err
		}
		resp := &adminv1.ApplyResponse{Revision: base, Changes: p.changes(), Warnings: p.warnings, Generated: p.generated}
		resp.Services = sees(ctx, s.Preview.Concerns(p.before, p.after, slices.Concat(p.given, p.changed())))
		if dryRun || len(steps) == 0 {
			return resp, nil
		}
		err = s.commit(ctx, resp, p.audited(ctx, method, steps))
		if errors.Is(err, ErrConflict) && resp.Transactions == 0 && try < attempts {
			if err := s.reached(ctx, resp.Revision); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, lost(writeFailed(err, resp, len(steps)), resp)
		}
		s.written.add(resp.Revision, began)
		// An answer means that the next call sees what was written.
		return resp, lost(s.reached(ctx, resp.Revision), resp)
	}
}

// steps checks a plan and cuts it into what is written at once. Every state on
// the way is published, so each must be sound, and permitted, by itself.
func (s *Server) steps(ctx context.Context, p *plan) ([]Step, error) {
	if len(p.faults) == 0 {
		p.faults = s.Preview.Faults(p.before, p.after, p.changed())
	}
	if len(p.faults) > 0 {
		return nil, faultStatus(p.faults)
	}
	puts, removes := p.writes()
	steps, err := s.Configuration.Split(Step{Put: puts, Remove: removes})
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	between := newPlan(p.before)
	for i, step := range steps[:max(len(steps)-1, 0)] {
		step.applyTo(between.after)
		between.settled = false
		if err := permitted(ctx, between); err != nil {
			return nil, err
		}
		if faults := policy.CheckSince(between.after, p.before); len(faults) > 0 {
			return nil, status.Errorf(codes.FailedPrecondition,
				"%d changes need %d transactions, and after the first %d the configuration would not be sound (%s: %s): split the documents yourself, so that each part is sound",
				len(puts)+len(removes), len(steps), i+1, faults[0].Key, faults[0].Message)
		}
	}
	return steps, nil
}

func (st Step) applyTo(state policy.State) {
	for _, r := range st.Put {
		state[policy.KeyOf(r)] = r
	}
	for _, k := range st.Remove {
		delete(state, k)
	}
}

// commit writes the steps in order; resp counts those that were done.
func (s *Server) commit(ctx context.Context, resp *adminv1.ApplyResponse, steps []Step) error {
	for _, step := range steps {
		revision, err := s.Configuration.Commit(ctx, resp.Revision, step)
		if errors.Is(err, ErrConflict) {
			resp.Revision = revision
		}
		if err != nil {
			return err
		}
		resp.Revision = revision
		resp.Transactions++
		s.logged(step, revision)
	}
	return nil
}

func writeFailed(err error, resp *adminv1.ApplyResponse, steps int) error {
	switch {
	case resp.GetTransactions() > 0:
		return status.Errorf(codes.Unavailable, "only %d of %d transactions were done; apply again to finish: %s", resp.GetTransactions(), steps, err)
	case errors.Is(err, ErrConflict):
		return status.Error(codes.Aborted, "others keep changing the configuration at the same time; try again")
	}
	return status.Error(codes.Unavailable, err.Error())
}

// lost adds to an error that secrets were made and stored which its caller can't
// be shown: an error carries none.
func lost(err error, resp *adminv1.ApplyResponse) error {
	if err == nil || resp.GetTransactions() == 0 || len(resp.GetGenerated()) == 0 {
		return err
	}
	st := status.Convert(err)
	return status.Errorf(st.Code(), "%s. The keys and secrets that were made for %s may be stored and can't be shown: delete those credentials, and apply again", st.Message(), resp.GetGenerated()[0].GetResource())
}

// appliedTimeout is how long a call waits for what it wrote to be published.
const appliedTimeout = 30 * time.Second

func (s *Server) reached(ctx context.Context, revision int64) error {
	bounded, cancel := context.WithTimeout(ctx, appliedTimeout)
	defer cancel()
	err := s.Configuration.Reached(bounded, revision)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	}
	return status.Errorf(codes.Unavailable, "stored at revision %d, but not in force here yet: the control plane does not follow etcd (see its log)", revision)
}

func (s *Server) logged(step Step, revision int64) {
	for _, r := range step.Put {
		s.Logger.Info("resource stored", "resource", policy.KeyOf(r).String(), "revision", revision, "actor", step.Audit.Actor)
	}
	for _, k := range step.Remove {
		s.Logger.Info("resource deleted", "resource", k.String(), "revision", revision, "actor", step.Audit.Actor)
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
		s.generate(p, r, old)
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
