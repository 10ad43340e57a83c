package xds

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const tokenLife = 10 * time.Minute

// bank mints tokens that say for whom they are.
type bank struct {
	mu      sync.Mutex
	key     string
	no      map[string]error // by audience
	minted  []string
	block   chan struct{} // not nil: a call waits for it
	waiting int
}

func (b *bank) Token(ctx context.Context, who Identity, audience string) (Token, error) {
	b.mu.Lock()
	block := b.block
	b.waiting++
	b.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-ctx.Done():
			return Token{}, ctx.Err()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.no[audience]; err != nil {
		return Token{}, err
	}
	t := Token{Value: fmt.Sprintf("secret-%s-%s-%d", who, audience, len(b.minted)), Expires: time.Now().Add(tokenLife), KeyID: b.key}
	b.minted = append(b.minted, t.Value)
	return t, nil
}

func (b *bank) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
}

func (b *bank) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.minted)
}

// tokens runs a test in a bubble of its own, where time costs nothing.
func tokens(t *testing.T, log hclog.Logger, test func(t *testing.T, f *fixture, b *bank)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bank{key: "k1", no: map[string]error{}}
		f, stop := launch(t, Config{Tokens: b, Logger: log})
		defer stop()
		f.Publish(Update{Revision: 1})
		f.RenewTokens([]string{"k1"})
		test(t, f, b)
	})
}

func secretName(audience string) string { return "token/" + audience }

// token is the next response, which holds one secret: its text and version.
func (p *plane) token(audience string) (text, version string) {
	p.t.Helper()
	var r *discovery.DeltaDiscoveryResponse
	select {
	case r = <-p.in:
	case err := <-p.end:
		p.t.Fatalf("stream ended: %v", err)
	case <-time.After(2 * tokenLife):
		p.t.Fatalf("no token for %s came within %v", audience, 2*tokenLife)
	}
	if r.GetTypeUrl() != resource.SecretType || len(r.GetResources()) != 1 || len(r.GetRemovedResources()) > 0 {
		p.t.Fatalf("got %v, want one secret", r)
	}
	s := new(tlsv3.Secret)
	if err := proto.Unmarshal(r.GetResources()[0].GetResource().GetValue(), s); err != nil {
		p.t.Fatal(err)
	}
	if want := secretName(audience); s.GetName() != want || r.GetResources()[0].GetName() != want {
		p.t.Fatalf("got %v, want secret %s", r, want)
	}
	p.ack(r)
	return string(s.GetGenericSecret().GetSecret().GetInlineBytes()), r.GetResources()[0].GetVersion()
}

func (p *plane) wantToken(audience, want string) (version string) {
	p.t.Helper()
	got, version := p.token(audience)
	if got != want {
		p.t.Fatalf("token for %s: got %q, want %q", audience, got, want)
	}
	if want != "" && strings.Contains(version, "secret") {
		p.t.Fatalf("the version %q shows the token", version)
	}
	return version
}

// Each instance gets its own token for each audience, and nothing of it is kept
// or shown anywhere once it is there. That there is none yet delays nothing, and
// none is pushed to a stream that has not asked.
func TestTokensAreMinted(t *testing.T) {
	log := &lockedBuffer{}
	tokens(t, hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Trace}), func(t *testing.T, f *fixture, b *bank) {
		f.publish(2, "orders", inbound1)
		block := make(chan struct{})
		b.set(func() { b.block = block })
		p := f.connectAs(t, orders1, envoyNode("n1", "orders"))
		p.subscribe(resource.SecretType, secretName("stock"), secretName("billing"))
		p.subscribe(ecdsType, inbound1.Name)
		p.ack(p.want(one(inbound1)))
		p.quiet()
		f.untilInSync(t, "orders", 1) // though no token is there
		close(block)
		got := map[string]bool{}
		for range 2 {
			r := p.recv()
			p.ack(r)
			got[string(r.GetResources()[0].GetResource().GetValue())] = true
		}
		b.set(func() {
			if len(b.minted) != 2 || len(got) != 2 {
				t.Errorf("minted %q and sent %d, want 2 of each", b.minted, len(got))
			}
		})
		p.quiet()

		other := f.connectAs(t, orders2, envoyNode("n2", "orders"))
		other.subscribe(resource.SecretType, secretName("stock"))
		other.wantToken("stock", "secret-orders/two-stock-2")
		third := f.connectAs(t, Identity{"web", "three"}, envoyNode("n1", "orders")) // says that it is of orders
		third.subscribe(resource.SecretType, secretName("stock"))
		third.wantToken("stock", "secret-web/three-stock-3")

		_, sent, _ := f.Sent("one")
		if shown := fmt.Sprintf("%+v %s", sent, log); strings.Contains(shown, "secret-") {
			t.Errorf("a token is shown in the ledger or the log:\n%s", shown)
		}
		for _, st := range f.streamsOf(orders1) {
			for _, it := range st.sub(resource.SecretType).items {
				if it.entry.wire != nil || it.sent.wire != nil || st.sending != nil {
					t.Errorf("%s is still in memory", it.name)
				}
			}
		}
		if s := fmt.Sprintf("%v %+v %#v", Token{Value: "secret"}, Token{Value: "secret"}, Token{Value: "secret"}); strings.Contains(s, "secret") {
			t.Errorf("printed token: %s", s)
		}
	})
}

func (s *Server) streamsOf(who Identity) []*stream {
	var all []*stream
	s.eachStream(who.Service, who.Instance, func(st *stream) { all = append(all, st) })
	return all
}

// A token is renewed at about half of its life, again and again, while the stream
// wants it; not after.
func TestTokensAreRenewed(t *testing.T) {
	tokens(t, nil, func(t *testing.T, f *fixture, b *bank) {
		p := f.connectAs(t, orders1, envoyNode("n1", "orders"))
		p.subscribe(resource.SecretType, secretName("stock"))
		last := time.Now()
		for i := range 5 {
			p.wantToken("stock", fmt.Sprintf("secret-orders/one-stock-%d", i))
			if took := time.Since(last); i > 0 && (took < tokenLife/2*4/5-time.Second || took > tokenLife/2*6/5) {
				t.Errorf("renewed after %v, want about %v", took, tokenLife/2)
			}
			last = time.Now()
		}
		p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: resource.SecretType, ResourceNamesUnsubscribe: []string{secretName("stock")}})
		p.quiet()
		time.Sleep(time.Hour)
		if n := b.count(); n != 5 {
			t.Errorf("%d tokens were minted, want 5: nobody wanted the others", n)
		}
	})
}

// Who is refused gets an empty secret, in place of the token that it had, and a
// token as soon as the answer is another: when somebody says so, or after a while.
func TestTokenIsRefused(t *testing.T) {
	log := &lockedBuffer{}
	tokens(t, hclog.New(&hclog.LoggerOptions{Output: log}), func(t *testing.T, f *fixture, b *bank) {
		refuse := func(err error) { b.set(func() { b.no["stock"] = err }) }
		refuse(fmt.Errorf("access_denied: %w", ErrNoToken))
		p := f.connectAs(t, orders1, envoyNode("n1", "orders"))
		p.subscribe(resource.SecretType, secretName("stock"))
		p.wantToken("stock", "")
		time.Sleep(5 * time.Minute) // asked again, and the answer is the same
		p.quiet()
		if n := strings.Count(log.String(), "may not have"); n != 1 {
			t.Errorf("logged %d times, want once:\n%s", n, log)
		}
		refuse(nil)
		f.RenewTokens(nil, "web")
		p.quiet()
		f.RenewTokens(nil, "orders")
		p.wantToken("stock", "secret-orders/one-stock-0")
		refuse(ErrNoToken)
		p.wantToken("stock", "") // at the renewal
		refuse(nil)
		p.wantToken("stock", "secret-orders/one-stock-1") // after a while
	})
}

// A change that comes while the answer to the old state is under way is not lost.
func TestTokenIsRefusedMeanwhile(t *testing.T) {
	tokens(t, nil, func(t *testing.T, f *fixture, b *bank) {
		block := make(chan struct{})
		b.set(func() { b.block, b.no["stock"] = block, ErrNoToken })
		p := f.connectAs(t, orders1, envoyNode("n1", "orders"))
		p.subscribe(resource.SecretType, secretName("stock"))
		synctest.Wait()
		f.RenewTokens(nil, "orders") // of which the answer under way knows nothing
		began := time.Now()
		block <- struct{}{}
		synctest.Wait()
		b.set(func() { delete(b.no, "stock") })
		close(block)
		p.wantToken("stock", "")
		p.wantToken("stock", "secret-orders/one-stock-0")
		if took := time.Since(began); took > 0 {
			t.Errorf("the second answer took %v, want it at once", took)
		}
	})
}

// A failure leaves what is there, and is tried again soon.
func TestTokenFails(t *testing.T) {
	tokens(t, nil, func(t *testing.T, f *fixture, b *bank) {
		p := f.connectAs(t, orders1, envoyNode("n1", "orders"))
		p.subscribe(resource.SecretType, secretName("stock"))
		p.wantToken("stock", "secret-orders/one-stock-0")
		b.set(func() { b.no["stock"] = errors.New("the issuer is overloaded") })
		time.Sleep(tokenLife)
		p.quiet()
		b.set(func() { delete(b.no, "stock") })
		began := time.Now()
		p.wantToken("stock", "secret-orders/one-stock-1")
		if took := time.Since(began); took > maxTokenRetry {
			t.Errorf("the next attempt came after %v, want at most %v", took, maxTokenRetry)
		}
	})
}

// When a key is gone, all its tokens are replaced at once, also one that it signs
// while that happens; those of other keys stay.
func TestTokensOfRevokedKey(t *testing.T) {
	tokens(t, nil, func(t *testing.T, f *fixture, b *bank) {
		p := f.connectAs(t, orders1, envoyNode("n1", "orders"))
		p.subscribe(resource.SecretType, secretName("stock"))
		p.wantToken("stock", "secret-orders/one-stock-0")
		f.RenewTokens([]string{"k1", "k2"})
		p.quiet()
		b.set(func() { b.key = "k2" })
		f.RenewTokens([]string{"k2"})
		p.wantToken("stock", "secret-orders/one-stock-1")
		f.RenewTokens([]string{"k2"})
		p.quiet()
		f.RenewTokens([]string{"k3"}) // before the issuer signs with it
		time.Sleep(time.Minute)
		p.quiet()
		b.set(func() { b.key = "k3" })
		got, _ := p.token("stock")
		b.set(func() {
			if want := b.minted[len(b.minted)-1]; got != want {
				t.Errorf("got %q, want %q, of the key in use", got, want)
			}
		})
	})
}

// A data plane that comes back keeps the token that it says it holds, if that is
// its own, not due, and of a key in use; else it gets another.
func TestTokenIsClaimed(t *testing.T) {
	tokens(t, nil, func(t *testing.T, f *fixture, b *bank) {
		claim := func(who Identity, version string) *plane {
			p := f.connectAs(t, who, envoyNode("n1", "orders"))
			p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: resource.SecretType, ResourceNamesSubscribe: []string{secretName("stock")},
				InitialResourceVersions: map[string]string{secretName("stock"): version}})
			return p
		}
		p := f.connectAs(t, orders1, envoyNode("n1", "orders"))
		p.subscribe(resource.SecretType, secretName("stock"))
		version := p.wantToken("stock", "secret-orders/one-stock-0")
		p.quiet()
		_ = p.close()

		p = claim(orders1, version)
		p.quiet()
		synctest.Wait()
		if n := b.count(); n != 1 {
			t.Errorf("%d tokens were minted, want no second", n)
		}
		p.wantToken("stock", "secret-orders/one-stock-1") // when that is due
		_ = p.close()
		claim(orders1, version).wantToken("stock", "secret-orders/one-stock-2")
		for i, forged := range []string{"", "none", "x", "99999999999-00", "99999999999" + version[strings.Index(version, "-"):]} {
			claim(orders1, forged).wantToken("stock", fmt.Sprintf("secret-orders/one-stock-%d", 3+i))
		}
		n := b.count()
		p = f.connectAs(t, orders1, envoyNode("n1", "orders"))
		p.subscribe(resource.SecretType, secretName("stock"))
		version = p.wantToken("stock", fmt.Sprintf("secret-orders/one-stock-%d", n))
		claim(orders2, version).wantToken("stock", fmt.Sprintf("secret-orders/two-stock-%d", n+1))
		b.set(func() { b.key = "k2" })
		_ = p.close()
		f.RenewTokens([]string{"k2"})
		if text, _ := claim(orders1, version).token("stock"); !strings.HasPrefix(text, "secret-orders/one-") {
			t.Errorf("got %q for a token of a key that is gone, want another", text)
		}
	})
}

// Making tokens holds nothing up, however long it takes: no push, no other
// request, and not the end of the stream.
func TestTokensBlockNothing(t *testing.T) {
	tokens(t, nil, func(t *testing.T, f *fixture, b *bank) {
		b.set(func() { b.block = make(chan struct{}) })
		var planes []*plane
		for i := range 3 * tokensInParallel {
			p := f.connectAs(t, Identity{"orders", fmt.Sprint("i", i)}, envoyNode("n1", "orders"))
			p.subscribe(resource.SecretType, secretName("stock"))
			p.subscribe(ecdsType, inbound1.Name)
			planes = append(planes, p)
		}
		synctest.Wait()
		b.set(func() {
			if b.waiting != tokensInParallel {
				t.Errorf("%d tokens are made at once, want %d", b.waiting, tokensInParallel)
			}
		})
		f.publish(2, "orders", inbound1)
		f.RenewTokens([]string{"k1"}, "orders")
		for _, p := range planes {
			p.ack(p.want(one(inbound1)))
			p.quiet()
		}
		f.Disconnect("orders", "i0")
		if got := status.Code(planes[0].ended()); got != codes.PermissionDenied {
			t.Errorf("the stream ended with %v, want PermissionDenied", got)
		}
		f.untilInSync(t, "orders", len(planes)-1)
	})
}

// A stream may have so many tokens, and an instance so many a second.
func TestTokensAreBounded(t *testing.T) {
	tokens(t, nil, func(t *testing.T, f *fixture, b *bank) {
		names := make([]string, maxTokens+1)
		for i := range names {
			names[i] = secretName(fmt.Sprint("a", i))
		}
		p := f.connectAs(t, orders1, envoyNode("n1", "orders"))
		p.subscribe(resource.SecretType, names[:maxTokens]...)
		for range maxTokens {
			p.ack(p.recv())
		}
		p.quiet()
		p.subscribe(resource.SecretType, names[maxTokens])
		if got := status.Code(p.ended()); got != codes.ResourceExhausted {
			t.Errorf("the stream ended with %v, want ResourceExhausted", got)
		}
		n := b.count()
		began := time.Now()
		p = f.connectAs(t, orders1, envoyNode("n1", "orders"))
		p.subscribe(resource.SecretType, names[:50]...)
		for range 50 {
			p.ack(p.recv())
		}
		if took := time.Since(began); b.count() != n+50 || took < 4*time.Second {
			t.Errorf("%d more tokens took %v, want 50 in about 5 s", b.count()-n, took)
		}
	})
}

// Without Tokens, and for other names, a secret is content like any other.
func TestOtherSecrets(t *testing.T) {
	tokens(t, nil, func(t *testing.T, f *fixture, b *bank) {
		plain := Resource{TypeURL: resource.SecretType, Name: "plain", Body: []byte("x")}
		f.publish(2, "orders", plain, Resource{TypeURL: resource.SecretType, Name: secretName("stock"), Body: []byte("not minted")})
		p := f.connectAs(t, orders1, envoyNode("n1", "orders"))
		p.subscribe(resource.SecretType, "plain")
		p.ack(p.want(one(plain)))
		p.subscribe(resource.SecretType, secretName("stock"))
		p.wantToken("stock", "secret-orders/one-stock-0")
		f.publish(3, "orders")
		p.ack(p.want(removed(resource.SecretType, "plain")))
		p.quiet()
	})
}
