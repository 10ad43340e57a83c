package controlplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/controlplane/xds"
	"github.com/watchword-mesh/watchword/issuer/keyset"
	"github.com/watchword-mesh/watchword/issuer/sts"
)

const meshYAML = `
{apiVersion: watchword.dev/v1, kind: Issuer, metadata: {name: watchword}, spec: {issuer: "http://sts.test", keySet: {builtin: {trustDomain: mesh.test}}}}
---
apiVersion: watchword.dev/v1
kind: Issuer
metadata: {name: idp}
spec: {issuer: "https://idp.test", keySet: {jwks: '{"keys":[{"kty":"EC","crv":"P-256","kid":"a","x":"P9505FFOjil8oumX2B7h0dctVBPD6je3euppPRzip7k","y":"NmjJBiEnH3x_ff-xKws2HHjaEi3yfNcHObuDUl5ClIs"}]}'}}
---
{apiVersion: watchword.dev/v1, kind: Service, metadata: {name: a}, spec: {calls: [{service: b, scopes: [read]}]}}
---
{apiVersion: watchword.dev/v1, kind: Service, metadata: {name: b}, spec: {}}
---
{apiVersion: watchword.dev/v1, kind: Service, metadata: {name: c}, spec: {}}
---
{apiVersion: watchword.dev/v1, kind: AuthenticationPolicy, metadata: {name: c}, spec: {target: {services: [c]}, jwtRules: [{issuer: idp, audiences: [c]}]}}
`

// replicaInMemory is a loop with its servers, but without etcd: a test is the store.
type replicaInMemory struct {
	*loop
	t        *testing.T
	registry *prometheus.Registry
	log      *safeBuffer
	conn     *grpc.ClientConn
	state    store.Snapshot
}

// safeBuffer is a log that is read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func signingKey(t testing.TB) keyset.Record {
	t.Helper()
	k, err := keyset.First("ES256", time.Unix(1, 0).UTC())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func parse(t testing.TB, text string) policy.State {
	t.Helper()
	objects, faults := policy.Parse([]policy.Document{{Source: "mesh.yaml", Content: text}})
	if len(faults) > 0 {
		t.Fatalf("faults: %+v", faults)
	}
	state := policy.State{}
	for _, o := range objects {
		state[o.Key] = o.Resource
	}
	return state
}

// xdsConfig is that of a server whose clients are who they say in their calls.
func xdsConfig(reg prometheus.Registerer) xds.Config {
	return xds.Config{Registerer: reg, VersionKey: bytes.Repeat([]byte("v"), 32),
		Identify: func(ctx context.Context) (xds.Identity, error) {
			service, err := serviceOf(ctx)
			return xds.Identity{Service: service, Instance: service + "-1"}, err
		}}
}

const serviceHeader = "test-service"

func serviceOf(ctx context.Context) (string, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	return strings.Join(md[serviceHeader], ""), nil
}

func asService(ctx context.Context, name string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, serviceHeader, name)
}

func loopOf(log hclog.Logger, x *xds.Server, s *sts.Server, m *loopMetrics) *loop {
	l := newLoop(log, m)
	l.xds, l.sts, l.departures.xds = x, s, x
	return l
}

// begin starts a loop at revision 1 with the mesh above.
func begin(t *testing.T) *replicaInMemory {
	t.Helper()
	log := &safeBuffer{}
	r := &replicaInMemory{t: t, registry: prometheus.NewRegistry(), log: log}
	x := xds.New(xdsConfig(r.registry))
	r.loop = loopOf(hclog.New(&hclog.LoggerOptions{Output: log}), x, sts.New(sts.Config{Registerer: r.registry}), newLoopMetrics(r.registry))
	key := signingKey(t)
	r.state = store.Snapshot{Revision: 1, Config: parse(t, meshYAML), Keys: map[string]keyset.Record{key.KeyID: key}, Open: keyset.Open{Active: key.KeyID}}
	first := r.state
	r.loop.start(&first)
	r.serve()
	return r
}

// serve lets data planes connect, to more services than ADS if there are.
func (r *replicaInMemory) serve(more ...func(grpc.ServiceRegistrar)) {
	lis := bufconn.Listen(1 << 20)
	g := grpc.NewServer(xds.ServerOptions()...)
	r.xds.Register(g)
	for _, register := range more {
		register(g)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(lis) }()
	conn, err := grpc.NewClient("passthrough:///bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		r.t.Fatal(err)
	}
	r.conn = conn
	r.t.Cleanup(func() { conn.Close(); r.xds.Close(); g.Stop(); <-done })
}

const extensionType = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"

// connect runs data planes that ACK all that they get, one for each service.
func (r *replicaInMemory) connect(services ...string) {
	r.t.Helper()
	for _, name := range services {
		ctx, cancel := context.WithCancel(asService(context.Background(), name))
		stream, err := discovery.NewAggregatedDiscoveryServiceClient(r.conn).DeltaAggregatedResources(ctx)
		if err == nil {
			err = stream.Send(&discovery.DeltaDiscoveryRequest{
				Node: &core.Node{Id: "node-" + name, Cluster: name, UserAgentName: "envoy"}, TypeUrl: extensionType,
				ResourceNamesSubscribe: []string{"mesh.inbound/" + name, "mesh.revoked/" + name},
			})
		}
		if err != nil {
			r.t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				resp, err := stream.Recv()
				if err != nil {
					return
				}
				_ = stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: extensionType, ResponseNonce: resp.GetNonce()})
			}
		}()
		r.t.Cleanup(func() { cancel(); <-done })
	}
	r.until(0, len(services))
}

// until waits for n data planes that are touched by a revision and have it.
func (r *replicaInMemory) until(revision int64, n int) {
	r.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		p, changed := r.xds.Progress(revision)
		if p.Published >= revision && p.Total == n && p.InSync == n {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			r.t.Fatalf("revision %d: %+v; want %d touched and in sync", revision, p, n)
		}
	}
}

// edit changes the store: documents to put, and keys to delete.
func (r *replicaInMemory) edit(text string, remove ...policy.Key) store.Event {
	r.t.Helper()
	r.state.Revision++
	r.state.Config = r.state.Config.Clone()
	e := store.Event{}
	if text != "" {
		for k, res := range parse(r.t, text) {
			r.state.Config[k] = res
			e.Changed = append(e.Changed, k)
		}
	}
	for _, k := range remove {
		delete(r.state.Config, k)
		e.Changed = append(e.Changed, k)
	}
	snap := r.state
	e.Snapshot = &snap
	return e
}

// rekey changes the signing keys in the store.
func (r *replicaInMemory) rekey(records ...keyset.Record) store.Event {
	r.state.Revision++
	r.state.Keys = map[string]keyset.Record{}
	r.state.Open = keyset.Open{}
	for _, k := range records {
		if r.state.Keys[k.KeyID] = k; k.State == keyset.Active {
			r.state.Open.Active = k.KeyID
		}
	}
	snap := r.state
	return store.Event{Snapshot: &snap, SigningKeys: true}
}

// compiled reads how many services were compiled so far.
func (r *replicaInMemory) compiled() int {
	r.t.Helper()
	var m dto.Metric
	if err := r.metrics.compiled.Write(&m); err != nil {
		r.t.Fatal(err)
	}
	return int(m.GetCounter().GetValue())
}

// inbound is the version of the filter chain that a node was sent.
func (r *replicaInMemory) inbound(service string) string {
	r.t.Helper()
	_, sent, _ := r.xds.Sent("node-" + service)
	for _, s := range sent {
		if s.Name == "mesh.inbound/"+service {
			return s.Version
		}
	}
	r.t.Fatalf("node-%s was not sent its filter chain: %+v", service, sent)
	return ""
}

// Each kind of change compiles and publishes the services that it touches, and
// no other; what it doesn't touch is in sync at the new revision all the same.
func TestLoopTouches(t *testing.T) {
	defer goleak.VerifyNone(t)
	policyOf := func(target, rules string) string {
		return fmt.Sprintf("{apiVersion: watchword.dev/v1, kind: AuthorizationPolicy, metadata: {name: p}, spec: {target: {services: [%s]}, action: DENY, rules: [%s]}}", target, rules)
	}
	idp2 := strings.NewReplacer(`"kid":"a"`, `"kid":"b"`).Replace(strings.Split(meshYAML, "---")[1])
	t.Run("steps", func(t *testing.T) {
		r := begin(t)
		r.connect("a", "b", "c")
		for _, step := range []struct {
			name              string
			event             func() store.Event
			compiled, touched int
			changed           string
		}{
			{"a policy of one service", func() store.Event { return r.edit(policyOf("a", "{to: {methods: [GET]}}")) }, 1, 1, "a"},
			{"the same again", func() store.Event { return r.edit(policyOf("a", "{to: {methods: [GET]}}")) }, 1, 0, ""},
			{"a policy that moves to another service", func() store.Event { return r.edit(policyOf("b", "{to: {methods: [GET]}}")) }, 2, 2, "ab"},
			{"a policy that goes", func() store.Event { return r.edit("", policy.Key{Kind: policy.KindAuthorizationPolicy, Name: "p"}) }, 1, 1, "b"},
			{"a key of an issuer that one service uses", func() store.Event { return r.edit(idp2) }, 1, 1, "c"},
			{"a call, of which no filter knows", func() store.Event {
				return r.edit("{apiVersion: watchword.dev/v1, kind: Service, metadata: {name: a}, spec: {calls: [{service: c}]}}")
			}, 1, 1, ""},
			{"a host of a service that another one calls", func() store.Event {
				return r.edit("{apiVersion: watchword.dev/v1, kind: Service, metadata: {name: c}, spec: {hosts: [c.test]}}")
			}, 2, 1, ""},
			// Callers drop tokens of keys that are gone, so all are compiled.
			{"a signing key", func() store.Event { return r.rekey(signingKey(t)) }, 3, 3, "ab"},
			{"a client secret", func() store.Event {
				e := r.edit("")
				e.ClientSecrets = true
				return e
			}, 0, 0, ""},
			{"a service that is new", func() store.Event {
				return r.edit("{apiVersion: watchword.dev/v1, kind: Service, metadata: {name: d}, spec: {}}")
			}, 1, 0, ""},
			{"a service that goes", func() store.Event { return r.edit("", policy.Key{Kind: policy.KindService, Name: "b"}) }, 1, 1, "b"},
		} {
			versions := func() map[string]string {
				return map[string]string{"a": r.inbound("a"), "b": r.inbound("b"), "c": r.inbound("c")}
			}
			before, n, e := versions(), r.compiled(), step.event()
			r.apply(e)
			r.until(e.Snapshot.Revision, step.touched)
			if got := r.compiled() - n; got != step.compiled {
				t.Errorf("%s: %d services were compiled, want %d", step.name, got, step.compiled)
			}
			after := versions()
			for service, was := range before {
				if changed := after[service] != was; changed != strings.Contains(step.changed, service) {
					t.Errorf("%s: the filter chain of %s changed: %t; want a change of %q", step.name, service, changed, step.changed)
				}
			}
			for _, d := range r.xds.DataPlanes("") {
				if !d.InSync || d.Revision != e.Snapshot.Revision {
					t.Errorf("%s: %s has revision %d (%s), want %d", step.name, d.Node, d.Revision, d.Reason, e.Snapshot.Revision)
				}
			}
		}
	})
}

// The keys of credentials are parsed when their Consumer changes, and go with it;
// one that can't be used is left out, and the log says which.
func TestLoopKeepsConsumerKeys(t *testing.T) {
	defer goleak.VerifyNone(t)
	t.Run("steps", func(t *testing.T) {
		r := begin(t)
		consumer := func(secret string) string {
			return "{apiVersion: watchword.dev/v1, kind: Consumer, metadata: {name: alice}, spec: {credentials: [{key: a, keySet: {secret: {keys: [{secret: " + secret + "}]}}}]}}"
		}
		for _, step := range []struct {
			name  string
			event store.Event
			want  string
		}{
			{"none", r.edit(""), ""},
			{"a new one", r.edit(consumer("a-secret-of-thirty-two-characters")), `"YS1zZWNyZXQtb2YtdGhpcnR5LXR3by1jaGFyYWN0ZXJz"`},
			{"another secret", r.edit(consumer("b-secret-of-thirty-two-characters")), `"Yi1zZWNyZXQtb2YtdGhpcnR5LXR3by1jaGFyYWN0ZXJz"`},
			{"another resource", r.edit("{apiVersion: watchword.dev/v1, kind: Service, metadata: {name: d}, spec: {}}"), `"Yi1zZWNyZXQtb2YtdGhpcnR5LXR3by1jaGFyYWN0ZXJz"`},
			{"one that an older version took", r.edit(consumer("weak")), ""},
			{"gone", r.edit("", policy.Key{Kind: policy.KindConsumer, Name: "alice"}), ""},
		} {
			r.apply(step.event)
			var got string
			for _, keys := range r.keys.consumers["alice"] {
				for _, k := range keys {
					got += k.JWK()
				}
			}
			if !strings.Contains(got, step.want) || (step.want == "") != (got == "") {
				t.Errorf("%s: the keys are %s, want %s", step.name, got, step.want)
			}
			if verifying := r.verifying.Load().consumers["alice"]; len(verifying) != len(r.keys.consumers["alice"]) {
				t.Errorf("%s: a preview sees %d credentials, want %d", step.name, len(verifying), len(r.keys.consumers["alice"]))
			}
		}
		if text := r.log.String(); !strings.Contains(text, "Consumer/alice") || strings.Contains(text, "weak") {
			t.Errorf("the log says %q; want the resource whose key is left out, and no secret", text)
		}
	})
}

// Signing keys that can't be used (none active, or not a key) leave the last
// ones in force: data planes and the token service go on with them.
func TestLoopKeepsSigningKeys(t *testing.T) {
	r := begin(t)
	r.connect("a")
	before := r.inbound("a")
	bad := signingKey(t)
	bad.State = "standby-of-the-future"
	for _, records := range [][]keyset.Record{nil, {bad}, {signingKey(t), bad}} {
		e := r.rekey(records...)
		r.apply(e)
		r.until(e.Snapshot.Revision, 0)
		if got := r.inbound("a"); got != before {
			t.Errorf("with the keys %v data planes got another filter chain", records)
		}
		if _, refused := r.sts.Issue(t.Context(), sts.Request{Service: "a", Audience: "b"}); refused != nil {
			t.Errorf("with the keys %v no token is issued: %v", records, refused)
		}
		if got := r.current.Load().Revision; got != e.Snapshot.Revision {
			t.Errorf("with the keys %v the loop stands at %d, want %d", records, got, e.Snapshot.Revision)
		}
	}
	if n := strings.Count(r.log.String(), "the signing keys can't be used; going on with the last ones"); n != 3 {
		t.Errorf("the log says %d times that the keys can't be used, want 3:\n%s", n, r.log)
	}
}

// The token service knows a change when the loop has applied it: whom a
// service may call, and who is gone.
func TestLoopTellsIssuer(t *testing.T) {
	r := begin(t)
	issue := func(service, audience string) string {
		resp, refused := r.sts.Issue(t.Context(), sts.Request{Service: service, Audience: audience})
		if refused != nil {
			return refused.Code
		}
		return "scope " + resp.Scope
	}
	var got []string
	got = append(got, issue("a", "b"), issue("b", "a"))
	r.apply(r.edit("{apiVersion: watchword.dev/v1, kind: Service, metadata: {name: b}, spec: {calls: [{service: a}]}}"))
	got = append(got, issue("b", "a"))
	r.apply(r.edit("", policy.Key{Kind: policy.KindService, Name: "a"}))
	got = append(got, issue("b", "a"))
	want := []string{"scope read", "invalid_target", "scope ", "invalid_target"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("tokens before and after the changes, -want +got:\n%s", diff)
	}
}

// The mailbox merges what waits: the newest state, every name that changed
// once, and every flag.
func TestMailboxMerges(t *testing.T) {
	m := newMailbox()
	key := func(name string) policy.Key { return policy.Key{Kind: policy.KindService, Name: name} }
	shared := make([]policy.Key, 1, 8) // whose spare room is not the mailbox's
	shared[0] = key("c")
	instances := make([]string, 1, 8)
	instances[0] = "a/1"
	m.put(store.Event{Snapshot: &store.Snapshot{Revision: 1}, Changed: []policy.Key{key("a"), key("b")}, SigningKeys: true, Instances: instances})
	m.put(store.Event{Snapshot: &store.Snapshot{Revision: 2}, Changed: []policy.Key{key("b")}, ClientSecrets: true, CAs: true, Instances: []string{"a/2"}})
	m.put(store.Event{Snapshot: &store.Snapshot{Revision: 3}, Changed: shared, AdminToken: true})
	<-m.full
	got := *m.take()
	want := store.Event{Snapshot: &store.Snapshot{Revision: 3}, Changed: []policy.Key{key("c"), key("b"), key("a")}, SigningKeys: true, ClientSecrets: true,
		CAs: true, AdminToken: true, Instances: []string{"a/1", "a/2"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("merged -want +got:\n%s", diff)
	}
	if spare := instances[:2][1]; spare != "" {
		t.Errorf("the mailbox has written %q behind the sender's instances", spare)
	}
	select {
	case <-m.full:
		t.Error("the mailbox is empty but says that it is full")
	default:
	}
}

// An event that comes between the signal and the taking is taken with the rest;
// the signal that it leaves behind finds nothing, and does not end the loop.
func TestLoopTakesLateEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := loopOf(hclog.NewNullLogger(), xds.New(xdsConfig(nil)), sts.New(sts.Config{}), newLoopMetrics(prometheus.NewRegistry()))
		at := func(revision int64) store.Event {
			return store.Event{Snapshot: &store.Snapshot{Revision: revision, Config: policy.State{}}}
		}
		l.mailbox.put(at(1))
		<-l.mailbox.full
		l.mailbox.put(at(2)) // as late as can be: the signal is given again
		l.mailbox.take()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- l.run(ctx) }()
		synctest.Wait()
		l.mailbox.put(at(3))
		if err := l.reached(ctx, 3); err != nil {
			t.Error(err)
		}
		cancel()
		<-done
	})
}

// While one change is being applied the next ones are gathered and applied
// together; nothing is lost.
func TestLoopGathers(t *testing.T) {
	r := begin(t)
	r.connect("a", "b", "c")
	n := r.compiled()
	var last int64
	for i := range 50 {
		e := r.edit(fmt.Sprintf("{apiVersion: watchword.dev/v1, kind: Service, metadata: {name: %c}, spec: {audiences: [x%d]}}", 'a'+i%3, i))
		last = e.Snapshot.Revision
		r.mailbox.put(e)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.run(ctx) }()
	if err := r.reached(t.Context(), last); err != nil {
		t.Fatal(err)
	}
	r.until(2, 2) // c takes the audiences that its policy names
	if got := r.compiled() - n; got != 3 {
		t.Errorf("50 changes of 3 services that waited together compiled %d services, want 3", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run = %v after its context ended", err)
	}
}

// Events that come in any rhythm, from another goroutine: the loop ends at the
// last revision with what the last state says.
func TestLoopUnderLoad(t *testing.T) {
	r := begin(t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.run(ctx) }()
	var last store.Event
	for i := range 2000 {
		last = r.edit("")
		if i%10 == 0 {
			last = r.edit(fmt.Sprintf("{apiVersion: watchword.dev/v1, kind: Service, metadata: {name: a}, spec: {audiences: [x%d]}}", i))
		}
		r.mailbox.put(last)
	}
	if err := r.reached(t.Context(), last.Snapshot.Revision); err != nil {
		t.Fatal(err)
	}
	if got := r.current.Load(); !proto.Equal(got.Config[policy.Key{Kind: policy.KindService, Name: "a"}], last.Snapshot.Config[policy.Key{Kind: policy.KindService, Name: "a"}]) {
		t.Errorf("the loop stands at %v", got.Config)
	}
	cancel()
	<-done
}

// reached returns at once for the past, waits for the future, and ends with its
// context.
func TestReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := hclog.NewNullLogger()
		l := loopOf(log, xds.New(xdsConfig(nil)), sts.New(sts.Config{}), newLoopMetrics(prometheus.NewRegistry()))
		l.current.Store(&store.Snapshot{Revision: 5})
		if err := l.reached(t.Context(), 5); err != nil {
			t.Errorf("reached(5) = %v at revision 5", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := l.reached(ctx, 6); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("reached(6) = %v at revision 5, want the context's end", err)
		}
		done := make(chan error)
		go func() { done <- l.reached(t.Context(), 7) }()
		for _, revision := range []int64{6, 8} {
			synctest.Wait()
			select {
			case err := <-done:
				t.Fatalf("reached(7) = %v before revision %d", err, revision)
			default:
			}
			l.apply(store.Event{Snapshot: &store.Snapshot{Revision: revision, Config: policy.State{}}})
		}
		if err := <-done; err != nil {
			t.Errorf("reached(7) = %v", err)
		}
	})
}
