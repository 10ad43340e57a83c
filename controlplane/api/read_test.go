package api

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/watchword-mesh/watchword/controlplane/access"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// List selects by kind, in any case, and name; secrets are redacted.
func TestList(t *testing.T) {
	s, _ := open(t, serviceYAML("a", "x"), serviceYAML("b", "x"), sharedYAML)
	for _, tt := range []struct{ kind, name, want string }{
		{"", "", "Issuer/shared Issuer/watchword Service/a Service/b"},
		{"SERVICE", "", "Service/a Service/b"},
		{"service", "b", "Service/b"},
		{"", "shared", "Issuer/shared"},
		{"AuthorizationPolicy", "", ""},
	} {
		resp, err := s.List(root(), &adminv1.ListRequest{Kind: tt.kind, Name: tt.name})
		if err != nil {
			t.Errorf("List(%q, %q): %v", tt.kind, tt.name, err)
			continue
		}
		var got []string
		for _, i := range resp.GetItems() {
			m := i.AsMap()
			got = append(got, fmt.Sprintf("%s/%s", m["kind"], m["metadata"].(map[string]any)["name"]))
			if strings.Contains(fmt.Sprint(m), "c2Vjcm") {
				t.Errorf("List shows a secret: %v", m)
			}
		}
		if strings.Join(got, " ") != tt.want || resp.GetRevision() != 11 {
			t.Errorf("List(%q, %q) = %v at %d, want %s at 11", tt.kind, tt.name, got, resp.GetRevision(), tt.want)
		}
	}
	_, err := s.List(root(), &adminv1.ListRequest{Kind: "service", Name: "nobody"})
	wantError(t, err, codes.NotFound, `there is no Service "nobody"`)
	_, err = s.List(root(), &adminv1.ListRequest{Kind: "pods"})
	wantError(t, err, codes.InvalidArgument, `unknown kind "pods"`)
}

// fetchedSets are those of one issuer.
type fetchedSets struct{}

func (fetchedSets) Status(issuer string) *adminv1.KeySetStatus {
	if issuer != "far" {
		return nil
	}
	return &adminv1.KeySetStatus{
		Keys:    []*adminv1.KeyStatus{{Kid: "a", Algorithm: "ES256"}},
		Fetched: timestamppb.New(time.Unix(1_800_000_000, 0)), Error: "no whole answer within 5s", LeftOut: []string{"key 1: odd"},
	}
}

// An issuer whose keys are fetched has a status, others have none; what List
// shows can be applied as it is, and means the rest.
func TestListStatus(t *testing.T) {
	const far = "apiVersion: watchword.dev/v1\nkind: Issuer\nmetadata: {name: far}\nspec: {issuer: 'https://far.test', keySet: {jwksUri: {uri: 'https://far.test/jwks'}}}\n"
	s, m := open(t, far, serviceYAML("far", "x"))
	s.KeySets = fetchedSets{}
	resp, err := s.List(root(), &adminv1.ListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var text string
	for _, i := range resp.GetItems() {
		item := i.AsMap()
		want := map[string]any(nil)
		if item["kind"] == "Issuer" && item["metadata"].(map[string]any)["name"] == "far" {
			want = map[string]any{
				"keys":    []any{map[string]any{"kid": "a", "algorithm": "ES256"}},
				"fetched": "2027-01-15T08:00:00Z", "error": "no whole answer within 5s", "leftOut": []any{"key 1: odd"},
			}
		}
		got, _ := item["status"].(map[string]any)
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("status of %v -want +got:\n%s", item["metadata"], d)
		}
		b, err := json.Marshal(item)
		if err != nil {
			t.Fatal(err)
		}
		text += "---\n" + string(b) + "\n"
	}
	applied, err := apply(s, text)
	if err != nil {
		t.Fatalf("applying what List shows: %v\n%s", faultLines(err), text)
	}
	if got := actions(applied.GetChanges()); strings.Contains(got, "UPDATED") || m.commits != 0 {
		t.Errorf("applying what List shows does: %s; want nothing", got)
	}
}

// What is asked of data planes and the issuer comes with the right code.
func TestReadErrors(t *testing.T) {
	s, _ := open(t)
	s.DataPlanes, s.Issuer = &planes{}, secrets{}
	_, err := s.GetDataPlaneConfig(root(), &adminv1.GetDataPlaneConfigRequest{Node: "nobody"})
	wantError(t, err, codes.NotFound, `no data plane "nobody" is connected; `+"`watchword status` lists those that are")
	_, err = s.GetDataPlaneConfig(root(), &adminv1.GetDataPlaneConfigRequest{Node: "odd"})
	wantError(t, err, codes.Internal, "unknown type")
	_, err = s.CreateClientSecret(root(), &adminv1.CreateClientSecretRequest{Service: "down"})
	wantError(t, err, codes.Unavailable, "etcd did not answer")
	resp, err := s.ListDataPlanes(root(), &adminv1.ListDataPlanesRequest{Service: "b"})
	if err != nil || len(resp.GetDataPlanes()) != 0 || resp.GetRevision() != 7 {
		t.Errorf("ListDataPlanes(b) = %v, %v; want none at 7", resp, err)
	}
}

// ledger is a DataPlanes whose progress a test sets.
type ledger struct {
	planes
	mu      sync.Mutex
	now     *adminv1.WaitInSyncResponse
	changed chan struct{}
}

func (l *ledger) Progress(int64, []string, bool) (*adminv1.WaitInSyncResponse, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &adminv1.WaitInSyncResponse{Total: l.now.GetTotal(), InSync: l.now.GetInSync(), Done: l.now.GetDone()}, l.changed
}

func (l *ledger) set(total, inSync int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now = &adminv1.WaitInSyncResponse{Total: total, InSync: inSync, Done: total == inSync}
	if l.changed != nil {
		close(l.changed)
	}
	l.changed = make(chan struct{})
}

// sent is the server's side of a stream; a failing one is a client who is gone.
type sent struct {
	grpc.ServerStream
	ctx  context.Context
	fail error
	got  []string
	last *adminv1.WaitInSyncResponse
}

func (s *sent) Context() context.Context { return s.ctx }

func (s *sent) Send(r *adminv1.WaitInSyncResponse) error {
	s.got = append(s.got, fmt.Sprintf("%d/%d after %s", r.GetInSync(), r.GetTotal(), r.GetElapsed().AsDuration()))
	s.last = r
	return s.fail
}

// A wait reports at once, at each step, and ends with the last; the time is
// from the beginning, of the write where it is known.
func TestWaitInSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := open(t)
		l := &ledger{}
		s.DataPlanes = l
		l.set(2, 0)
		if _, err := apply(s, serviceYAML("a", "x")); err != nil { // revision 12
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		stream := &sent{ctx: access.With(t.Context(), access.From(root()))}
		done := make(chan error)
		go func() { done <- s.WaitInSync(&adminv1.WaitInSyncRequest{Revision: 12}, stream) }()
		for i := range int32(2) {
			time.Sleep(time.Second)
			l.set(2, i+1)
			synctest.Wait()
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got, want := strings.Join(stream.got, ", "), "0/2 after 1s, 1/2 after 2s, 2/2 after 3s"; got != want {
			t.Errorf("reported %s; want %s", got, want)
		}
	})
}

// A wait that ends too early says how far it came, and who is not in sync. The default is 30 s, and no
// wait is longer than an hour.
func TestWaitInSyncTimeout(t *testing.T) {
	for name, tt := range map[string]struct {
		timeout *durationpb.Duration
		want    time.Duration
	}{
		"default":  {nil, 30 * time.Second},
		"given":    {durationpb.New(5 * time.Second), 5 * time.Second},
		"longest":  {durationpb.New(48 * time.Hour), time.Hour},
		"zero":     {durationpb.New(0), 0},
		"negative": {durationpb.New(-time.Second), 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, _ := open(t)
			l := &ledger{}
			s.DataPlanes = l
			l.set(3, 2)
			began := time.Now()
			stream := &sent{ctx: access.With(t.Context(), access.From(root()))}
			err := s.WaitInSync(&adminv1.WaitInSyncRequest{Revision: 12, Timeout: tt.timeout}, stream)
			wantError(t, err, codes.DeadlineExceeded, "2 of 3 data planes have revision 12 after")
			if took := time.Since(began); took != tt.want || len(stream.got) != 2 {
				t.Errorf("%s: took %s with the reports %v, want %s, and one at each end", name, took, stream.got, tt.want)
			}
		})
	}
}

// receipts is a ledger that knows who has what.
type receipts struct{ ledger }

func (r *receipts) Receipt(int64, []string, bool) ([]*adminv1.Confirmed, []*adminv1.Wait) {
	now := time.Now()
	return []*adminv1.Confirmed{
			{Node: "n1", Service: "a", Time: timestamppb.New(now.Add(-time.Hour))},
			{Node: "n2", Service: "a", Time: timestamppb.New(now)},
			{Node: "n3", Service: "b", Time: timestamppb.New(now)},
		},
		[]*adminv1.Wait{{Replica: "r2", Why: "departed"}, {Service: "a", Why: "behind"}, {Service: "b", Why: "behind"}}
}

// The last message of a wait has the receipt if that was asked for, also when the wait
// ends too early: who confirmed and how long after the write, and of whom it is not
// known. An owner gets what is about its services and about replicas.
func TestReceipt(t *testing.T) {
	for name, tt := range map[string]struct {
		who            string
		inSync         int32
		receipt        bool
		nodes, unknown string
	}{
		"done":          {"officer", 2, true, "n1 0s n2 1s n3 1s", "r2 a b"},
		"too early":     {"officer", 1, true, "n1 0s n2 1s n3 1s", "r2 a b"},
		"owner":         {"owner", 2, true, "n1 0s n2 1s", "r2 a"},
		"not asked for": {"officer", 2, false, "", ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			s, _ := open(t, serviceYAML("a", "x"))
			r := &receipts{}
			s.DataPlanes = r
			r.set(2, tt.inSync)
			s.written.add(7, time.Now())
			time.Sleep(time.Second - time.Duration(2-tt.inSync)*time.Second/2)
			stream := &sent{ctx: by(tt.who)}
			timeout := durationpb.New(time.Duration(2-tt.inSync) * time.Second / 2)
			err := s.WaitInSync(&adminv1.WaitInSyncRequest{Revision: 7, Services: []string{"a"}, Receipt: tt.receipt, Timeout: timeout}, stream)
			if early := tt.inSync < 2; early != (status.Code(err) == codes.DeadlineExceeded) {
				t.Errorf("%s: %v", name, err)
			}
			var nodes, unknown []string
			for _, c := range stream.last.GetConfirmed() {
				nodes = append(nodes, c.GetNode()+" "+c.GetElapsed().AsDuration().String())
			}
			for _, w := range stream.last.GetUnknown() {
				unknown = append(unknown, w.GetReplica()+w.GetService())
			}
			if got := strings.Join(nodes, " "); got != tt.nodes || strings.Join(unknown, " ") != tt.unknown {
				t.Errorf("%s: confirmed %q, unknown %q; want %q and %q", name, got, unknown, tt.nodes, tt.unknown)
			}
		})
	}
}

// With many data planes reports are gathered; a client who is gone ends it.
func TestWaitInSyncGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := open(t)
		l := &ledger{}
		s.DataPlanes = l
		l.set(100, 0)
		stream := &sent{ctx: access.With(t.Context(), access.From(root()))}
		done := make(chan error)
		go func() { done <- s.WaitInSync(&adminv1.WaitInSyncRequest{Revision: 12}, stream) }()
		for i := range int32(100) {
			time.Sleep(time.Millisecond)
			l.set(100, i+1)
			synctest.Wait()
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if n := len(stream.got); n < 2 || n > 3 || !strings.HasPrefix(stream.got[n-1], "100/100") {
			t.Errorf("100 steps in 100 ms were reported as %v; want the first, the last, and perhaps one between", stream.got)
		}
		gone := &sent{ctx: access.With(t.Context(), access.From(root())), fail: context.Canceled}
		l.set(100, 1)
		if err := s.WaitInSync(&adminv1.WaitInSyncRequest{}, gone); err == nil || len(gone.got) != 1 {
			t.Errorf("to a client who is gone: %v after %v", err, gone.got)
		}
	})
}
