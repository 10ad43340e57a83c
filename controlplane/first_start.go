package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/issuer/ca"
	"github.com/watchword-mesh/watchword/issuer/keyset"
)

// prepare writes what the first start writes: the built-in issuer and its keys.
func (r *replica) prepare(ctx context.Context) ([]byte, error) {
	initialized, err := r.store.Initialized(ctx)
	if err != nil {
		return nil, err
	}
	ring, err := r.openKeyring(ctx, !initialized)
	if err != nil {
		return nil, err
	}
	r.store.UseKeyring(ring)
	now := time.Now().UTC()
	if !initialized {
		if err := r.checkFirst(now); err != nil {
			return nil, &ConfigError{err}
		}
	}
	pepper, first, err := r.store.Init(ctx, store.Setup{Issuer: builtinIssuer(r.IssuerURL, r.TrustDomain), Created: now})
	if err != nil {
		return nil, err
	}
	if first {
		r.Logger.Info("first start", "issuer", r.IssuerURL, "trust_domain", r.TrustDomain, "admin_token", filepath.Join(r.DataDir, adminTokenFile))
	}
	if err := r.firstKeys(ctx, now); err != nil {
		return nil, err
	}
	if err := r.firstCA(ctx, now); err != nil {
		return nil, err
	}
	return pepper, (&adminTokens{store: r.store, dir: r.DataDir, pepper: pepper}).first(ctx)
}

// firstKeys makes the key that signs and the one that is to sign next: verifiers have
// that from the start.
func (r *replica) firstKeys(ctx context.Context, now time.Time) error {
	active, err := keyset.First("ES256", now)
	if err != nil {
		return err
	}
	next, err := keyset.New("ES256", now)
	if err != nil {
		return err
	}
	added, err := r.store.AddFirstKey(ctx, active, next)
	if added {
		r.Logger.Info("signing keys made", "kid", active.KeyID, "next", next.KeyID, "alg", active.Algorithm)
	}
	return err
}

// checkFirst looks at what the first start fixes for ever, before it does.
func (r *replica) checkFirst(now time.Time) error {
	if r.IssuerURL == "" {
		return fmt.Errorf("--sts-listen %s is no address that callers can have: give theirs with --issuer-url, such as https://tokens.example:7402", r.STSListen)
	}
	if u, err := url.Parse(r.IssuerURL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("--issuer-url %s: want https://HOST[:PORT][/PATH], where callers find the token service (RFC 8414 section 2)", r.IssuerURL)
	}
	if _, err := ca.First(r.TrustDomain, now); err != nil {
		return fmt.Errorf("--trust-domain %s: %w", r.TrustDomain, err)
	}
	issuer := builtinIssuer(r.IssuerURL, r.TrustDomain)
	for _, f := range policy.Check(policy.State{policy.KeyOf(issuer): issuer}) {
		return fmt.Errorf("--issuer-url %s, --trust-domain %s: %s: %s", r.IssuerURL, r.TrustDomain, f.Field, f.Message)
	}
	return nil
}

// openKeyring finds the key-encryption key. With a program for it, a key in a file
// still opens what was sealed before there was the program.
func (r *replica) openKeyring(ctx context.Context, create bool) (store.Keyring, error) {
	if r.KEKExec == "" {
		return r.keyring(create)
	}
	ring, err := r.store.PluginKeyring(ctx, r.plugin())
	if err != nil {
		return ring, err
	}
	older, err := r.keyring(false)
	switch {
	case err == nil:
		return ring.With(older), nil
	case r.KEKFile != "" || !errors.Is(err, fs.ErrNotExist):
		return ring, err
	}
	return ring, nil
}

// firstCA makes the CA of the mesh, in the trust domain that the first start has
// fixed.
func (r *replica) firstCA(ctx context.Context, now time.Time) error {
	snap, err := r.store.Load(ctx)
	if err != nil || len(snap.CAs) > 0 {
		return err
	}
	authority, err := ca.First(trustDomain(snap.Config), now)
	if err != nil {
		return fmt.Errorf("making the CA of the mesh: %w; an earlier version took this trust domain, so begin anew on empty data or another --etcd-prefix", err)
	}
	added, err := r.store.AddFirstCA(ctx, authority)
	if added {
		r.Logger.Info("CA of the mesh made; join tokens pin it", "id", authority.ID)
	}
	return err
}
