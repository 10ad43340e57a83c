package api

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/access"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// mostDenials is how many an answer lists.
const mostDenials = 10

// mayName refuses what an actor who may not see everything gives without seeing it,
// whether it is there or not. It comes before anything is compared with what is
// stored: an answer such as "unchanged", or "it is at revision 7", would tell.
func mayName(ctx context.Context, state policy.State, objects []*policy.Object, remove []policy.Key) error {
	given := map[policy.Key]*policyv1.Resource{}
	for _, k := range remove {
		given[k] = nil
	}
	for _, o := range objects {
		given[o.Key] = o.Resource
	}
	return refusedAll(access.From(ctx).At(state).Unseen(state, given))
}

// mayPrune: what is taken away is told, and is of everybody.
func mayPrune(ctx context.Context, state policy.State) error {
	if access.From(ctx).At(state).SeesAll() {
		return nil
	}
	return status.Error(codes.PermissionDenied, "nothing was changed: prune is about all resources: needs a role that sees them. Delete by name what is to go")
}

// permitted refuses a plan that its actor may not carry out, with the roles that
// it has in the state that the plan is made on. It comes before the faults, which
// may tell of resources that the plan is not about. What it says itself tells
// nothing that the actor doesn't see: see mayName.
func permitted(ctx context.Context, p *plan) error {
	return refusedAll(access.From(ctx).At(p.before).MayChange(p.before, p.after, p.changed()))
}

func refusedAll(denials []access.Denial) error {
	if len(denials) == 0 {
		return nil
	}
	var texts []string
	for _, d := range denials[:min(len(denials), mostDenials)] {
		texts = append(texts, d.Error())
	}
	if more := len(denials) - len(texts); more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return status.Error(codes.PermissionDenied, "nothing was changed: "+strings.Join(texts, "; "))
}

// audited gives each step its entry.
func (p *plan) audited(ctx context.Context, method string, steps []Step) []Step {
	for i, step := range steps {
		var subjects []string
		for _, r := range step.Put {
			k := policy.KeyOf(r)
			verb := "updated "
			if p.before[k] == nil {
				verb = "created "
			}
			subjects = append(subjects, verb+k.String())
		}
		for _, k := range step.Remove {
			subjects = append(subjects, "deleted "+k.String())
		}
		steps[i].Audit = entry(ctx, method, subjects...)
	}
	return steps
}
