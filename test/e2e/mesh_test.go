// Package e2e proves what an operator and a caller see, with a real control
// plane, real Envoys, and connections that stay open.
package e2e

import (
	"fmt"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/watchword-mesh/watchword/test/meshtest"
)

// binary is the built program, for what is true of a process only, and
// sidecarBinary the other one.
var binary, sidecarBinary string

func TestMain(m *testing.M) {
	if os.Getenv(leaks) != "" { // needs none of it
		os.Exit(m.Run())
	}
	dir, err := os.MkdirTemp("", "watchword-e2e-")
	if err != nil {
		log.Fatal(err)
	}
	binary = filepath.Join(dir, "watchword")
	sidecarBinary = filepath.Join(dir, "watchword-sidecar")
	build := exec.Command("go", "build", "-o", dir+"/", "./controlplane/cmd/watchword", "./dataplane/cmd/watchword-sidecar")
	build.Dir = meshtest.Root()
	if out, err := build.CombinedOutput(); err != nil {
		log.Fatalf("%s: %v\n%s", build, err, out)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// mesh is a control plane with services that all have the same Echo behind
// their Envoys.
type mesh struct {
	meshtest.ControlPlane
	echo    meshtest.Echo
	inbound map[string]string // where the Envoy of a service listens
}

func startMesh(t *testing.T) *mesh {
	t.Helper()
	m := &mesh{inbound: map[string]string{}}
	m.echo.Start(t)
	m.ControlPlane.Start(t)
	return m
}

// service is a Service with an Envoy of its own; spec holds more lines of its
// spec, in YAML's flow style.
func (m *mesh) service(t *testing.T, name string, spec ...string) string {
	t.Helper()
	if m.inbound[name] == "" {
		m.inbound[name] = meshtest.FreeAddress(t)
	}
	_, port, err := net.SplitHostPort(m.inbound[name])
	if err != nil {
		t.Fatal(err)
	}
	lines := append([]string{fmt.Sprintf("inbound: {port: %s, localAddress: %q}", port, m.echo.Address)}, spec...)
	return resource("Service", name, lines...)
}

// startEnvoy starts the managed Envoy of a service.
func (m *mesh) startEnvoy(t *testing.T, service string) *meshtest.Envoy {
	t.Helper()
	e := m.newEnvoy(t, service)
	e.Start(t)
	return e
}

func (m *mesh) newEnvoy(t *testing.T, service string) *meshtest.Envoy {
	t.Helper()
	return &meshtest.Envoy{Service: service, ADS: m.Config.XDSListen, Join: func() string { return m.JoinToken(t, service) }}
}

// send makes a request to the Envoy of a service.
func (m *mesh) send(t *testing.T, service string, call meshtest.Call) meshtest.Answer {
	t.Helper()
	return meshtest.Send(t, m.inbound[service], call)
}

// resource is one YAML document with the lines of its spec.
func resource(kind, name string, spec ...string) string {
	return fmt.Sprintf("---\napiVersion: watchword.dev/v1\nkind: %s\nmetadata: {name: %s}\nspec:\n  %s\n", kind, name, strings.Join(spec, "\n  "))
}

// allowOnly is an AuthorizationPolicy that lets services call a service; with
// none it allows nothing.
func allowOnly(service string, callers ...string) string {
	spec := []string{"target: {services: [" + service + "]}", "action: ALLOW"}
	if len(callers) > 0 {
		spec = append(spec, "rules: [{from: {services: ["+strings.Join(callers, ", ")+"]}}]")
	}
	return resource("AuthorizationPolicy", service+"-callers", spec...)
}

// wantStatus compares the status, and shows what was sent and said.
func wantStatus(t *testing.T, what string, call meshtest.Call, got meshtest.Answer, want int) {
	t.Helper()
	if got.Status != want {
		t.Errorf("%s: %s: got %d %q, want %d", what, call, got.Status, got.Body, want)
	}
}

// statusIs is an error unless the answer has the status.
func statusIs(got meshtest.Answer, want int) error {
	if got.Status != want {
		return fmt.Errorf("got %d %q, want %d", got.Status, got.Body, want)
	}
	return nil
}
