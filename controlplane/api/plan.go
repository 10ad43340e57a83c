package api

import (
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// plan is a change of the state, before it is written.
type plan struct {
	before, after policy.State
	given         []policy.Key
	faults        []policy.Fault
	warnings      []string
	// What was made because the documents leave it out.
	generated []*adminv1.Generated
	dryRun    bool
	// What touched found.
	keys    []policy.Key
	settled bool
	// The resources to show for a dry run in place of those in after.
	shown map[policy.Key]*policyv1.Resource
}

func newPlan(state policy.State) *plan {
	return &plan{before: state, after: state.Clone(), shown: map[policy.Key]*policyv1.Resource{}}
}

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

func referred(ref *adminv1.Reference) policy.Key {
	return policy.Key{Kind: kindOf(ref.GetKind()), Name: ref.GetName()}
}

func (p *plan) remove(ref *adminv1.Reference) error {
	k := referred(ref)
	old := p.before[k]
	switch {
	case old == nil:
		return status.Errorf(codes.NotFound, "there is no %s %q", k.Kind, k.Name)
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
		// A label that is not there is not one that is empty.
		if got, there := labels[k]; !there || got != v {
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
	formal := map[policy.Key][]string{}
	for _, f := range p.faults {
		formal[f.Key] = append(formal[f.Key], f.Field)
	}
	faults := policy.CheckSince(p.after, p.before)
	known := map[policy.Fault]bool{}
	if slices.ContainsFunc(faults, func(f policy.Fault) bool { return given[f.Key] == nil }) {
		for _, f := range policy.Check(p.before) {
			known[f] = true
		}
	}
	for _, f := range faults {
		o := given[f.Key]
		switch {
		case o == nil && known[f], slices.ContainsFunc(formal[f.Key], func(field string) bool { return overlap(field, f.Field) }):
			continue
		case o != nil:
			f.Source, f.Line = o.Source, o.Line(f.Field)
		}
		p.faults = append(p.faults, f)
	}
}

// overlap says whether one field is the other, or a part of it: what is wrong
// in form there has been said already.
func overlap(a, b string) bool {
	part := func(inner, outer string) bool {
		rest, ok := strings.CutPrefix(inner, outer)
		return ok && (rest == "" || outer == "" || rest[0] == '.' || rest[0] == '[')
	}
	return part(a, b) || part(b, a)
}

// touched are the keys of what the plan is about, in order: few, where the state is
// large. What is equal to what is stored is among them. It looks through the state
// once: ask when the plan is complete.
func (p *plan) touched() []policy.Key {
	if p.settled {
		return p.keys
	}
	var keys []policy.Key
	for k, r := range p.after {
		if p.before[k] != r {
			keys = append(keys, k)
		}
	}
	for k := range p.before {
		if p.after[k] == nil {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, policy.Key.Compare)
	p.keys, p.settled = keys, true
	return keys
}

// writes returns what must be stored: puts in the order in which each step is
// valid, deletions in the reverse.
func (p *plan) writes() (puts []*policyv1.Resource, removes []policy.Key) {
	for _, k := range p.touched() {
		switch after := p.after[k]; {
		case after == nil:
			removes = append(removes, k)
		case !proto.Equal(p.before[k], after):
			puts = append(puts, after)
		}
	}
	slices.Reverse(removes)
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
