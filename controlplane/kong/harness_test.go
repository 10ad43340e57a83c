package kong

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// memory keeps what was checked as a whole, as the admin API does.
type memory struct {
	mu       sync.Mutex
	state    policy.State
	revision int64
	// meanwhile is another writer, who is faster than the next changes.
	meanwhile func(*memory)
	// fail is the answer to changes.
	fail error
	// methods of the changes that were tried.
	methods []string
	removed []policy.Key
}

func (m *memory) Current() (policy.State, int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state, m.revision
}

func (m *memory) Change(_ context.Context, method string, put []*policyv1.Resource, remove []policy.Key) (*adminv1.ApplyResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.methods = append(m.methods, method)
	if m.meanwhile != nil {
		m.meanwhile(m)
	}
	if m.fail != nil {
		return nil, m.fail
	}
	next := m.state.Clone()
	for _, r := range put {
		k := policy.KeyOf(r)
		if stored := m.state[k].GetMetadata().GetRevision(); stored != r.GetMetadata().GetRevision() {
			return nil, status.Errorf(codes.FailedPrecondition, "%s: is at revision %d", k, stored)
		}
		next[k] = proto.CloneOf(r)
	}
	for _, k := range remove {
		if next[k] == nil {
			return nil, status.Errorf(codes.NotFound, "there is no %s", k)
		}
		delete(next, k)
		m.removed = append(m.removed, k)
	}
	if faults := policy.CheckSince(next, m.state); len(faults) > 0 {
		return nil, faultStatus(faults)
	}
	m.revision++
	for _, r := range put {
		next[policy.KeyOf(r)].Metadata.Revision = m.revision
	}
	m.state = next
	return &adminv1.ApplyResponse{Revision: m.revision}, nil
}

func faultStatus(faults []policy.Fault) error {
	detail := &adminv1.Faults{}
	for _, f := range faults {
		detail.Faults = append(detail.Faults, &adminv1.Fault{Resource: f.Key.String(), Field: f.Field, Message: f.Message})
	}
	st, err := status.New(codes.InvalidArgument, "nothing was changed").WithDetails(detail)
	if err != nil {
		return err
	}
	return st.Err()
}

// store is a state of manifests, at revision 1.
func store(t testing.TB, manifests string) *memory {
	t.Helper()
	objects, faults := policy.Parse([]policy.Document{{Source: "state.yaml", Content: manifests}})
	if len(faults) > 0 {
		t.Fatalf("state: %+v", faults)
	}
	m := &memory{state: policy.State{}, revision: 1}
	for _, o := range objects {
		o.Resource.Metadata.Revision = 1
		m.state[o.Key] = o.Resource
	}
	if faults := policy.Check(m.state); len(faults) > 0 {
		t.Fatalf("state: %+v", faults)
	}
	return m
}

// began is when the tests happen: the time of the seed's document.
const began = 1442426001

// config counts where a control plane draws at random.
func config(m *memory) Config {
	var mu sync.Mutex
	ids, secrets := 0, 0
	count := func(n *int) int {
		mu.Lock()
		defer mu.Unlock()
		*n++
		return *n
	}
	yes := func(context.Context) bool { return true }
	return Config{
		Resources: m, MayRead: yes,
		NewUID:    func() string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", count(&ids)) },
		NewSecret: func(length int) string { return fmt.Sprintf("made%0*d", length-4, count(&secrets)) },
		Now:       func() time.Time { return time.Unix(began, 0) },
	}
}

// ask sends one request and returns the status and the body.
func ask(t testing.TB, h http.Handler, method, target, contentType, body string) (int, string) {
	t.Helper()
	w := serve(t, h, method, target, contentType, body)
	return w.Code, w.Body.String()
}

// form is a request with the form that curl sends by --data.
func post(t testing.TB, h http.Handler, target, form string) (int, string) {
	t.Helper()
	return ask(t, h, http.MethodPost, target, "application/x-www-form-urlencoded", form)
}

func wantAnswer(t testing.TB, what string, code int, body string, wantCode int, wantBody string) {
	t.Helper()
	if code != wantCode || !strings.Contains(body, wantBody) {
		t.Errorf("%s: %d %s; want %d with %q", what, code, body, wantCode, wantBody)
	}
}
