package enrolment

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/peer"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/bearer"
	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/internal/identity"
	"github.com/watchword-mesh/watchword/internal/jointoken"
	"github.com/watchword-mesh/watchword/internal/jose"
	"github.com/watchword-mesh/watchword/issuer/ca"
	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

const issuerURL = "https://sts.example"

var pepper = bytes.Repeat([]byte{7}, 32)

// world is a control plane around a Server: records in memory with the fences of
// the store, one cluster of Kubernetes, and a clock.
type world struct {
	*Server
	now       time.Time
	authority *ca.Authority
	cluster   *jose.PrivateKey

	mu        sync.Mutex
	revision  int64
	services  map[string]*policyv1.ServiceSpec
	instances map[string]store.Instance
	tokens    map[string]store.JoinToken
	revoked   map[string]time.Time
	refusals  []audit.Entry
	audit     []audit.Entry
	// between is called after a join token was read, for races.
	between func()
	// down is what records answer, if set.
	down error
	// caller is whose certificate a call of Renew has.
	caller identity.ID
	// log is what was logged since the last look at it, all is all of it.
	log, all  bytes.Buffer
	callerKey crypto.PublicKey
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{now: time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC), services: map[string]*policyv1.ServiceSpec{}, instances: map[string]store.Instance{}, tokens: map[string]store.JoinToken{}, revoked: map[string]time.Time{}}
	record, err := ca.First("mesh.local", w.now)
	if err != nil {
		t.Fatal(err)
	}
	if w.authority, err = ca.NewAuthority([]ca.Record{record}); err != nil {
		t.Fatal(err)
	}
	if w.cluster, err = jose.GenerateKey("ES256"); err != nil {
		t.Fatal(err)
	}
	w.services["orders"] = &policyv1.ServiceSpec{Bootstrap: &policyv1.Bootstrap{Kubernetes: []*policyv1.KubernetesWorkload{{Issuer: "k8s", Namespace: "shop", ServiceAccount: "orders"}}}}
	w.services["payments"] = &policyv1.ServiceSpec{}
	w.Server = New(Config{
		Records: w, Mesh: mesh{w}, Assertions: w, Pepper: pepper, Now: func() time.Time { return w.now },
		Identify: func(context.Context) (identity.ID, crypto.PublicKey, error) {
			if w.caller.Instance == "" {
				return identity.ID{}, nil, errors.New("nobody")
			}
			return w.caller, w.callerKey, nil
		},
		Logger:  hclog.New(&hclog.LoggerOptions{Output: io.MultiWriter(&w.log, &w.all)}),
		Refused: func(e audit.Entry) { w.refusals = append(w.refusals, e) },
	})
	return w
}

func (w *world) logged() string {
	defer w.log.Reset()
	return w.log.String()
}

// mesh implements Mesh.
type mesh struct{ w *world }

func (m mesh) Service(name string) *policyv1.ServiceSpec { return m.w.services[name] }
func (m mesh) Instance(service, id string) (store.Instance, bool) {
	i, ok := m.w.instances[service+"/"+id]
	return i, ok
}
func (m mesh) Issuers(names []string) []bearer.Issuer {
	if slices.Contains(names, "k8s") {
		return []bearer.Issuer{{Name: "k8s", Issuer: "https://k8s.example", Keys: []jose.Key{m.w.cluster.Public()}}}
	}
	return nil
}
func (m mesh) RevokedBefore(service string) time.Time   { return m.w.revoked[service] }
func (m mesh) Revision() int64                          { return m.w.revision }
func (mesh) Issuer() string                             { return issuerURL }
func (m mesh) Authority() *ca.Authority                 { return m.w.authority }
func (mesh) Reached(ctx context.Context, _ int64) error { return ctx.Err() }
func (w *world) VerifyAssertion(text string) (string, string, error) {
	id, err := identity.Parse(text) // stands for one that was verified
	return id.Service, id.Instance, err
}

func (w *world) JoinToken(_ context.Context, service, id string) (store.JoinToken, error) {
	w.mu.Lock()
	t, ok := w.tokens[id]
	if ok && t.Service != service {
		t, ok = store.JoinToken{}, false
	}
	w.mu.Unlock()
	if w.between != nil {
		w.between()
	}
	if !ok {
		return t, errors.Join(store.ErrUnknown, w.down)
	}
	return t, w.down
}

func (w *world) Instance(_ context.Context, service, id string) (store.Instance, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i, ok := w.instances[service+"/"+id]
	if !ok && w.down == nil {
		return i, store.ErrUnknown
	}
	return i, w.down
}

func (w *world) Enrol(_ context.Context, i store.Instance, use *store.JoinToken, e audit.Entry) (store.Instance, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := i.Service + "/" + i.ID
	switch {
	case w.down != nil:
		return i, w.down
	case w.services[i.Service] == nil:
		return i, store.ErrNoService
	case use != nil && len(use.Instances) >= use.Uses:
		return i, store.ErrUsedUp
	case use != nil && w.tokens[use.ID].Revision != use.Revision:
		return i, store.ErrConflict
	}
	w.revision++
	i.Revision = w.revision
	w.instances[key] = i
	if use != nil {
		kept := *use
		kept.Instances, kept.Revision = append(slices.Clone(use.Instances), i.ID), w.revision
		w.tokens[use.ID] = kept
	}
	w.audit = append(w.audit, e)
	return i, nil
}

func (w *world) Renew(_ context.Context, i store.Instance) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := i.Service + "/" + i.ID
	switch before, ok := w.instances[key]; {
	case w.down != nil:
		return w.down
	case !ok:
		return store.ErrUnknown
	case before.Revision != i.Revision:
		return store.ErrConflict
	}
	w.revision++
	i.Revision = w.revision
	w.instances[key] = i
	return nil
}

// token makes a join token of a service.
func (w *world) token(service string, uses int) jointoken.Token {
	t := jointoken.New(w.authority.Pin())
	w.revision++
	w.tokens[t.ID] = store.JoinToken{ID: t.ID, Service: service, Hash: Hash(pepper, service, t), Uses: uses, Created: w.now, Expires: w.now.Add(time.Hour), Revision: w.revision}
	return t
}

// key is one of an instance, with a request for a certificate.
type key struct {
	private  *ecdsa.PrivateKey
	request  []byte
	instance string
}

func newKey(t testing.TB) key {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return key{k, request, identity.InstanceOf(spki)}
}

func byJoinToken(service string, k key, t jointoken.Token) *enrolmentv1.EnrolRequest {
	return &enrolmentv1.EnrolRequest{Service: service, CertificateRequest: k.request, Node: "node-1", Credential: &enrolmentv1.EnrolRequest_JoinToken{JoinToken: t.Text()}}
}

// from is a call from an address.
func from(address string) context.Context {
	return peer.NewContext(context.Background(), &peer.Peer{Addr: &net.TCPAddr{IP: net.ParseIP(address), Port: 1}})
}
