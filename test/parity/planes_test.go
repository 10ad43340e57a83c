package parity

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/watchword-mesh/watchword/dataplane/ruleset"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// planes are the data planes that enforce one ruleset, in front of one service.
type planes struct {
	envoy   *proxy
	library *library
	all     []*client
}

const (
	byEnvoy   = "Envoy"
	byLibrary = "library"
	bySidecar = "sidecar"
)

func startPlanes(t *testing.T) *planes {
	t.Helper()
	return startPlanesTo(t, config, echo, serveEcho(t))
}

// startPlanesTo has the service as a handler and as an upstream.
func startPlanesTo(t *testing.T, config string, handler http.Handler, upstream string) *planes {
	t.Helper()
	p := &planes{envoy: startProxy(t, config, upstream), library: startLibrary(t, handler, upstream)}
	p.all = []*client{newClient(t, byEnvoy, p.envoy.address), newClient(t, byLibrary, p.library.address), newClient(t, bySidecar, p.library.sidecar)}
	return p
}

// load has all of them enforce a ruleset, or returns why they don't.
func (p *planes) load(t testing.TB, rs *dataplanev1.Ruleset) (*ruleset.Ruleset, error) {
	t.Helper()
	return p.loadRevoking(t, rs, &dataplanev1.Revocations{Service: service})
}

// loadRevoking is load with what is revoked.
func (p *planes) loadRevoking(t testing.TB, rs *dataplanev1.Ruleset, revoked *dataplanev1.Revocations) (*ruleset.Ruleset, error) {
	t.Helper()
	reference, err := ruleset.Compile(rs)
	if err != nil {
		return nil, fmt.Errorf("the reference does not take the ruleset: %w", err)
	}
	r, err := ruleset.CompileRevocations(revoked)
	if err != nil {
		return nil, fmt.Errorf("the reference does not take the revocations: %w", err)
	}
	if err := p.library.load(t, rs, revoked); err != nil {
		return nil, err
	}
	if err := p.envoy.load(t, rs, revoked); err != nil {
		return nil, err
	}
	time.Sleep(2 * time.Millisecond) // Envoy's worker has the filters a moment after the ACK
	return reference.Revoking(r), nil
}

// answered is what a data plane made of a request, and what the reference says.
type answered struct {
	by        string
	got, want outcome
}

func (a answered) same() bool { return cmp.Equal(a.want, a.got) }

// unread says that the data plane took it for no request at all.
func (a answered) unread() bool { return a.got.Status == http.StatusBadRequest && a.got.Reason == "" }

// ask asks all of them, in the order of planes.all. Where one differs from the
// reference both are asked once more: the filters of a moment ago, or another second,
// may have answered.
func (p *planes) ask(t testing.TB, reference *ruleset.Ruleset, req ruleset.Request) []answered {
	t.Helper()
	want := func() outcome { return normal(evaluated(reference.Evaluate(req, time.Now()))) }
	first := want()
	out, errs := make([]answered, len(p.all)), make([]error, len(p.all))
	var all sync.WaitGroup
	for i, c := range p.all {
		all.Go(func() {
			got, err := c.request(req)
			out[i], errs[i] = answered{c.name, normal(got), first}, err
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatalf("%v\nrequest:\n%s", err, show(req))
	}
	for i, c := range p.all {
		if a := out[i]; !a.same() && !a.unread() {
			time.Sleep(20 * time.Millisecond)
			out[i] = answered{c.name, normal(c.send(t, req)), want()}
		}
	}
	return out
}

// disagreements shows who differs; empty if nobody does.
func disagreements(all []answered) string {
	var b strings.Builder
	for _, a := range all {
		if !a.same() {
			fmt.Fprintf(&b, "disagreement (-reference +%s):\n%s\n", a.by, cmp.Diff(a.want, a.got))
		}
	}
	return b.String()
}
