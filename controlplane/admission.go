package controlplane

import (
	"crypto/hmac"
	"crypto/sha256"
	"net/http"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/watchword-mesh/watchword/controlplane/access"
	"github.com/watchword-mesh/watchword/controlplane/bearer"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/controlplane/transport"
	"github.com/watchword-mesh/watchword/internal/failures"
)

// admission says who makes a call of the admin API: it verifies whatever
// credentials come with it.
type admission struct {
	loop       *loop
	identities identities
	pepper     []byte
	log        hclog.Logger
	now        func() time.Time
	// noise bounds the log lines about each source.
	noise *failures.Counter
}

// identify returns the actor. An error is an access.Unproven.
func (a *admission) identify(r *http.Request) (access.Actor, error) {
	state := a.loop.current.Load().Config
	ev := access.Evidence{Source: failures.SourceOf(r.RemoteAddr)}
	if p, ok := transport.PeerFrom(r.Context()); ok {
		ev.Unix = access.UnixPeer(userName(p.UID), p.UID, uint32(os.Geteuid()))
	}
	if err := a.certificate(r, &ev); err != nil {
		a.warn("a client certificate is refused", ev.Source, err)
		return access.Actor{Source: ev.Source}, access.BadCredential
	}
	if err := a.authorization(r, state, &ev); err != nil {
		a.warn("a credential is refused", ev.Source, err)
		return access.Actor{Source: ev.Source}, access.BadCredential
	}
	return access.Resolve(state, ev)
}

func (a *admission) warn(what, source string, reason error) {
	if wait, first := a.noise.Add(source, a.now()); wait == 0 || first {
		a.log.Warn(what, "source", source, "reason", reason)
	}
}

func userName(uid uint32) string {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return ""
	}
	return u.Username
}

func (a *admission) certificate(r *http.Request, ev *access.Evidence) error {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return nil
	}
	leaf, ours := verifiedBy(r.TLS.VerifiedChains, a.loop.authority())
	// A connection may be older than the end of its certificate.
	if now := a.now(); now.After(leaf.NotAfter) {
		return access.BadCredential
	}
	if !ours {
		ev.Certificate = access.CertificateOf(leaf)
		return nil
	}
	id, err := a.identities.ofLeaf(leaf)
	if err == nil {
		ev.Services = append(ev.Services, id.Service)
	}
	return err
}

// authorization looks at the one Authorization header that a call may have.
func (a *admission) authorization(r *http.Request, state policy.State, ev *access.Evidence) error {
	credential, err := access.Bearer(r.Header.Values("Authorization"))
	if err != nil || credential == "" {
		return err
	}
	if strings.HasPrefix(credential, adminTokenPrefix) {
		ev.AdminToken = a.loop.current.Load().AdminToken.Is(adminTokenHash(a.pepper, credential))
		if !ev.AdminToken {
			return access.BadCredential
		}
		return nil
	}
	return a.token(credential, state, ev)
}

func (a *admission) token(credential string, state policy.State, ev *access.Evidence) error {
	issuers := []bearer.Issuer{a.loop.issuer(state, policy.BuiltinIssuer)}
	for _, name := range access.TokenIssuers(state) {
		issuers = append(issuers, a.loop.issuer(state, name))
	}
	t, err := bearer.Verify(credential, issuers, a.now())
	if err != nil {
		return err
	}
	if t.Issuer != policy.BuiltinIssuer {
		ev.Token = &access.Token{Issuer: t.Issuer, Subject: t.Subject, Audiences: t.Audience, Claims: t.Claims}
		return nil
	}
	if !t.For(policy.AdminAudience) {
		return access.WrongAudience
	}
	service, err := a.identities.ofToken(t.Claims)
	if err == nil {
		ev.Services = append(ev.Services, service)
	}
	return err
}

// adminTokenPrefix begins every admin token, so that scanners for leaked secrets
// can find them.
const adminTokenPrefix = "wwat_"

// adminTokenHash is what is kept of the admin token. The words in front keep it
// apart from other uses of the pepper.
func adminTokenHash(pepper []byte, token string) []byte {
	mac := hmac.New(sha256.New, pepper)
	mac.Write([]byte("watchword admin token\x00" + token))
	return mac.Sum(nil)
}
