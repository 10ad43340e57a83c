package controlplane

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/watchword-mesh/watchword/controlplane/access"
	"github.com/watchword-mesh/watchword/controlplane/api"
	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/issuer/clientauth"
	"github.com/watchword-mesh/watchword/issuer/keyset"
	"github.com/watchword-mesh/watchword/issuer/sts"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// tellIssuer gives the token service what it answers from, when that changed.
func (l *loop) tellIssuer(e store.Event, signing *keyset.Set) {
	touched := e.SigningKeys || e.ClientSecrets
	for _, k := range e.Changed {
		touched = touched || k.Kind == policy.KindService || k.Kind == policy.KindRoleBinding || k.Name == policy.BuiltinIssuer
	}
	if signing != nil {
		l.signing = signing
	}
	if !touched || l.signing == nil {
		return
	}
	spec := e.Snapshot.Config.Issuer(policy.BuiltinIssuer)
	l.sts.SetState(&sts.State{
		Issuer:      spec.GetIssuer(),
		TrustDomain: trustDomain(e.Snapshot.Config),
		Lifetime:    spec.GetKeySet().GetBuiltin().GetTokenLifetime().AsDuration(),
		Keys:        l.signing,
		Services:    clients(e.Snapshot.Config),
		Secrets:     secrets(e.Snapshot.Secrets),
	})
}

// clients turns the calls of services into the audiences that they may ask for.
func clients(state policy.State) map[string]sts.Service {
	out := map[string]sts.Service{}
	known := access.ServicesWithRoles(state)
	for _, name := range state.Services() {
		calls := map[string][]string{}
		for _, c := range state.Service(name).GetCalls() {
			// A callee that is not there has no audience: nobody may get a
			// token for what could be made under its name later.
			if spec := state.Service(c.GetService()); spec != nil {
				for _, aud := range policy.Audiences(c.GetService(), spec) {
					calls[aud] = c.GetScopes()
				}
			}
		}
		if known[name] {
			calls[policy.AdminAudience] = nil
		}
		out[name] = sts.Service{Calls: calls}
	}
	return out
}

func secrets(all map[string]clientauth.Secret) map[string][]clientauth.Secret {
	out := map[string][]clientauth.Secret{}
	for _, s := range all {
		out[s.Service] = append(out[s.Service], s)
	}
	return out
}

// tokens implements api.Issuer.
type tokens struct {
	store  *store.Store
	loop   *loop
	sts    *sts.Server
	pepper []byte
}

func (c *tokens) CreateClientSecret(ctx context.Context, service string, judged int64, e audit.Entry) (string, string, error) {
	plain, secret, err := clientauth.NewSecret(service, c.pepper, time.Now())
	if err != nil {
		return "", "", err
	}
	e.Subjects = []string{"created client secret " + service + "/" + secret.ID}
	revision, err := c.store.AddSecret(ctx, secret, e, store.ResourcesAt(judged))
	if err != nil {
		return "", "", conflicting(unknown(err))
	}
	// The secret works when the caller has it.
	return service, plain, c.loop.inForce(ctx, revision, fmt.Sprintf("the client secret %s is stored, and can't be shown: delete it (`watchword client-secret delete %s/%s`), and create another", secret.ID, service, secret.ID))
}

// IssueToken has it written down before anybody has the token.
func (c *tokens) IssueToken(ctx context.Context, req *adminv1.IssueTokenRequest, e audit.Entry) (*adminv1.IssueTokenResponse, error) {
	resp, refused := c.sts.Issue(ctx, sts.Request{Service: req.GetService(), Audience: req.GetAudience(), Scope: req.GetScope()})
	if refused != nil && refused.Status >= 500 {
		return nil, refused
	}
	if refused != nil {
		return nil, &api.Refusal{Code: refused.Code, Description: refused.Description}
	}
	e.Outcome = audit.Done
	if err := c.store.Record(ctx, e); err != nil {
		return nil, err
	}
	return &adminv1.IssueTokenResponse{AccessToken: resp.AccessToken, Scope: resp.Scope, ExpiresIn: durationpb.New(resp.ExpiresIn)}, nil
}
