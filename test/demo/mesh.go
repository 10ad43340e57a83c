package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

//go:embed mesh/*.yaml changes/*.yaml mixed/*.yaml own-envoy.yaml
var manifests embed.FS

// mesh is all that runs, and where.
type mesh struct {
	// dir has the data of the control plane, the manifests and the logs.
	dir              string
	watchword, envoy string
	ports            ports

	processes    processes
	controlPlane *process
	services     *services
	tokens       *tokens
	kept         []*connection
}

// newMesh prepares everything and starts only the services, which live in this
// process.
func newMesh() (_ *mesh, err error) {
	m := &mesh{}
	if err := m.findPrograms(); err != nil {
		return nil, err
	}
	if m.ports, m.services, err = reserve(); err != nil {
		return nil, err
	}
	if m.dir, err = os.MkdirTemp("", "watchword-demo-"); err != nil {
		m.services.stop()
		return nil, fmt.Errorf("making a folder for the demo: %w", err)
	}
	if err := m.writeManifests(); err != nil {
		m.stop(false)
		return nil, err
	}
	m.tokens = newTokens(m)
	m.kept = []*connection{newConnection(http1), newConnection(http2)}
	m.services.serve(m.takeOrder)
	return m, nil
}

// findPrograms looks for what `make setup build` makes.
func (m *mesh) findPrograms() error {
	root, err := repository()
	if err != nil {
		return err
	}
	m.watchword = filepath.Join(root, ".build", "bin", "watchword")
	m.envoy = filepath.Join(root, ".build", "envoy", "envoy")
	if own := os.Getenv("ENVOY"); own != "" {
		if m.envoy, err = filepath.Abs(own); err != nil {
			return err
		}
	}
	for _, needed := range []string{m.watchword, m.program("watchword-sidecar"), m.program("demo-plain"), m.program("demo-linked")} {
		if !executable(needed) {
			return fmt.Errorf("there is no %s: run `make demo`, which builds it", needed)
		}
	}
	if !executable(m.envoy) {
		return fmt.Errorf("there is no Envoy at %s: run `make setup`, which downloads it, or name yours with ENVOY=path", m.envoy)
	}
	return nil
}

// repository is the folder of go.mod, here or above.
func repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("run the demo inside the repository: `make demo`")
		}
	}
}

// program is one that the Makefile builds beside the product's.
func (m *mesh) program(name string) string { return filepath.Join(filepath.Dir(m.watchword), name) }

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

func (m *mesh) path(name string) string { return filepath.Join(m.dir, filepath.FromSlash(name)) }
func (m *mesh) dataDir() string         { return m.path("data") }
func (m *mesh) logs() string            { return m.path("logs") }

// writeManifests fills in the ports. The Envoy that somebody else owns also
// needs the filters, so its config is written when it starts.
func (m *mesh) writeManifests() error {
	return fs.WalkDir(manifests, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return os.MkdirAll(m.path(name), 0o700)
		case name == ownEnvoyFile:
			return nil
		}
		return m.writeManifest(name, nil)
	})
}

func (m *mesh) writeManifest(name string, more map[string]string) error {
	text, err := render(name, m.ports, more)
	if err != nil {
		return err
	}
	return os.WriteFile(m.path(name), []byte(text), 0o600)
}

// render replaces ${ORDERS_PORT} by the port of "orders", and so on.
func render(name string, p ports, more map[string]string) (string, error) {
	text, err := manifests.ReadFile(name)
	if err != nil {
		return "", err
	}
	var unknown error
	out := os.Expand(string(text), func(v string) string {
		if value, ok := more[v]; ok {
			return value
		}
		key := strings.ReplaceAll(strings.ToLower(strings.TrimSuffix(v, "_PORT")), "_", "-")
		if p[key] == 0 {
			unknown = fmt.Errorf("%s: nothing is known of ${%s}", name, v)
		}
		return fmt.Sprint(p[key])
	})
	return out, unknown
}

const (
	ownEnvoyFile = "own-envoy.yaml"
	// ownIdentity is the folder where `watchword enrol` keeps its certificate.
	ownIdentity = "own-identity"
)

// enrolOwnEnvoy is what the owner of the other Envoy does beforehand.
func (m *mesh) enrolOwnEnvoy(ctx context.Context) error {
	joinToken, err := m.joinToken(ctx, "orders")
	if err != nil {
		return err
	}
	file := m.path("join-token")
	if err := os.WriteFile(file, []byte(joinToken), 0o600); err != nil {
		return err
	}
	_, err = m.cli(ctx, "enrol", "--service", "orders", "--dir", m.path(ownIdentity), "--ads", m.ports.address("xds"), "--join-token-file", file)
	return err
}

// startOwnEnvoy puts the filters that the product prints into a config.
func (m *mesh) startOwnEnvoy(ctx context.Context) error {
	filters, err := m.cli(ctx, "envoy", "--service", "orders", "--print-filters")
	if err != nil {
		return err
	}
	indented := strings.ReplaceAll(strings.TrimSpace(filters), "\n", "\n          ")
	if err := m.writeManifest(ownEnvoyFile, map[string]string{"FILTERS": indented, "IDENTITY": m.path(ownIdentity)}); err != nil {
		return err
	}
	return m.start("envoy-own", nil, m.envoy, "-c", m.path(ownEnvoyFile), "--disable-hot-restart", "--concurrency", "2", "--log-level", "warn")
}

// startEnvoy gives the Envoy of a service its join token where nobody can see it:
// in the environment.
func (m *mesh) startEnvoy(ctx context.Context, service string) error {
	joinToken, err := m.joinToken(ctx, service)
	if err != nil {
		return err
	}
	return m.start("envoy-"+service, []string{"WATCHWORD_JOIN_TOKEN=" + joinToken}, m.watchword, "envoy", "--service", service,
		"--ads", m.ports.address("xds"), "--envoy", m.envoy, "--concurrency", "2", "--", "--log-level", "warn")
}

// serve starts the control plane and waits until it is ready.
func (m *mesh) serve(ctx context.Context) error {
	const name = "control-plane"
	err := m.start(name, nil, m.watchword, "serve", "--data-dir", m.dataDir(),
		"--admin-listen", m.ports.address("admin"), "--xds-listen", m.ports.address("xds"),
		"--sts-listen", m.ports.address("sts"), "--ops-listen", "http://"+m.ports.address("ops"))
	if err != nil {
		return err
	}
	m.controlPlane = m.processes[name]
	return m.until(ctx, name, func() error { return healthy(ctx, "http://"+m.ports.address("ops")+"/readyz") })
}

// stop ends all that was started. The folder stays if there is something to
// look at in it.
func (m *mesh) stop(keepFolder bool) {
	for _, c := range m.kept {
		c.close()
	}
	m.processes.stop()
	m.services.stop()
	if !keepFolder {
		_ = os.RemoveAll(m.dir)
	}
}
