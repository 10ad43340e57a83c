package importer

import (
	"github.com/watchword-mesh/watchword/controlplane/policy"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// check says what apply would refuse of the resources, which an original may
// have and we may not: a claim that goes where tokens are looked for, a list of
// thousands. They are printed all the same, for the user to change. Services
// that are left out are taken to be there. Lines that the faults name are those
// of what is printed.
func (r *run) check() {
	text, err := Result{Resources: r.resources}.YAML()
	if err != nil {
		r.left = append(r.left, Note{Source: r.source(), Message: "the resources can't be written: " + err.Error()})
		return
	}
	objects, faults := policy.Parse([]policy.Document{{Source: "stdout", Content: string(text)}})
	if len(faults) == 0 {
		state := policy.State{}
		for _, o := range objects {
			state[o.Key] = o.Resource
		}
		for name, spec := range r.present {
			state[policy.Key{Kind: policy.KindService, Name: name}] = &policyv1.Resource{
				Metadata: &policyv1.Metadata{Name: name}, Spec: &policyv1.Resource_Service{Service: spec}}
		}
		faults = policy.Check(state)
	}
	for _, f := range faults {
		r.left = append(r.left, node{source: r.source(), what: f.Key.String(), path: f.Field}.note("apply will refuse it: %s", f.Message))
	}
}
