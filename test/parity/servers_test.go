package parity

import (
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	"github.com/watchword-mesh/watchword/dataplane/ruleset"
)

// unreadKind is a kind of request that is none: it is answered with 400, and no
// reason, before any ruleset is asked.
type unreadKind struct {
	name    string
	shows   func(ruleset.Request) bool
	witness ruleset.Request
	// toEnvoy tells whether it is none to Envoy, too. Else the service behind Envoy
	// gets it, if it is let in; that is net/http, and says 400.
	toEnvoy bool
}

var unreadKinds = []unreadKind{
	{"control", hasControl, get(field("X-Other", "a\x7f")), true},
	{"target", func(r ruleset.Request) bool { return strings.ContainsFunc(r.Path, notInTarget) }, path("/a?#"), true},
	{"path_escapes", func(r ruleset.Request) bool {
		path, _, _ := strings.Cut(r.Path, "?")
		_, err := url.PathUnescape(path)
		return err != nil
	}, path("/%zz"), false},
}

func notInTarget(c rune) bool { return c <= ' ' || c >= 0x7f || c == '#' }

func hasControl(r ruleset.Request) bool {
	return slices.ContainsFunc(r.Header, func(f ruleset.Field) bool {
		return strings.ContainsFunc(f.Value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f })
	})
}

// unreadBy says whether a request is none to a data plane.
func unreadBy(by string, r ruleset.Request) bool {
	return slices.ContainsFunc(unreadKinds, func(k unreadKind) bool { return (k.toEnvoy || by != byEnvoy) && k.shows(r) })
}

// fault is what is wrong with an answer; "" for nothing.
func (a answered) fault(req ruleset.Request) string {
	switch unread := unreadBy(a.by, req); {
	case unread && !a.unread():
		return "is said to take it for no request"
	case !unread && a.unread() && (a.by != byEnvoy || !unreadBy(byLibrary, req)):
		return "takes it for no request"
	case a.unread(), a.same(), respelt(a):
		return ""
	}
	return disagreements([]answered{a})
}

// respelt says whether the sidecar has written the path in the escapes of net/url, and
// has changed nothing else. It is no difference where paths are normalised, which
// escapes the same characters; watchword-sidecar always does.
func respelt(a answered) bool {
	if a.by != bySidecar || a.got.Forward == nil || a.want.Forward == nil {
		return false
	}
	path, query, _ := strings.Cut(a.want.Forward.Path, "?")
	u, err := url.ParseRequestURI(path)
	if err != nil {
		return false
	}
	f := *a.want.Forward
	f.Path = u.EscapedPath() + "?" + query
	a.want.Forward = &f
	return a.same()
}

// Each kind is one, and each difference that is listed, too: one that is no more has to
// leave the list.
func TestServers(t *testing.T) {
	b := newBench()
	p := startPlanes(t)
	reference := b.load(t, p)
	for _, k := range unreadKinds {
		t.Run(k.name, func(t *testing.T) {
			req := k.witness
			req.Header = append(slices.Clone(req.Header), field("Authorization", "Bearer "+b.good()))
			for _, a := range p.ask(t, reference, req) {
				if !a.unread() || !k.shows(req) {
					t.Errorf("%s: %d, want 400\n%q", a.by, a.got.Status, show(req))
				}
			}
		})
	}
	witnesses := map[string]func(t *testing.T){
		"path_escapes": func(t *testing.T) {
			all := p.ask(t, reference, path("/%zz"))
			if envoy := all[0]; envoy.got.Reason != reason.TokenMissing || !all[1].unread() || !all[2].unread() {
				t.Errorf("Envoy %+v, the others %+v", envoy.got, all[1:])
			}
		},
	}
	for _, path := range []string{"/a^b?c^d", "/{a}", `/a"b`} {
		all := p.ask(t, reference, at(b, path))
		if d := disagreements(all[:2]); d != "" || all[2].same() || !respelt(all[2]) {
			t.Errorf("%sthe sidecar sends %+v for %s", d, all[2].got.Forward, path)
		}
		if normal, ok := ruleset.NormalizePath(path); ok {
			if d := disagreements(p.ask(t, reference, at(b, normal))); d != "" {
				t.Errorf("normalised, too: %s", d)
			}
		}
	}
	listed := map[string]bool{}
	for _, d := range ruleset.ServerDifferences {
		listed[d.Name] = true
		if witnesses[d.Name] == nil {
			t.Fatalf("no request shows %s", d.Name)
		}
		t.Run(d.Name, witnesses[d.Name])
	}
	for name := range witnesses {
		if !listed[name] {
			t.Errorf("%s is not in ruleset.ServerDifferences", name)
		}
	}
}
