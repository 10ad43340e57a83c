package xdsclient

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Of each response the good part is put in force, and the NACK names the rest.
func TestAnswer(t *testing.T) {
	good := resource(rulesetType, "orders", "1", "x")
	for _, tt := range []struct {
		name      string
		resources []*discovery.Resource
		removed   []string
		bad       map[string]error
		took      []string
		refusal   string // empty: an ACK
	}{
		{name: "nothing"},
		{name: "one", resources: []*discovery.Resource{good}, took: []string{"orders@1=x"}},
		{name: "in order", resources: []*discovery.Resource{resource(rulesetType, "shop", "1", ""), good}, took: []string{"shop@1=", "orders@1=x"}},
		{name: "removed", removed: []string{"orders", "shop"}, took: []string{"-orders", "-shop"}},
		{name: "refused by the handler", resources: []*discovery.Resource{resource(rulesetType, "shop", "1", ""), good}, removed: nil,
			bad: map[string]error{"shop": errors.New("route 3 has no key")}, took: []string{"orders@1=x"}, refusal: "shop: route 3 has no key"},
		{name: "removal refused by the handler", removed: []string{"orders"}, bad: map[string]error{"orders": errors.New("read-only file system")}, refusal: "orders: read-only file system"},
		{name: "several refused", resources: []*discovery.Resource{resource(rulesetType, "shop", "1", ""), good},
			bad: map[string]error{"shop": errors.New("a"), "orders": errors.New("b")}, refusal: "shop: a; orders: b"},
		{name: "another name", resources: []*discovery.Resource{resource(rulesetType, "billing", "1", ""), good}, took: []string{"orders@1=x"}, refusal: "billing: it was not asked for"},
		{name: "the name of another type", resources: []*discovery.Resource{resource(rulesetType, "mesh.lease", "1", "")}, refusal: "mesh.lease: it was not asked for"},
		{name: "another name removed", removed: []string{"billing", "orders"}, took: []string{"-orders"}, refusal: "billing: it was not asked for"},
		{name: "no name", resources: []*discovery.Resource{resource(rulesetType, "", "1", ""), nil}, removed: []string{""}, refusal: ": it has no name; : it has no name; : it has no name"},
		{name: "no version", resources: []*discovery.Resource{resource(rulesetType, "orders", "", "")}, refusal: "orders: it has no version"},
		{name: "no content", resources: []*discovery.Resource{{Name: "orders", Version: "1"}}, refusal: "orders: it has no content"},
		{name: "content of another type", resources: []*discovery.Resource{resource(leaseType, "orders", "1", "")}, refusal: `orders: its content is of type "` + leaseType + `", not "` + rulesetType + `"`},
		{name: "content of no type", resources: []*discovery.Resource{{Name: "orders", Version: "1", Resource: &anypb.Any{}}}, refusal: `orders: its content is of type "", not "` + rulesetType + `"`},
		{name: "a ttl", resources: []*discovery.Resource{{Name: "orders", Version: "1", Resource: good.GetResource(), Ttl: durationpb.New(1)}}, refusal: "orders: it has a ttl, which is not kept here"},
		{name: "twice", resources: []*discovery.Resource{good, good}, refusal: "orders: it is in the response more than once; orders: it is in the response more than once"},
		{name: "there and removed", resources: []*discovery.Resource{good}, removed: []string{"orders"}, refusal: "orders: it is in the response more than once; orders: it is in the response more than once"},
		{name: "not printable", resources: []*discovery.Resource{good}, bad: map[string]error{"orders": errors.New("a\nb\x1b[31m\xff\u202e")}, refusal: "orders: a\uFFFDb\uFFFD[31m\uFFFD\uFFFD"},
		{name: "long", resources: []*discovery.Resource{good}, bad: map[string]error{"orders": errors.New(strings.Repeat("é", 5000))}, refusal: "orders: " + strings.Repeat("é", (1024-8)/2)},
	} {
		e := newEnforcer()
		if tt.bad != nil {
			e.bad = tt.bad
		}
		got, err := mustClient(t, config(e, "a:1")).answer(&response{TypeUrl: rulesetType, Nonce: "n", Resources: tt.resources, RemovedResources: tt.removed})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if took := e.took(); !slices.Equal(took, tt.took) {
			t.Errorf("%s: put in force %q, want %q", tt.name, took, tt.took)
		}
		if got.GetTypeUrl() != rulesetType || got.GetResponseNonce() != "n" || (got.GetErrorDetail() != nil) != (tt.refusal != "") || got.GetErrorDetail().GetMessage() != tt.refusal {
			t.Errorf("%s: answer %v, want one with the text %q", tt.name, got, tt.refusal)
		}
		if code := codes.Code(got.GetErrorDetail().GetCode()); tt.refusal != "" && code != codes.InvalidArgument {
			t.Errorf("%s: code %v, want InvalidArgument", tt.name, code)
		}
	}
}

// judge is a Handler that refuses whatever was not asked for, to the test.
type judge struct {
	t     *testing.T
	asked []Subscription
	calls int
}

func (j *judge) Accept(r Resource) error {
	j.calls++
	if !slices.Contains(j.asked, Subscription{r.TypeURL, r.Name}) || r.Version == "" {
		j.t.Errorf("Accept(%#v), which was not asked for, or can't be claimed", r)
	}
	if len(r.Body)%2 == 1 {
		return errors.New(string(r.Body))
	}
	return nil
}

func (j *judge) Remove(typeURL, name string) error {
	j.calls++
	if !slices.Contains(j.asked, Subscription{typeURL, name}) {
		j.t.Errorf("Remove(%q, %q), which was not asked for", typeURL, name)
	}
	return nil
}

func (j *judge) Held(string) map[string]string { return nil }
func (j *judge) Refused(error)                 {}
func (j *judge) Connected(bool)                {}

// Whatever a response is: only what was asked for is put in force, and the answer is
// one that the control plane can read.
func FuzzAnswer(f *testing.F) {
	good := resource(rulesetType, "orders", "1", "xx")
	for _, resp := range []*response{
		{TypeUrl: rulesetType, Nonce: "n", Resources: []*discovery.Resource{good}},
		{TypeUrl: rulesetType, Nonce: "n", Resources: []*discovery.Resource{good, good, resource(rulesetType, "shop", "1", "\xff")}, RemovedResources: []string{"shop", "", "*"}},
		{TypeUrl: leaseType, Nonce: "n", Resources: []*discovery.Resource{resource(leaseType, "mesh.lease", "1", "\n"), resource(leaseType, "orders", "1", ""), resource(rulesetType, "mesh.lease", "", "")}},
		{TypeUrl: rulesetType, Resources: []*discovery.Resource{{}, nil}},
		{Nonce: "n"},
	} {
		raw, err := proto.Marshal(resp)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		resp := new(response)
		if proto.Unmarshal(raw, resp) != nil {
			return
		}
		j := &judge{t: t}
		config := config(nil, "a:1")
		config.Handler, j.asked = j, config.Subscriptions
		got, err := mustClient(t, config).answer(resp)
		if err != nil {
			if j.calls > 0 {
				t.Errorf("%v: put in force, and then %v", resp, err)
			}
			return
		}
		text := got.GetErrorDetail().GetMessage()
		if got.GetResponseNonce() != resp.GetNonce() || got.GetResponseNonce() == "" || len(text) > maxRefusal || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
			t.Errorf("answer %v to %v", got, resp)
		}
		if n := len(resp.GetResources()) + len(resp.GetRemovedResources()); got.GetErrorDetail() == nil && j.calls != n {
			t.Errorf("ACK of %v, of which %d of %d were put in force", resp, j.calls, n)
		}
		if _, err := proto.Marshal(got); err != nil {
			t.Errorf("answer %v to %v: %v", got, resp, err)
		}
	})
}
