package enrolment

import (
	"context"
	"errors"
	"fmt"

	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
)

// Enrol gives the identity of this process. With a key file that holds a valid
// certificate it asks nobody; with one whose certificate has ended it proves the
// key; else it uses the credential. It tries until it has an answer or ctx ends.
// Each try is for the same key, so that an answer that was lost costs no second
// use of a join token. The error wraps [ErrRefused] if the answer is no.
func Enrol(ctx context.Context, c Config) (*Identity, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	i := &Identity{config: c.withDefaults(), changed: make(chan struct{}, 1)}
	g, err := i.load()
	if err != nil {
		return nil, fmt.Errorf("enrolling service %q: %w", c.Service, err)
	}
	if g == nil || !g.valid(i.config.Now()) {
		if err := i.enrolUntil(ctx, g); err != nil {
			return nil, fmt.Errorf("enrolling service %q: %w", c.Service, err)
		}
	}
	return i, nil
}

// load takes the key from the file, or makes one and keeps it there.
func (i *Identity) load() (*granted, error) {
	var g *granted
	err := errNoFile
	if i.config.KeyFile != "" {
		i.key, g, err = readKeyFile(i.config.KeyFile, i.config.Service)
	}
	if err == nil {
		if g == nil && i.config.Credential == nil {
			return nil, fmt.Errorf("the key in %s was never enrolled, and there is no credential; give a join token", i.config.KeyFile)
		}
		i.current.Store(g)
		return g, nil
	}
	if !errors.Is(err, errNoFile) {
		return nil, err
	}
	if i.config.Credential == nil {
		return nil, fmt.Errorf("there is no key file %s, and no credential; give a join token", i.config.KeyFile)
	}
	if i.key, err = newKeyPair(); err != nil || i.config.KeyFile == "" {
		return nil, err
	}
	return nil, writeKeyFile(i.config.KeyFile, i.key, nil)
}

// enrolUntil tries until there is an answer. last is what the key had before.
func (i *Identity) enrolUntil(ctx context.Context, last *granted) error {
	for failures := 0; ; failures++ {
		g, err := i.enrolBy(ctx, last)
		if err == nil {
			i.log().Info("enrolled", "service", g.service, "instance", i.key.instance, "expires", g.leaf.NotAfter)
			i.take(g)
			return nil
		}
		if errors.Is(err, ErrRefused) || ctx.Err() != nil {
			return err
		}
		d := backoff(failures)
		i.log().Warn("can't enrol yet; trying again", "service", i.config.Service, "error", err, "wait", d)
		if wait(ctx, d) != nil {
			return err
		}
	}
}

// enrolBy proves the key if it was enrolled before. If that is refused, or it
// was not, the credential is presented.
func (i *Identity) enrolBy(ctx context.Context, last *granted) (*granted, error) {
	if last == nil {
		return i.enrol(ctx, i.config.Credential)
	}
	g, err := i.enrol(ctx, keyAssertion{i, last})
	if err == nil || !errors.Is(err, ErrRefused) || i.config.Credential == nil {
		return g, err
	}
	i.log().Warn("the key that was enrolled is refused; using the credential", "service", i.config.Service, "instance", i.key.instance, "error", err)
	return i.enrol(ctx, i.config.Credential)
}

// enrol asks each address once.
func (i *Identity) enrol(ctx context.Context, by Credential) (*granted, error) {
	der, err := i.key.request()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	req := &enrolmentv1.EnrolRequest{Service: i.config.Service, CertificateRequest: der, Node: i.config.Node}
	t, err := by.present(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	c := call{trust: t, now: i.config.Now, send: func(ctx context.Context, client enrolmentv1.EnrolmentServiceClient) (*enrolmentv1.Identity, error) {
		resp, err := client.Enrol(ctx, req)
		return resp.GetIdentity(), err
	}}
	return i.ask(ctx, c)
}

// ask makes the call and reads the answer.
func (i *Identity) ask(ctx context.Context, c call) (*granted, error) {
	got, err := c.first(ctx, i.config.Addresses)
	if err != nil {
		return nil, err
	}
	g, err := newGranted(got.identity, i.config.Service, i.key)
	if err != nil {
		return nil, fmt.Errorf("%w: the answer is of no use: %w", ErrRefused, err)
	}
	if g.trustDomain != got.trustDomain {
		return nil, fmt.Errorf("%w: the answer is for the trust domain %q, from a control plane of %q", ErrRefused, g.trustDomain, got.trustDomain)
	}
	return g, nil
}

// keyAssertion is a key that was enrolled before, as a Credential.
type keyAssertion struct {
	of   *Identity
	last *granted
}

func (k keyAssertion) present(req *enrolmentv1.EnrolRequest) (trust, error) {
	text, err := k.of.key.assertion(k.last.service, k.last.issuer, k.of.config.Now())
	if err != nil {
		return trust{}, err
	}
	req.Credential = &enrolmentv1.EnrolRequest_KeyAssertion{KeyAssertion: text}
	return k.last.trust(), nil
}
