package api

import (
	"encoding/json"

	"github.com/rogpeppe/go-internal/diff"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// changes describes a plan: what it creates, updates and deletes, and what of
// the given resources is as it was.
func (p *plan) changes() []*adminv1.Change {
	var out []*adminv1.Change
	for _, k := range p.touched() {
		before, after := p.before[k], p.after[k]
		c := &adminv1.Change{Kind: string(k.Kind), Name: k.Name}
		switch {
		case before == nil:
			c.Action = adminv1.Change_CREATED
		case after == nil:
			c.Action = adminv1.Change_DELETED
		case proto.Equal(before, after):
			c.Action = adminv1.Change_UNCHANGED
		default:
			c.Action = adminv1.Change_UPDATED
		}
		if shown := p.shown[k]; shown != nil && after != nil {
			after = shown
		}
		if c.Action != adminv1.Change_UNCHANGED {
			c.Diff = unified(k, before, after)
		}
		out = append(out, c)
	}
	return out
}

// unified returns the difference of the forms that users write. Secrets are
// redacted in both, so that a change of a secret alone is only said.
func unified(k policy.Key, before, after *policyv1.Resource) string {
	d := diff.Diff("stored "+k.String(), text(before), "new "+k.String(), text(after))
	if d == nil {
		return "a secret of " + k.String() + " differs\n"
	}
	return string(d)
}

func text(r *policyv1.Resource) []byte {
	if r == nil {
		return nil
	}
	r = proto.CloneOf(r)
	r.Metadata.Revision, r.Metadata.Uid = 0, ""
	j, err := json.Marshal(policy.Manifest(r).AsMap())
	if err != nil {
		return []byte(err.Error())
	}
	y, err := yaml.JSONToYAML(j)
	if err != nil {
		return []byte(err.Error())
	}
	return y
}
