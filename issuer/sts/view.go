package sts

import (
	"net/url"
	"strings"

	"github.com/watchword-mesh/watchword/internal/jose"
	"github.com/watchword-mesh/watchword/issuer/clientauth"
)

// view is a State with all that can be made ready before a request comes.
type view struct {
	*State
	auth      clientauth.Authenticator
	instances Instances
	// path of the issuer, without a slash at its end; empty if it has none.
	path     string
	jwks     document
	metadata document
}

func (s *Server) newView(st *State) *view {
	v := &view{State: st, instances: s.instances, jwks: newDocument("application/jwk-set+json", st.Keys.JWKS()), metadata: metadataOf(st, s.revoker != nil)}
	v.auth = clientauth.Authenticator{Pepper: s.pepper, Directory: v, Audience: st.Issuer, Replays: s.replays, Now: s.now}
	if u, err := url.Parse(st.Issuer); err == nil {
		v.path = strings.TrimSuffix(u.Path, "/")
	}
	return v
}

// ClientSecrets implements [clientauth.Directory]. A deleted service can't
// authenticate, even while its secrets are still there.
func (v *view) ClientSecrets(service string) []clientauth.Secret {
	if _, ok := v.Services[service]; !ok {
		return nil
	}
	return v.Secrets[service]
}

// InstanceKey implements [clientauth.Directory]. Instances of a deleted service
// can't authenticate either.
func (v *view) InstanceKey(service, instance string) (jose.Key, bool) {
	if _, ok := v.Services[service]; !ok || v.instances == nil {
		return jose.Key{}, false
	}
	return v.instances.InstanceKey(service, instance)
}
