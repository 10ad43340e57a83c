package api

import (
	"context"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/access"
	"github.com/watchword-mesh/watchword/controlplane/policy"
)

// mostDenials is how many an answer lists.
const mostDenials = 10

// permitted refuses a plan that its actor may not carry out, with the roles that
// it has in the state that the plan is made on. It comes before the faults, so
// that who may not write something learns nothing of it from them.
func permitted(ctx context.Context, p *plan) error {
	denials := access.From(ctx).At(p.before).MayChange(p.before, p.after, p.changed())
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
