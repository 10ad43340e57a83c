package main

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"strings"
	"testing"

	"github.com/watchword-mesh/watchword/controlplane/policy"
)

// allPorts are ports as the demo has them, with nothing listening.
func allPorts() ports {
	p := make(ports)
	for name, offset := range portOffsets {
		p[name] = firstBlock + offset
	}
	return p
}

// pretended is a mesh in which nothing runs.
func pretended() *mesh {
	control := &process{cmd: &exec.Cmd{Process: &os.Process{Pid: 4711}}}
	return &mesh{dir: "/demo", ports: allPorts(), controlPlane: control}
}

// TestStoryRenders proves that each step can be told, right or wrong, before
// any process runs: it says something, wants something, and has commands.
func TestStoryRenders(t *testing.T) {
	m := pretended()
	var out bytes.Buffer
	p := &printer{out: &out}
	for i, s := range story {
		out.Reset()
		p.section(s.section)
		p.right(i+1, s, "GOT", m)
		p.wrong(i+1, s, "GOT", m)
		if s.say == "" || s.want == "" {
			t.Errorf("step %d: say = %q, want = %q: both are needed", i+1, s.say, s.want)
		}
		for _, part := range []string{s.section, s.say + " -> GOT", "got   GOT", "want  " + s.want, "$ ", "/demo/logs"} {
			if !strings.Contains(out.String(), part) {
				t.Errorf("step %d is told without %q:\n%s", i+1, part, &out)
			}
		}
		if bad := strings.Contains(out.String(), "%!") || strings.Contains(out.String(), ":0/"); bad {
			t.Errorf("step %d has a wrong format or a port that is not known:\n%s", i+1, &out)
		}
	}
}

// TestWantIsLiteral proves that only * stands for other text.
func TestWantIsLiteral(t *testing.T) {
	for _, c := range []struct {
		want, got string
		matches   bool
	}{
		{`403 "RBAC: access denied"`, `403 "RBAC: access denied"`, true},
		{`403 "RBAC: access denied"`, `403 "RBAC: access denied" and more`, false},
		{`revision *: 2 of 2 in sync, *`, `revision 42: 2 of 2 in sync, 31 ms`, true},
		{`revision *: 2 of 2 in sync, *`, `revision 42: 1 of 2 in sync, 31 ms`, false},
		{`orders saw spiffe://mesh.local/a`, `orders saw spiffe://meshxlocal/a`, false},
	} {
		if got := (step{want: c.want}).matches(c.got); got != c.matches {
			t.Errorf("%q matches %q = %t, want %t", c.want, c.got, got, c.matches)
		}
	}
}

// TestManifests proves that the manifests have no placeholder left and that
// the product takes them.
func TestManifests(t *testing.T) {
	var docs []policy.Document
	err := fs.WalkDir(manifests, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := render(name, allPorts(), map[string]string{"FILTERS": "FILTERS", "IDENTITY": "/identity"})
		if err != nil {
			return err
		}
		if strings.Contains(text, "${") || strings.Contains(text, "port: 0") {
			t.Errorf("%s has a placeholder left:\n%s", name, text)
		}
		if path.Dir(name) != "." {
			docs = append(docs, policy.Document{Source: name, Content: text})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	objects, faults := policy.Parse(docs)
	if len(faults) > 0 || len(objects) != 12 {
		t.Errorf("%d resources (want 12), faults %v", len(objects), faults)
	}
}

// TestUnknownPlaceholder proves that a misspelt port is an error.
func TestUnknownPlaceholder(t *testing.T) {
	if text, err := render("mesh/orders.yaml", ports{"orders": 1}, nil); err == nil {
		t.Errorf("rendered without the local port of orders:\n%s", text)
	}
}
