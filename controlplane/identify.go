package controlplane

import (
	"net/http"

	"github.com/watchword-mesh/watchword/controlplane/access"
)

// identify says who makes a request to the admin API.
func identify(adminToken string, l *loop) func(*http.Request) (access.Actor, error) {
	return func(r *http.Request) (access.Actor, error) {
		ev := access.Evidence{Source: access.SourceOf(r.RemoteAddr)}
		given, err := access.Bearer(r.Header.Values("Authorization"))
		if err != nil {
			return access.Actor{Source: ev.Source}, err
		}
		if ev.AdminToken = access.SameSecret(given, adminToken); given != "" && !ev.AdminToken {
			return access.Actor{Source: ev.Source}, access.BadCredential
		}
		return access.Resolve(l.current.Load().Config, ev)
	}
}
