package kong

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

const bob = `apiVersion: watchword.dev/v1
kind: Consumer
metadata: {name: bob, uid: 7bce93e1-0a90-489c-c887-d385545f8f4b}
spec: {username: bob}
`

// Each error of a change has its status, what strangers need not know is only in
// the log, and the audit is told the route without names.
func TestChangeErrors(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code int
		want string
	}{
		{status.Error(codes.PermissionDenied, "this needs the role OPERATOR"), 403, `{"message":"this needs the role OPERATOR"}`},
		{status.Error(codes.Unauthenticated, "who are you"), 401, `{"message":"who are you"}`},
		{status.Error(codes.Unavailable, "etcd has no leader"), 503, `{"message":"etcd has no leader; look whether it was stored before you try again"}`},
		{status.Error(codes.Canceled, "gone"), 503, `{"message":"gone; look whether it was stored before you try again"}`},
		{status.Error(codes.ResourceExhausted, "too many"), 429, `{"message":"too many"}`},
		{status.Error(codes.InvalidArgument, "no detail"), 400, `{"message":"no detail"}`},
		{status.Error(codes.FailedPrecondition, "others were faster"), 409, `{"message":"others were faster"}`},
		{status.Error(codes.Internal, "inner matters"), 500, `{"message":"An unexpected error occurred"}`},
		{errors.New("inner matters"), 500, `{"message":"An unexpected error occurred"}`},
	} {
		m := store(t, bob)
		m.fail = tt.err
		var log bytes.Buffer
		c := config(m)
		c.Logger = hclog.New(&hclog.LoggerOptions{Output: &log})
		code, body := ask(t, New(c), http.MethodPatch, "/consumers/bob", "application/json", `{"tags":["a"]}`)
		if code != tt.code || body != tt.want {
			t.Errorf("%v: %d %s, want %d %s", tt.err, code, body, tt.code, tt.want)
		}
		if logged := strings.Contains(log.String(), "inner matters"); logged != (tt.code == 500) {
			t.Errorf("%v: log %q", tt.err, &log)
		}
		for _, method := range m.methods {
			if method != "kong PATCH /consumers/{consumer}" {
				t.Errorf("%v: the audit is told %q", tt.err, method)
			}
		}
	}
}

// A change that others have overtaken is made anew on what they have stored: both
// are kept.
func TestConflictBeginsAnew(t *testing.T) {
	m := store(t, bob)
	tries := 0
	m.meanwhile = func(m *memory) {
		if tries++; tries > 2 {
			return
		}
		next := m.state.Clone()
		r := newConsumer(next[policy.Key{Kind: policy.KindConsumer, Name: "bob"}]).edit()
		m.revision++
		r.GetConsumer().Tags, r.Metadata.Revision = append(r.GetConsumer().GetTags(), fmt.Sprint("other-", tries)), m.revision
		next[policy.KeyOf(r)] = r
		m.state = next
	}
	code, body := ask(t, New(config(m)), http.MethodPatch, "/consumers/bob", "application/json", `{"custom_id":"c"}`)
	if want := `"custom_id":"c","tags":["other-1","other-2"]`; code != 200 || !strings.Contains(body, want) || tries != 3 {
		t.Errorf("after %d tries: %d %s, want %s", tries, code, body, want)
	}
}

// Who deletes what another one deletes at the same time has deleted it.
func TestDeleteTogether(t *testing.T) {
	m := store(t, bob)
	m.meanwhile = func(m *memory) { m.state, m.revision = policy.State{}, m.revision+1 }
	if code, body := ask(t, New(config(m)), http.MethodDelete, "/consumers/bob", "", ""); code != 204 {
		t.Errorf("%d %s, want 204", code, body)
	}
}

// Two who make the same consumer at the same time: one gets 201, the others 409,
// also where their names lead to one resource.
func TestCreateTogether(t *testing.T) {
	m := store(t, "")
	h := New(config(m))
	codes := make([]int, 8)
	var all sync.WaitGroup
	for i := range codes {
		all.Go(func() { codes[i], _ = post(t, h, "/consumers", "username=bob") })
	}
	all.Wait()
	count := map[int]int{}
	for _, code := range codes {
		count[code]++
	}
	if diff := cmp.Diff(map[int]int{201: 1, 409: 7}, count); diff != "" {
		t.Errorf("answers -want +got:\n%s", diff)
	}
	// Another writer is faster than the first look.
	m = store(t, "")
	m.meanwhile = func(m *memory) {
		if m.revision == 1 {
			other := store(t, bob)
			m.state, m.revision = other.state, 2
		}
	}
	code, body := post(t, New(config(m)), "/consumers", "username=bob")
	wantAnswer(t, "a consumer that another writer has made", code, body, 409, "UNIQUE violation")
}

// A request that is given up does not wait for others.
func TestGivenUp(t *testing.T) {
	h, isOurs := New(config(store(t, bob))).(*handler)
	if !isOurs {
		t.Fatal("New returns another handler")
	}
	h.writing <- struct{}{}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	c := &call{handler: h, ctx: ctx, consumer: "bob"}
	if _, p := c.deleteConsumer(); p == nil || p.status != 503 {
		t.Errorf("got %+v, want 503", p)
	}
}

// Who may not see consumers learns nothing by any call, and is told so first.
func TestMayRead(t *testing.T) {
	m := store(t, bob)
	c := config(m)
	for name, may := range map[string]func(context.Context) bool{"nil": nil, "no": func(context.Context) bool { return false }} {
		c.MayRead = may
		h := New(c)
		for _, target := range []string{"GET /consumers", "GET /consumers/bob", "GET /jwts", "POST /consumers", "DELETE /consumers/bob", "GET /nothing", "OPTIONS /jwts"} {
			method, path, _ := strings.Cut(target, " ")
			code, body := ask(t, h, method, path, "application/json", `{"username":"bob"}`)
			wantAnswer(t, name+": "+target, code, body, 403, "this needs a role that sees consumers")
		}
	}
	if len(m.methods) > 0 {
		t.Errorf("changes were tried: %q", m.methods)
	}
}

// Whether a secret is the stored one does not show to who may not write.
func TestNoOracle(t *testing.T) {
	const secret = "0123456789abcdef0123456789abcdef"
	m := store(t, strings.Replace(bob, "username: bob", "username: bob, credentials: [{id: a, key: k, keySet: {secret: {keys: [{secret: "+secret+"}]}}}]", 1))
	m.fail = status.Error(codes.PermissionDenied, "no")
	for _, guess := range []string{secret, "another-secret-another-secret-an"} {
		code, body := ask(t, New(config(m)), http.MethodPatch, "/jwts/k", "application/json", `{"secret":"`+guess+`"}`)
		wantAnswer(t, "the secret "+guess, code, body, 403, `{"message":"no"}`)
	}
	if len(m.methods) != 2 {
		t.Errorf("%d changes were asked for, want 2", len(m.methods))
	}
}

// A fault is told at the field of Kong that it comes from; one of another
// credential of the consumer, or of a part that Kong has no word for, of the
// entity.
func TestFaultFields(t *testing.T) {
	resource := &policyv1.Resource{Metadata: &policyv1.Metadata{Name: "a"}, Spec: &policyv1.Resource_Consumer{Consumer: &policyv1.ConsumerSpec{}}}
	for _, tt := range []struct {
		credential            int
		resource, field, want string
	}{
		{-1, "Consumer/a", "spec.username", `"username":"wrong"`},
		{-1, "Consumer/a", "spec.customId", `"custom_id":"wrong"`},
		{-1, "Consumer/a", "spec.tags[3]", `"tags":"wrong"`},
		{-1, "Consumer/a", "spec.createdAt", `"created_at":"wrong"`},
		{-1, "Consumer/a", "spec.match.issuer", `"@entity":["spec.match.issuer: wrong"]`},
		{-1, "Consumer/a", "metadata.name", `"@entity":["metadata.name: wrong"]`},
		{1, "Consumer/a", "spec.credentials[1].key", `"key":"wrong"`},
		{1, "Consumer/a", "spec.credentials[1].tags[0]", `"tags":"wrong"`},
		{1, "Consumer/a", "spec.credentials[1].keySet.secret.keys[0].secret", `"secret":"wrong"`},
		{1, "Consumer/a", "spec.credentials[1].keySet.pem.keys[0].pem", `"rsa_public_key":"wrong"`},
		{1, "Consumer/a", "spec.credentials[1].keySet.jwks", `"@entity":["spec.credentials[1].keySet.jwks: wrong"]`},
		{1, "Consumer/a", "spec.credentials[10].key", `"@entity":["spec.credentials[10].key: wrong"]`},
		{1, "Consumer/a", "spec", `"@entity":["spec: wrong"]`},
		{1, "AuthenticationPolicy/p", "spec.x", `"@referenced_by":"AuthenticationPolicy/p"`},
	} {
		st, err := status.New(codes.InvalidArgument, "x").WithDetails(&adminv1.Faults{Faults: []*adminv1.Fault{{Resource: tt.resource, Field: tt.field, Message: "wrong"}}})
		if err != nil {
			t.Fatal(err)
		}
		p := change{put: []*policyv1.Resource{resource}, credential: tt.credential}.faults(st)
		w := &recorder{header: http.Header{}}
		write(w, p.status, p.body)
		if !strings.Contains(w.body.String(), `"fields":{`+tt.want+`}`) || w.status != 400 {
			t.Errorf("credential %d, fault at %s %s: %d %s, want 400 with %s", tt.credential, tt.resource, tt.field, w.status, &w.body, tt.want)
		}
	}
}

type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

// secret_is_base64 says how the secret beside it is read. Without one it would change
// nothing, or what the stored text stands for: it is refused, unless it says what is
// so already.
func TestBase64NeedsItsSecret(t *testing.T) {
	const needsSecret = `"secret_is_base64":"says how a secret is read: give the secret too"`
	const plain, encoded = "0123456789abcdef0123456789abcdef", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	for _, tt := range []struct {
		of, patch string
		code      int
		want      string
	}{
		{"secret=" + plain, "secret_is_base64=true", 400, needsSecret},
		{"secret=" + plain, "secret_is_base64=true&tags=t", 400, needsSecret},
		{"secret=" + plain, "secret_is_base64=false&tags=t", 200, `"tags":["t"]`},
		{"secret=" + plain, "secret_is_base64=true&secret=" + encoded, 200, `"secret_is_base64":true`},
		{"secret_is_base64=true&secret=" + encoded, "secret_is_base64=true&tags=t", 200, `"secret_is_base64":true`},
		{"secret_is_base64=true&secret=" + encoded, "secret_is_base64=false", 400, needsSecret},
		{"secret_is_base64=true", "secret_is_base64=true", 200, `"secret_is_base64":true`},
	} {
		h := New(config(store(t, bob)))
		if code, body := post(t, h, "/consumers/bob/jwt", "key=k&"+tt.of); code != 201 {
			t.Fatalf("POST %s: %d %s", tt.of, code, body)
		}
		code, body := ask(t, h, http.MethodPatch, "/jwts/k", "application/x-www-form-urlencoded", tt.patch)
		wantAnswer(t, "PATCH "+tt.patch+" of "+tt.of, code, body, tt.code, tt.want)
	}
}
