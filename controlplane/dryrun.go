package controlplane

import (
	"maps"

	"github.com/watchword-mesh/watchword/controlplane/compile"
	"github.com/watchword-mesh/watchword/controlplane/policy"
)

// dryRun implements api.DryRun: it translates the services that a change
// touches and keeps the faults, so that nothing is stored that data planes
// could not enforce.
func (l *loop) dryRun(before, after policy.State, changed []policy.Key) []policy.Fault {
	keys := maps.Clone(*l.verifying.Load())
	for _, k := range changed {
		if k.Kind == policy.KindIssuer && k.Name != policy.BuiltinIssuer {
			// Faults of keys were found before; an issuer that is gone has none.
			keys[k.Name], _ = policy.IssuerKeys(after.Issuer(k.Name))
		}
	}
	in := compile.Input{State: after, Keys: keys, Subject: subjects(after)}
	whatever := func(string, string) bool { return true }
	list := l.translator.each(in, compile.Affected(before, after, changed, whatever), nil)
	var faults []policy.Fault
	for _, t := range list {
		if t.err != nil {
			faults = append(faults, policy.Fault{
				Key:     policy.Key{Kind: policy.KindService, Name: t.service},
				Message: "with this change Envoy could not enforce what is written: " + t.err.Error(),
			})
		}
	}
	if len(faults) == 0 {
		l.translator.remember(list)
	}
	return faults
}
