package api

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/controlplane/access"
	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/internal/failures"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// memory is a Configuration like the real one, but for where it is kept.
type memory struct {
	mu       sync.Mutex
	state    policy.State
	revision int64
	// meanwhile is another writer: it runs before a commit, and is asked for
	// what it stored, until it returns nothing.
	meanwhile func() []*policyv1.Resource
	// fail is the answer to the next commits.
	fail    error
	commits int
	// limit of changes in one step; 0 is 126.
	limit  int
	waited []int64
	// audits came with the steps that were committed.
	audits []audit.Entry
}

func (m *memory) Current() (policy.State, int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state, m.revision
}

func (m *memory) Reached(ctx context.Context, revision int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.waited = append(m.waited, revision)
	return ctx.Err()
}

func (m *memory) Split(s Step) ([]Step, error) {
	var steps []Step
	limit := cmp.Or(m.limit, 126)
	for len(s.Put) > limit {
		steps, s.Put = append(steps, Step{Put: s.Put[:limit]}), s.Put[limit:]
	}
	if len(s.Put)+len(s.Remove) > 0 {
		steps = append(steps, s)
	}
	return steps, nil
}

func (m *memory) Commit(_ context.Context, base int64, s Step) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.commits++
	if m.meanwhile != nil {
		if others := m.meanwhile(); len(others) > 0 {
			m.store(others, nil)
		}
	}
	if m.fail != nil {
		return base, m.fail
	}
	if base != m.revision {
		return base + 1, fmt.Errorf("the fence: %w", ErrConflict)
	}
	m.store(s.Put, s.Remove)
	m.audits = append(m.audits, s.Audit)
	return m.revision, nil
}

// sound is a Preview that finds nothing, or one fault with a message.
type sound struct {
	fault string
	asked []policy.Key
}

func (p *sound) Concerns(_, _ policy.State, resources []policy.Key) []string {
	var services []string
	for _, k := range resources {
		if k.Kind == policy.KindService && !slices.Contains(services, k.Name) {
			services = append(services, k.Name)
		}
	}
	return services
}

func (p *sound) Faults(_, _ policy.State, changed []policy.Key) []policy.Fault {
	p.asked = changed
	if p.fault == "" {
		return nil
	}
	return []policy.Fault{{Key: changed[0], Field: "spec", Message: p.fault}}
}

func (m *memory) store(put []*policyv1.Resource, remove []policy.Key) {
	m.revision++
	next := m.state.Clone()
	for _, r := range put {
		r = proto.CloneOf(r)
		r.Metadata.Revision = m.revision
		next[policy.KeyOf(r)] = r
	}
	for _, k := range remove {
		delete(next, k)
	}
	m.state = next
}

const builtinYAML = `apiVersion: watchword.dev/v1
kind: Issuer
metadata: {name: watchword}
spec: {issuer: "http://sts.test", keySet: {builtin: {trustDomain: mesh.test}}}
`

// serviceYAML is a Service with a label and perhaps callees.
func serviceYAML(name, team string, calls ...string) string {
	text := fmt.Sprintf("apiVersion: watchword.dev/v1\nkind: Service\nmetadata:\n  name: %s\n  labels: {team: %s}\nspec:\n  calls:\n", name, team)
	for _, c := range calls {
		text += "  - service: " + c + "\n"
	}
	if len(calls) == 0 {
		return strings.Replace(text, "spec:\n  calls:\n", "spec: {}\n", 1)
	}
	return text
}

func join(docs ...string) string { return strings.Join(docs, "---\n") }

// resources parses what a store could hold, also what Check would refuse.
func resources(t testing.TB, text string) []*policyv1.Resource {
	t.Helper()
	objects, faults := policy.Parse([]policy.Document{{Source: "stored", Content: text}})
	if len(faults) > 0 {
		t.Fatalf("stored resources: %+v", faults)
	}
	var out []*policyv1.Resource
	for _, o := range objects {
		o.Resource.Metadata.Uid = "uid-of-" + o.Key.Name
		out = append(out, o.Resource)
	}
	return out
}

// open returns a Server whose store holds the built-in issuer and more, at
// revision 11.
func open(t testing.TB, more ...string) (*Server, *memory) {
	t.Helper()
	m := &memory{revision: 10, state: policy.State{}}
	m.store(resources(t, join(append([]string{builtinYAML}, more...)...)), nil)
	n, secrets := 0, 0
	return New(Config{
		Configuration: m,
		Preview:       &sound{},
		Identify:      identify,
		NewUID:        func() string { n++; return fmt.Sprintf("new-uid-%d", n) },
		NewSecret: func(length int) string {
			secrets++
			return fmt.Sprintf("%0*d", length, secrets)
		},
	}), m
}

// root is the context of a call by somebody who may do everything.
func root() context.Context {
	return access.With(context.Background(), access.Actor{Name: "unix:root", Roles: access.AllRoles()})
}

// identify knows the admin token alone.
func identify(r *http.Request) (access.Actor, error) {
	token, err := access.Bearer(r.Header.Values("Authorization"))
	if err != nil {
		return access.Actor{}, err
	}
	if token != "" && token != adminToken {
		return access.Actor{}, access.BadCredential
	}
	return access.Resolve(policy.State{}, access.Evidence{Source: failures.SourceOf(r.RemoteAddr), AdminToken: token != ""})
}

const adminToken = "wwat_0123456789"

func documents(texts ...string) []*adminv1.Document {
	var out []*adminv1.Document
	for i, text := range texts {
		out = append(out, &adminv1.Document{Source: fmt.Sprintf("%c.yaml", 'a'+i), Content: text})
	}
	return out
}

func apply(s *Server, texts ...string) (*adminv1.ApplyResponse, error) {
	return s.Apply(root(), &adminv1.ApplyRequest{Documents: documents(texts...)})
}

// actions is what was done, one line each: "CREATED Service/a".
func actions(changes []*adminv1.Change) string {
	var out []string
	for _, c := range changes {
		out = append(out, c.GetAction().String()+" "+c.GetKind()+"/"+c.GetName())
	}
	return strings.Join(out, "\n")
}

// wantError checks code and text, and that nothing was stored at the revision.
func wantError(t testing.TB, err error, code codes.Code, text string) {
	t.Helper()
	if got := status.Convert(err); got.Code() != code || !strings.Contains(got.Message(), text) {
		t.Errorf("error %s: %q; want %s with %q", got.Code(), got.Message(), code, text)
	}
}

// faultLines is the faults of an error as a client shows them.
func faultLines(err error) string {
	var out []string
	for _, d := range status.Convert(err).Details() {
		if faults, ok := d.(*adminv1.Faults); ok {
			for _, f := range faults.GetFaults() {
				out = append(out, faultText(f))
			}
		}
	}
	return strings.Join(out, "\n")
}
