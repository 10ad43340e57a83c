package enrolment

import (
	"context"
	"errors"
	"fmt"
	"time"

	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
)

// Enrol gives the identity of this process. With a key file it proves that key: a
// valid certificate in it is renewed, and does if nobody answers. If the key is
// refused, as it was revoked, the credential gets a new one in; else it uses the
// credential from the first. It tries until it has an answer or ctx ends, each time
// for the same key, so that an answer that was lost costs no second use of a join
// token. The error wraps [ErrRefused] if the answer is no.
func Enrol(ctx context.Context, c Config) (*Identity, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	i := &Identity{config: c.withDefaults(), changed: make(chan struct{}, 1)}
	g, err := i.load()
	if err != nil {
		return nil, fmt.Errorf("enrolling service %q: %w", c.Service, err)
	}
	if g != nil && g.valid(i.config.Now()) && !i.revoked(ctx, g) {
		return i, nil
	}
	if err := i.enrolUntil(ctx, g); err != nil {
		return nil, fmt.Errorf("enrolling service %q: %w", c.Service, err)
	}
	return i, nil
}

// lookTimeout is how long a start waits to hear that its key is still enrolled.
const lookTimeout = 5 * time.Second

// revoked renews a certificate that is valid, and says whether the key is enrolled
// no more. While nobody answers it is taken to be.
func (i *Identity) revoked(ctx context.Context, last *granted) bool {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	g, err := i.ask(ctx, i.renewCall(last))
	switch {
	case err == nil:
		i.take(g)
	case errors.Is(err, errKey):
		return true
	default:
		i.log().Warn("can't renew the certificate of the key file now; going on with it", "service", i.config.Service, "expires", last.leaf.NotAfter, "error", err)
	}
	return false
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
		if last != nil && i.key.instance != last.instance() {
			last = nil // a new key has never been enrolled
		}
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

// enrolBy proves the key if it was enrolled before. If that is refused, or it was
// not, the credential is presented: for a new key, since the old one was revoked.
func (i *Identity) enrolBy(ctx context.Context, last *granted) (*granted, error) {
	if last == nil {
		return i.enrol(ctx, i.config.Credential)
	}
	g, err := i.enrol(ctx, keyAssertion{i, last})
	var no denial
	if err == nil || !errors.As(err, &no) || i.config.Credential == nil {
		return g, err
	}
	i.log().Warn("the key that was enrolled is refused; enrolling a new one with the credential", "service", i.config.Service, "instance", i.key.instance, "error", err)
	// The file keeps the old key until the new one is enrolled: its refusal may have
	// been for a moment, such as for a clock that was wrong.
	key, err := newKeyPair()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	i.key = key
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
		if k, ok := by.(keyAssertion); ok { // it is good once: each address gets its own
			if _, err := k.present(req); err != nil {
				return nil, err
			}
		}
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
