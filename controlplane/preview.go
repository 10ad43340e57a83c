package controlplane

import (
	"github.com/watchword-mesh/watchword/controlplane/compile"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/controlplane/revocation"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// preview implements api.Preview with the loop's own compiler, so that nothing
// is stored that data planes could not enforce.
type preview struct{ loop *loop }

// Concerns implements api.Preview.
func (p preview) Concerns(before, after policy.State, resources []policy.Key) []string {
	return p.affected(before, after, resources, p.input(after, resources))
}

// Faults implements api.Preview: it translates the services that a change
// touches, and keeps what could not be.
func (p preview) Faults(before, after policy.State, changed []policy.Key) []policy.Fault {
	in := p.input(after, changed)
	list := p.loop.translator.each(in, p.loop.current.Load().Revocations, p.affected(before, after, changed, in), nil)
	var faults []policy.Fault
	for _, t := range list {
		if n, was := revocation.Size(t.revocations), p.loop.enforced.of(t.service).entries; n > revocation.MaxEntries && n > was {
			faults = append(faults, policy.Fault{
				Key:     policy.Key{Kind: policy.KindService, Name: t.service},
				Message: tooMany(t.service, n),
			})
		}
		if t.err != nil {
			faults = append(faults, policy.Fault{
				Key:     policy.Key{Kind: policy.KindService, Name: t.service},
				Message: "with this change Envoy could not enforce what is written: " + t.err.Error(),
			})
		}
	}
	if len(faults) == 0 {
		p.loop.translator.remember(list)
	}
	return faults
}

// affected counts an issuer as used by the services that use it now, too: one that
// loses its last key is in no ruleset any more.
func (p preview) affected(before, after policy.State, changed []policy.Key, in compile.Input) []string {
	was, is := uses(p.input(before, nil)), uses(in)
	either := func(service, issuer string) bool { return was(service, issuer) || is(service, issuer) }
	return compile.Affected(before, after, changed, either)
}

// input is what the loop would compile from.
func (p preview) input(after policy.State, changed []policy.Key) compile.Input {
	keys := p.loop.verifying.Load().clone()
	for _, k := range changed {
		// Faults of keys were found before; what is gone has none.
		switch {
		case k.Kind == policy.KindIssuer && k.Name != policy.BuiltinIssuer:
			keys.issuers[k.Name], _ = issuerKeys(k.Name, after.Issuer(k.Name), p.loop.current.Load().Bundles)
		case k.Kind == policy.KindConsumer:
			keys.consumers[k.Name], _ = policy.ConsumerKeys(after.Consumer(k.Name))
		}
	}
	return keys.input(after)
}

// uses compiles to see which services an issuer is of concern to; the loop's
// rulesets are the loop's alone.
func uses(in compile.Input) func(service, issuer string) bool {
	rulesets := map[string]*dataplanev1.Ruleset{}
	return func(service, issuer string) bool {
		rs, done := rulesets[service]
		if !done {
			rs = compile.Ruleset(in, service)
			rulesets[service] = rs
		}
		return compile.Uses(rs, issuer, in.State.Issuer(issuer).GetIssuer())
	}
}
