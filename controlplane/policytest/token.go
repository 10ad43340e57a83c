package policytest

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/internal/jose"
	"github.com/watchword-mesh/watchword/issuer/sts"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// complete fills in what the built-in issuer would write into a token for `as`;
// its times follow when the case is run.
func (l *loader) complete(t *tokenSource, callee string) {
	if t.as.text == "" {
		return
	}
	builtin := l.state.Issuer(policy.BuiltinIssuer)
	issued := map[string]any{
		"iss": builtin.GetIssuer(), "sub": l.in.Subject(t.as.text), "client_id": t.as.text, "jti": "test",
		"aud": policy.Audiences(callee, l.state.Service(callee))[0],
	}
	for _, call := range l.state.Service(t.as.text).GetCalls() {
		if call.GetService() == callee && len(call.GetScopes()) > 0 {
			issued["scope"] = strings.Join(call.GetScopes(), " ")
		}
	}
	t.lifetime = sts.DefaultLifetime
	if d := builtin.GetKeySet().GetBuiltin().GetTokenLifetime(); d != nil {
		t.lifetime = d.AsDuration()
	}
	t.issued = issued
	header := map[string]any{"typ": "at+jwt"}
	maps.Copy(header, t.header)
	t.header = header
}

// payload is the claims as they would be signed. With `as`, claims that are
// written replace those that would be issued, and null leaves one out.
func (t *tokenSource) payload(now time.Time) ([]byte, error) {
	if t.as.text == "" {
		return json.Marshal(t.claims)
	}
	claims := maps.Clone(t.issued)
	claims["iat"], claims["nbf"], claims["exp"] = now.Unix(), now.Unix(), now.Add(t.lifetime).Unix()
	for name, v := range t.claims {
		if claims[name] = v; v == nil {
			delete(claims, name)
		}
	}
	return json.Marshal(claims)
}

// verifiable refuses a signed token whose keys a test does not have: it would be
// refused for no fault of the policies.
func (l *loader) verifiable(c *testCase) {
	if c.token.token == nil {
		return
	}
	u, err := jose.ParseUnverified(*c.token.token)
	if err != nil {
		return // what is malformed needs no key
	}
	var claims map[string]any
	if json.Unmarshal(u.Claims(), &claims) != nil {
		return
	}
	for _, owner := range l.state.Keys() {
		key, where := l.keylessOwner(owner, u, claims)
		if where == "" {
			continue
		}
		l.fault(c.token.line, "test %q: token: it is one of %s, whose keys are %s, so that its signature can't be verified here; give its claims instead%s",
			c.name, key, where, orAs(owner))
	}
}

func orAs(owner policy.Key) string {
	if owner.Kind == policy.KindIssuer && owner.Name == policy.BuiltinIssuer {
		return ", or as: SERVICE"
	}
	return ""
}

// keylessOwner says whether a token says that it is of a resource without keys,
// and where they are.
func (l *loader) keylessOwner(k policy.Key, u *jose.Unverified, claims map[string]any) (who, where string) {
	switch k.Kind {
	case policy.KindIssuer:
		// One without an iss of its own takes any, and so may this one be: but then
		// no test with a token could be written beside it.
		if iss := l.state[k].GetIssuer().GetIssuer(); iss != "" && claims["iss"] == iss {
			return k.String(), l.keyless[k.String()]
		}
	case policy.KindConsumer:
		for i, credential := range l.state[k].GetConsumer().GetCredentials() {
			if where := l.keyless[fmt.Sprintf("%s/%d", k, i)]; where != "" && l.names(credential, u, claims) {
				return fmt.Sprintf("the credential %d of %s", i, k), where
			}
		}
	}
	return "", ""
}

// names says whether some rule would take a token for one of a credential.
func (l *loader) names(c *policyv1.Credential, u *jose.Unverified, claims map[string]any) bool {
	if c.GetKey() == "" {
		return false
	}
	for _, name := range l.keyClaims() {
		if inHeader, _ := u.HeaderText(name); claims[name] == c.GetKey() || inHeader == c.GetKey() {
			return true
		}
	}
	return false
}

// keyClaims are the names of the claims that policies look credentials up by.
func (l *loader) keyClaims() []string {
	seen := map[string]bool{"iss": true}
	for _, r := range l.state {
		for _, rule := range r.GetAuthenticationPolicy().GetJwtRules() {
			if name := rule.GetKeyClaim().GetName(); name != "" {
				seen[name] = true
			}
		}
	}
	return sortedKeys(seen)
}
