package controlplane

import (
	"context"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/bearer"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/internal/jose"
	"github.com/watchword-mesh/watchword/issuer/ca"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// mesh implements enrolment.Mesh: what the loop has in force.
type mesh struct {
	loop *loop
}

func (m mesh) state() policy.State { return m.loop.current.Load().Config }

func (m mesh) Service(name string) *policyv1.ServiceSpec { return m.state().Service(name) }

func (m mesh) Instance(service, id string) (store.Instance, bool) {
	return m.loop.instance(service, id)
}

func (m mesh) Issuers(names []string) []bearer.Issuer {
	var out []bearer.Issuer
	for _, name := range names {
		out = append(out, m.loop.issuer(m.state(), name))
	}
	return out
}

func (m mesh) RevokedBefore(service string) time.Time {
	return m.loop.current.Load().RevokedBefore[service]
}

func (m mesh) Issuer() string           { return m.state().Issuer(policy.BuiltinIssuer).GetIssuer() }
func (m mesh) Authority() *ca.Authority { return m.loop.authority() }
func (m mesh) Revision() int64          { return m.loop.current.Load().Revision }

func (m mesh) Reached(ctx context.Context, revision int64) error {
	return m.loop.inForce(ctx, revision, "the instance is enrolled")
}

// authority is the CA of the mesh as it is now.
func (l *loop) authority() *ca.Authority { return l.ca.Load() }

// instance is one that is enrolled now.
func (l *loop) instance(service, id string) (store.Instance, bool) {
	key := service + "/" + id
	if _, left := l.departures.left.Load(key); left {
		return store.Instance{}, false
	}
	i, ok := l.current.Load().Instances.Get(key)
	return i, ok && time.Now().Before(i.Expires) // the sweep comes later
}

// issuer is one whose tokens the control plane itself takes, with the keys that
// are in force.
func (l *loop) issuer(state policy.State, name string) bearer.Issuer {
	return bearer.Issuer{Name: name, Issuer: state.Issuer(name).GetIssuer(), Keys: l.verifying.Load().issuers[name]}
}

// InstanceKey implements sts.Instances. Keys are parsed once: each token that an
// instance asks for is asked for with one.
func (l *loop) InstanceKey(service, id string) (jose.Key, bool) {
	i, ok := l.instance(service, id)
	if !ok {
		l.instanceKeys.Delete(service + "/" + id)
		return jose.Key{}, false
	}
	if k, ok := l.instanceKeys.Load(service + "/" + id); ok {
		return k.(jose.Key), true
	}
	keys, faults := jose.ParseSet([]byte(`{"keys":[`+i.PublicJWK+`]}`), jose.SetOptions{})
	if len(keys) != 1 || len(faults) > 0 {
		l.log.Error("the key of an instance can't be used", "service", service, "instance", id)
		return jose.Key{}, false
	}
	l.instanceKeys.Store(service+"/"+id, keys[0])
	return keys[0], true
}

func trustDomain(state policy.State) string {
	return state.Issuer(policy.BuiltinIssuer).GetKeySet().GetBuiltin().GetTrustDomain()
}
