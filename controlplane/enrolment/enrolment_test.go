package enrolment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/internal/identity"
	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
)

// enrols fails the test unless the request ends with the certificate of the key.
func (w *world) enrols(t testing.TB, req *enrolmentv1.EnrolRequest, k key) *enrolmentv1.Identity {
	t.Helper()
	resp, err := w.Server.Enrol(from("10.0.0.1"), req)
	if err != nil {
		t.Fatalf("Enrol: %v; refusals: %+v", err, w.refusals)
	}
	id := resp.GetIdentity()
	if id.GetInstance() != k.instance || id.GetService() != req.GetService() || id.GetIssuer() != issuerURL || id.GetTrustDomain() != "mesh.local" {
		t.Errorf("identity %v; want instance %s of %s", id, k.instance, req.GetService())
	}
	leaf := parse(t, id.GetCertificates()[0])
	got, err := w.authority.Instance(leaf)
	want := identity.ID{TrustDomain: "mesh.local", Service: req.GetService(), Instance: k.instance}
	if err != nil || got != want || !k.private.PublicKey.Equal(leaf.PublicKey) {
		t.Errorf("the certificate is of %+v, %v; want %+v, for the key of the request", got, err, want)
	}
	return id
}

// oursAlone is what a reason in the audit may be.
var oursAlone = regexp.MustCompile(`^[A-Za-z ]+(, for service (orders|payments))?$`)

// refuses fails the test unless the request is refused, with a reason in the audit
// that the caller does not hear.
func (w *world) refuses(t testing.TB, req *enrolmentv1.EnrolRequest, reason string) {
	t.Helper()
	before := len(w.refusals)
	_, err := w.Server.Enrol(from(fmt.Sprintf("10.1.%d.%d", before/200, before%200)), req)
	want := fmt.Sprintf("the credential does not enrol an instance of service %q: it may be wrong, used up, expired or for another service; the control plane's log says which", req.GetService())
	if status.Code(err) != codes.PermissionDenied || status.Convert(err).Message() != want && req.GetService() == strings.ToLower(req.GetService()) && req.GetService() != "" {
		t.Errorf("Enrol = %v; want PermissionDenied: %s", err, want)
	}
	if len(w.refusals) != before+1 || !oursAlone.MatchString(w.refusals[before].Reason) || w.refusals[before].Actor != "" {
		t.Errorf("the audit has %+v; want one more entry of a stranger, in words of ours", w.refusals[before:])
	}
	if logged := w.logged(); !strings.Contains(logged, reason) {
		t.Errorf("the log has %q; want the reason %q", logged, reason)
	}
}

// A join token lets in as many instances as it is for, once each, and is written
// down by the transaction that uses it.
func TestJoinToken(t *testing.T) {
	w := newWorld(t)
	token, a, b := w.token("orders", 1), newKey(t), newKey(t)
	w.enrols(t, byJoinToken("orders", a, token), a)
	w.refuses(t, byJoinToken("orders", b, token), "used up")
	want := []audit.Entry{{Actor: "instance:orders/" + a.instance, Source: "10.0.0.1", Method: "Enrol", Subjects: []string{"instance orders/" + a.instance + " by join-token/" + token.ID}}}
	if diff := cmp.Diff(want, w.audit); diff != "" {
		t.Errorf("audit (-want +got):\n%s", diff)
	}
	// The answer was lost: the same key asks again, and nothing more is used.
	w.enrols(t, byJoinToken("orders", a, token), a)
	if n := len(w.tokens[token.ID].Instances); n != 1 || len(w.instances) != 1 {
		t.Errorf("the token was used %d times, %d instances; want 1 and 1", n, len(w.instances))
	}
}

func TestJoinTokenRefused(t *testing.T) {
	w := newWorld(t)
	k, token, other := newKey(t), w.token("orders", 9), w.token("payments", 9)
	replaced := func(old, new string) *enrolmentv1.EnrolRequest {
		req := byJoinToken("orders", k, token)
		req.Credential = &enrolmentv1.EnrolRequest_JoinToken{JoinToken: strings.Replace(token.Text(), old, new, 1)}
		return req
	}
	w.refuses(t, byJoinToken("payments", k, token), "has no join token")
	w.refuses(t, replaced(token.ID, other.ID), "secret is wrong")
	w.refuses(t, replaced(token.Secret(), other.Secret()), "secret is wrong")
	w.refuses(t, replaced(token.ID, "AAAAAAAAAAAAA"), "has no join token")
	w.refuses(t, replaced("wwjt_", ""), "not a join token")
	w.refuses(t, byJoinToken("Orders", k, token), "can't be the name")
	w.refuses(t, byJoinToken("", k, token), "can't be the name")
	w.refuses(t, &enrolmentv1.EnrolRequest{Service: "orders", CertificateRequest: k.request}, "no credential")
	w.refuses(t, &enrolmentv1.EnrolRequest{Service: "orders", Credential: byJoinToken("orders", k, token).Credential}, "request")
	noisy := byJoinToken("orders", k, token)
	noisy.Node = "a\nb"
	w.refuses(t, noisy, "control characters")
	// Somebody else's request with a signature that is not of its key.
	forged := byJoinToken("orders", k, token)
	forged.CertificateRequest = append([]byte{}, k.request...)
	forged.CertificateRequest[len(forged.CertificateRequest)-1] ^= 1
	w.refuses(t, forged, "not signed")
	w.now = w.now.Add(time.Hour)
	w.refuses(t, byJoinToken("orders", k, token), "join token expired")
	if len(w.instances) != 0 {
		t.Errorf("instances %v; want none", w.instances)
	}
	if strings.Contains(w.all.String(), token.Secret()) {
		t.Errorf("the log shows the secret: %s", &w.all)
	}
}

// Of two that race for the last use at two replicas one gets it.
func TestRaceForTheLastUse(t *testing.T) {
	w := newWorld(t)
	token := w.token("orders", 1)
	var both sync.WaitGroup
	both.Add(2)
	var reads atomic.Int32
	w.between = func() { // both have read the token before one writes
		if reads.Add(1) <= 2 {
			both.Done()
			both.Wait()
		}
	}
	results := make(chan error, 2)
	for _, replica := range []*Server{w.Server, New(w.Config)} {
		k := newKey(t)
		go func() {
			_, err := replica.Enrol(from("10.0.0.1"), byJoinToken("orders", k, token))
			results <- err
		}()
	}
	got := []codes.Code{status.Code(<-results), status.Code(<-results)}
	if !(got[0] == codes.OK && got[1] == codes.PermissionDenied) && !(got[1] == codes.OK && got[0] == codes.PermissionDenied) || len(w.instances) != 1 {
		t.Errorf("answers %v, %d instances; want one OK, one PermissionDenied, 1 instance", got, len(w.instances))
	}
}

// An instance that was revoked does not come back by the token that it has used.
func TestRevokedStaysOut(t *testing.T) {
	w := newWorld(t)
	token, k := w.token("orders", 5), newKey(t)
	w.enrols(t, byJoinToken("orders", k, token), k)
	delete(w.instances, "orders/"+k.instance)
	w.refuses(t, byJoinToken("orders", k, token), "revoked since")
	assertion := identity.ID{TrustDomain: "mesh.local", Service: "orders", Instance: k.instance}.String()
	w.refuses(t, &enrolmentv1.EnrolRequest{Service: "orders", CertificateRequest: k.request, Credential: &enrolmentv1.EnrolRequest_KeyAssertion{KeyAssertion: assertion}}, "revoked")
	w.caller = identity.ID{TrustDomain: "mesh.local", Service: "orders", Instance: k.instance}
	if _, err := w.Server.Renew(from("10.0.0.1"), nil); status.Code(err) != codes.PermissionDenied {
		t.Errorf("Renew = %v; want PermissionDenied", err)
	}
}

// A key that is enrolled gets a certificate by an assertion of its own, and by no
// other's.
func TestByKey(t *testing.T) {
	w := newWorld(t)
	token, k, other := w.token("orders", 5), newKey(t), newKey(t)
	w.enrols(t, byJoinToken("orders", k, token), k)
	w.enrols(t, byJoinToken("orders", other, token), other)
	w.now = w.now.Add(25 * time.Hour)
	by := func(service string, k key, of identity.ID) *enrolmentv1.EnrolRequest {
		return &enrolmentv1.EnrolRequest{Service: service, CertificateRequest: k.request, Credential: &enrolmentv1.EnrolRequest_KeyAssertion{KeyAssertion: of.String()}}
	}
	own := identity.ID{TrustDomain: "mesh.local", Service: "orders", Instance: k.instance}
	w.enrols(t, by("orders", k, own), k)
	if got := w.instances["orders/"+k.instance]; got.AttestedBy != "join-token/"+token.ID || !got.Renewed.Equal(w.now) || got.Enrolled.Equal(w.now) || !got.Expires.Equal(w.now.Add(Lifetime)) {
		t.Errorf("the record is %+v; want it renewed at %s", got, w.now)
	}
	w.refuses(t, by("orders", other, own), "it is of instance")
	w.refuses(t, by("payments", k, own), "it is of instance")
}

func TestKubernetes(t *testing.T) {
	w := newWorld(t)
	by := func(service string, k key, change map[string]any) *enrolmentv1.EnrolRequest {
		claims := map[string]any{"iss": "https://k8s.example", "sub": "system:serviceaccount:shop:orders", "aud": []string{issuerURL}, "iat": w.now.Unix(), "exp": w.now.Unix() + 3600}
		maps.Copy(claims, change)
		maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
		text, err := json.Marshal(claims)
		if err != nil {
			t.Fatal(err)
		}
		token, err := w.cluster.Signer("").Sign(text)
		if err != nil {
			t.Fatal(err)
		}
		return &enrolmentv1.EnrolRequest{Service: service, CertificateRequest: k.request, Credential: &enrolmentv1.EnrolRequest_KubernetesToken{KubernetesToken: token}}
	}
	first, again := newKey(t), newKey(t)
	w.enrols(t, by("orders", first, nil), first)
	w.enrols(t, by("orders", again, nil), again) // a restart has a new key and the same token
	k := newKey(t)
	w.refuses(t, by("payments", k, nil), "no issuer")
	w.refuses(t, by("orders", k, map[string]any{"sub": "system:serviceaccount:shop:payments"}), "does not name")
	w.refuses(t, by("orders", k, map[string]any{"sub": "system:serviceaccount:other:orders"}), "does not name")
	w.refuses(t, by("orders", k, map[string]any{"aud": "https://kubernetes.default.svc"}), "does not name")
	w.refuses(t, by("orders", k, map[string]any{"iss": "https://other.example"}), "no issuer")
	w.refuses(t, by("orders", k, map[string]any{"exp": w.now.Unix() - 60}), "expired")
	w.refuses(t, by("orders", k, map[string]any{"iat": nil}), "no iat")
	// A time of revocation is not kept for ever, so that no token may be older.
	w.refuses(t, by("orders", k, map[string]any{"iat": w.now.Add(-store.ForgetRevocations).Unix()}), "days old")
	w.revoked["orders"] = w.now
	w.refuses(t, by("orders", k, nil), "of before")
	w.now = w.now.Add(time.Second)
	w.enrols(t, by("orders", k, nil), k)
	stranger := newWorld(t)
	w.cluster = stranger.cluster
	w.enrols(t, by("orders", k, nil), k) // the cluster has rotated its key, and we follow
}

// A renewal gives a certificate for the same key, is noted once a day, and works
// while etcd is away.
func TestRenew(t *testing.T) {
	w := newWorld(t)
	token, k := w.token("orders", 1), newKey(t)
	first := w.enrols(t, byJoinToken("orders", k, token), k)
	w.caller, w.callerKey = identity.ID{TrustDomain: "mesh.local", Service: "orders", Instance: k.instance}, &k.private.PublicKey
	w.now = first.GetRenew().AsTime()
	resp, err := w.Server.Renew(from("10.0.0.1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	leaf := parse(t, resp.GetIdentity().GetCertificates()[0])
	if !k.private.PublicKey.Equal(leaf.PublicKey) || leaf.NotAfter.Before(w.now.Add(CertificateLifetime-time.Minute)) {
		t.Errorf("the certificate ends at %s and is of another key, or too short", leaf.NotAfter)
	}
	key := "orders/" + k.instance
	if got := w.instances[key]; got.Revision != 2 {
		t.Errorf("a renewal within a day was written: %+v", got)
	}
	w.now = w.now.Add(24 * time.Hour)
	w.down = errors.New("etcd is away")
	if _, err := w.Server.Renew(from("10.0.0.1"), nil); err != nil {
		t.Errorf("Renew while etcd is away: %v", err)
	}
	w.down = nil
	if _, err := w.Server.Renew(from("10.0.0.1"), nil); err != nil || !w.instances[key].Expires.Equal(w.now.Add(Lifetime)) {
		t.Errorf("Renew: %v, record %+v; want it to end at %s", err, w.instances[key], w.now.Add(Lifetime))
	}
	w.caller = identity.ID{}
	if _, err := w.Server.Renew(from("10.0.0.1"), nil); status.Code(err) != codes.Unauthenticated {
		t.Errorf("Renew without a certificate = %v; want Unauthenticated", err)
	}
}

// What is our fault is not said to be the caller's, and says nothing of us.
func TestFaults(t *testing.T) {
	w := newWorld(t)
	token, k := w.token("orders", 1), newKey(t)
	for _, down := range []error{errors.New("etcd is at 10.9.9.9"), status.Error(codes.PermissionDenied, "etcd is at 10.9.9.9"), fmt.Errorf("etcd is at 10.9.9.9: %w", context.DeadlineExceeded)} {
		w.down = down
		if _, err := w.Server.Enrol(from("10.0.0.1"), byJoinToken("orders", k, token)); status.Code(err) != codes.Unavailable || strings.Contains(err.Error(), "10.9.9.9") {
			t.Errorf("Enrol = %v; want Unavailable, without the cause", err)
		}
	}
	w.down = nil
	delete(w.services, "orders")
	w.refuses(t, byJoinToken("orders", k, token), "no such service")
}

// A source that keeps failing is not written down for ever; others are answered.
func TestFailingSourceIsLimited(t *testing.T) {
	w := newWorld(t)
	token, k := w.token("orders", 5), newKey(t)
	bad := byJoinToken("payments", k, token)
	last := codes.OK
	for range 100 {
		_, err := w.Server.Enrol(from("10.0.0.9"), bad)
		last = status.Code(err)
	}
	if last != codes.ResourceExhausted || len(w.refusals) != 21 {
		t.Errorf("the last answer is %s, %d audit entries; want ResourceExhausted and 21", last, len(w.refusals))
	}
	w.enrols(t, byJoinToken("orders", k, token), k)
}

// One address can't have any number of new instances, whatever it proves; those that
// are enrolled go on, and so do others.
func TestNewInstancesHaveAPace(t *testing.T) {
	w := newWorld(t)
	token := w.token("orders", freshAtOnce+10)
	first := newKey(t)
	w.enrols(t, byJoinToken("orders", first, token), first)
	for range freshAtOnce - 1 {
		if _, err := w.Server.Enrol(from("10.0.0.1"), byJoinToken("orders", newKey(t), token)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Server.Enrol(from("10.0.0.1"), byJoinToken("orders", newKey(t), token)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("one more: %v; want ResourceExhausted", err)
	}
	w.enrols(t, byJoinToken("orders", first, token), first)
	if _, err := w.Server.Enrol(from("10.0.0.2"), byJoinToken("orders", newKey(t), token)); err != nil {
		t.Errorf("from another address: %v", err)
	}
	w.now = w.now.Add(time.Second)
	if _, err := w.Server.Enrol(from("10.0.0.1"), byJoinToken("orders", newKey(t), token)); err != nil {
		t.Errorf("a second later: %v", err)
	}
}
