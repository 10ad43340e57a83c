package controlplane

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/xds"
	"github.com/watchword-mesh/watchword/issuer/sts"
)

// outboundTokens gives managed Envoys the tokens that they call others with: what the
// token endpoint would give the same instance.
type outboundTokens struct {
	// sts is set once both servers are there.
	sts *sts.Server
	now func() time.Time
}

// Token implements xds.Tokens.
func (t *outboundTokens) Token(ctx context.Context, who xds.Identity, audience string) (xds.Token, error) {
	now := t.now()
	answer, refused := t.sts.Issue(ctx, sts.Request{Service: who.Service, Instance: who.Instance, Audience: audience})
	switch {
	case refused != nil && refused.Status < http.StatusInternalServerError && refused.Status != http.StatusTooManyRequests:
		return xds.Token{}, fmt.Errorf("%s: %w", refused.Code, xds.ErrNoToken)
	case refused != nil:
		return xds.Token{}, refused
	}
	return xds.Token{Value: answer.AccessToken, Expires: now.Add(answer.ExpiresIn), KeyID: answer.KeyID}, nil
}

// renewTokens has the tokens of keys that are gone replaced, and those that were
// refused to the services asked for again. The issuer knows of the change already.
func (l *loop) renewTokens(services []string) {
	var kids []string
	if l.signing != nil {
		for _, k := range l.signing.Keys() {
			kids = append(kids, k.ID())
		}
		slices.Sort(kids)
	}
	l.xds.RenewTokens(kids, services...)
}
