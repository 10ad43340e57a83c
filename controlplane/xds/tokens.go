package xds

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// Tokens gives the instances of services the tokens that they call others with.
type Tokens interface {
	// Token makes one for the service of an instance and an audience. It may block.
	// ErrNoToken, also wrapped, means that the service may have none; after any
	// other error it is asked again soon.
	Token(ctx context.Context, who Identity, audience string) (Token, error)
}

// ErrNoToken is a refusal by Tokens.
var ErrNoToken = errors.New("the service may have no token for this audience")

// Token is what a data plane gets.
type Token struct {
	// Value is a bearer token: it belongs into no log.
	Value   string
	Expires time.Time
	// KeyID is the `kid` of the key that has signed it.
	KeyID string
}

// String and GoString keep the token out of what is printed.
func (t Token) String() string   { return "[token of key " + t.KeyID + "]" }
func (t Token) GoString() string { return t.String() }

// tokenPrefix begins the name of a secret that holds a token; the audience ends it.
const tokenPrefix = "token/"

const (
	// maxTokens bounds the tokens of one stream.
	maxTokens = 512
	// What one instance may have minted: all of a stream's at once.
	tokensPerSecond = 10
	tokensAtOnce    = maxTokens
	// refusedRetry is when a token that was refused is asked for again, if nobody
	// says before that the answer may be another (RenewTokens).
	refusedRetry = time.Minute
	// A failure is tried again after minTokenRetry, and then twice as long each
	// time, up to maxTokenRetry.
	minTokenRetry = time.Second
	maxTokenRetry = 30 * time.Second
	// minRenewal bounds how often a token is renewed that hardly lives.
	minRenewal = time.Second
)

// tokensInParallel is how many are made at once: signing is pure computation.
var tokensInParallel = runtime.GOMAXPROCS(0)

// tokenItem is what an item is besides if it is a token. The token itself is
// kept from when it is minted until the data plane answers, and nowhere else.
type tokenItem struct {
	// next is when it is to be minted.
	next  time.Time
	keyID string // of the key that has signed what the data plane holds
	// refused: the service may not have it.
	refused  bool
	failures int
}

// isToken says whether a name of a subscription is that of a token.
func (sub *subscription) isToken(name string) bool {
	return sub.kind.typeURL == resource.SecretType && sub.stream.server.tokens != nil && strings.HasPrefix(name, tokenPrefix)
}

// RenewTokens says that Tokens may answer otherwise than before. Tokens of keys
// that are not listed are minted again, on all streams, so that those of a revoked
// key go; nil leaves them. What was refused to the services is asked for again.
// It does not wait. One goroutine calls it, whenever Tokens gives what is new.
func (s *Server) RenewTokens(keyIDs []string, services ...string) {
	if s.tokens == nil {
		return
	}
	rekeyed := false
	if keyIDs = slices.Clone(keyIDs); keyIDs != nil {
		before := s.tokenKeys.Swap(&keyIDs)
		rekeyed = before == nil || !slices.Equal(*before, keyIDs)
	}
	s.tokenChanges.Add(1) // after the keys, and before any item is looked at
	asked := make(map[string]bool, len(services))
	for _, name := range services {
		asked[name] = true
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for name, svc := range s.services {
		if !rekeyed && !asked[name] {
			continue
		}
		svc.mu.Lock()
		for _, r := range svc.rows {
			for _, st := range r.streams {
				st.renewTokens(asked[name])
			}
		}
		svc.mu.Unlock()
	}
}

// keyInUse says whether a token of a key may be used; of any while nobody has
// listed them.
func (s *Server) keyInUse(keyID string) bool {
	keys := s.tokenKeys.Load()
	return keys == nil || slices.Contains(*keys, keyID)
}

// renewTokens makes due what is no longer good, and what was refused if retry.
func (st *stream) renewTokens(retry bool) {
	sub := st.sub(resource.SecretType)
	if sub == nil {
		return
	}
	for _, it := range sub.items {
		if t := it.token; t != nil && (t.refused && retry || t.keyID != "" && !st.server.keyInUse(t.keyID)) {
			t.next = time.Time{}
			st.wakeMinter()
		}
	}
}

// countTokens is how many tokens the stream will have after a request at most.
func (st *stream) countTokens(sub *subscription, req *discovery.DeltaDiscoveryRequest) int {
	if st.server.tokens == nil || req.GetTypeUrl() != resource.SecretType {
		return 0
	}
	n := 0
	if sub != nil {
		n = sub.tokens
	}
	for _, name := range req.GetResourceNamesSubscribe() {
		if strings.HasPrefix(name, tokenPrefix) && (sub == nil || sub.items[name] == nil) {
			n++
		}
	}
	return n
}
