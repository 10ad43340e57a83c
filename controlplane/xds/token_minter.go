package xds

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
)

// wakeMinter has the stream's minter look at what is due. It starts it if this is
// the first time.
func (st *stream) wakeMinter() {
	if st.minter == nil {
		st.minter = make(chan struct{}, 1)
		st.minting.Go(st.mint)
	}
	select {
	case st.minter <- struct{}{}:
	default:
	}
}

// mint keeps the tokens of a stream fresh until it ends, one after the other.
func (st *stream) mint() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		it, wait := st.nextToken()
		if it != nil {
			if !st.mintOne(it) {
				return
			}
			continue
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-st.minter:
		case <-st.ended.Done():
			return
		}
	}
}

// nextToken is one that is due, or else how long there is none.
func (st *stream) nextToken() (*item, time.Duration) {
	st.service.mu.Lock()
	defer st.service.mu.Unlock()
	now, wait := st.server.now(), time.Hour
	sub := st.sub(resource.SecretType)
	if sub == nil || !st.service.ready {
		return nil, wait
	}
	for _, it := range sub.items {
		if it.token == nil {
			continue
		}
		left := it.token.next.Sub(now)
		if left <= 0 {
			return it, 0
		}
		wait = min(wait, left)
	}
	return nil, wait
}

// mintOne asks for a token when it is the stream's turn; false if the stream has
// ended before.
func (st *stream) mintOne(it *item) bool {
	s := st.server
	if !sleep(st.ended, s.mints.Owe(st.identity.String(), 1, time.Now())) {
		return false
	}
	select {
	case s.signing <- struct{}{}:
	case <-st.ended.Done():
		return false
	}
	defer func() { <-s.signing }()
	asked := s.tokenChanges.Load()
	t, err := s.tokens.Token(st.ended, st.identity, strings.TrimPrefix(it.name, tokenPrefix))
	if st.ended.Err() != nil {
		return false
	}
	st.minted(it, t, err, asked)
	return true
}

func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// minted takes the answer, which was asked for when as many changes were known.
func (st *stream) minted(it *item, t Token, err error, asked int64) {
	s := st.server
	st.service.mu.Lock()
	defer st.service.mu.Unlock()
	sub := st.sub(resource.SecretType)
	if sub.items[it.name] != it {
		return // subscribed anew, or not at all
	}
	now := s.now()
	var e *entry
	switch {
	case errors.Is(err, ErrNoToken):
		e = st.refuseToken(it, now, asked)
	case err == nil && s.keyInUse(t.KeyID) && t.Value != "" && t.Expires.After(now):
		e = st.holdToken(it, t, now)
	default:
		st.retryToken(it, now, err)
		return
	}
	if e.version != it.want {
		it.entry, it.want = e, e.version
		sub.enqueue(it)
		sub.next()
	}
}

// holdToken makes the secret, and has the next one made at half the life of this,
// sooner or later by a fifth of that, so that not all are made at once.
func (st *stream) holdToken(it *item, t Token, now time.Time) *entry {
	half := t.Expires.Sub(now) / 2
	next := now.Add(max(half-half/5+rand.N(2*half/5+1), minRenewal)).Truncate(time.Second)
	*it.token = tokenItem{next: next, keyID: t.KeyID}
	st.server.metrics.tokens.WithLabelValues("minted").Inc()
	return newSecret(it.name, st.tokenVersion(it.name, next, t.KeyID), t.Value)
}

// refuseToken takes the token away that the data plane may have.
func (st *stream) refuseToken(it *item, now time.Time, asked int64) *entry {
	first := !it.token.refused
	*it.token = tokenItem{refused: true, next: now.Add(jitter(refusedRetry))}
	if st.server.tokenChanges.Load() != asked {
		it.token.next = now
	}
	st.server.metrics.tokens.WithLabelValues("refused").Inc()
	if first && st.mayLog() {
		st.server.log.Warn("data plane asks for a token that its service may not have", "node", st.node.GetId(),
			"service", st.service.name, "audience", label(strings.TrimPrefix(it.name, tokenPrefix), ""))
	}
	return newSecret(it.name, noToken, "")
}

// retryToken leaves the data plane with what it has, for a while.
func (st *stream) retryToken(it *item, now time.Time, err error) {
	if err == nil {
		err = errors.New("it has expired, or its key is not in use")
	}
	it.token.next = now.Add(jitter(min(minTokenRetry<<min(it.token.failures, 10), maxTokenRetry)))
	it.token.failures++
	st.server.metrics.tokens.WithLabelValues("failed").Inc()
	if st.mayLog() {
		st.server.log.Warn("no token could be made; trying again", "service", st.service.name,
			"audience", label(strings.TrimPrefix(it.name, tokenPrefix), ""), "error", err)
	}
}

// jitter is between half of d and d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }

// newSecret is an SDS secret with a token. One that is empty refuses: Envoy keeps
// a secret that it is told was removed, and injects none that is empty.
func newSecret(name, version, token string) *entry {
	body, _ := proto.Marshal(&tlsv3.Secret{Name: name, Type: &tlsv3.Secret_GenericSecret{GenericSecret: &tlsv3.GenericSecret{
		Secret: &core.DataSource{Specifier: &core.DataSource_InlineBytes{InlineBytes: []byte(token)}},
	}}}) // the name came in a message, so it can go out in one
	return &entry{version: version, secret: true, wire: wireOf(Resource{TypeURL: resource.SecretType, Name: name, Body: body}, version)}
}
