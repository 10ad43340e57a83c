// Package examplemesh gives the examples of the data plane a control plane: the built
// program, as users run it, with a folder and ports of its own. It links nothing of
// it, so that examples can stand in packages that must not.
package examplemesh

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// Mesh is a control plane that runs.
type Mesh struct {
	// ADS is where data planes enrol and get their configuration, HOST:PORT.
	ADS string

	dir    string
	serve  *exec.Cmd
	output chan struct{} // closed when all that it wrote was read
}

// Start builds `watchword` and runs `watchword serve`. Close ends it.
func Start() (*Mesh, error) {
	// Not os.TempDir: a path to a Unix socket has room for some 100 bytes.
	dir, err := os.MkdirTemp("/tmp", "ww-")
	if err != nil {
		return nil, err
	}
	m := &Mesh{dir: dir, output: make(chan struct{})}
	if err := m.start(); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func (m *Mesh) start() error {
	binary, err := m.Build("./controlplane/cmd/watchword")
	if err != nil {
		return err
	}
	m.serve = exec.Command(binary, "serve", "--data-dir", filepath.Join(m.dir, "data"), "--log-format", "json",
		"--admin-listen", "127.0.0.1:0", "--xds-listen", "127.0.0.1:0", "--sts-listen", "127.0.0.1:0", "--ops-listen", "http://127.0.0.1:0")
	log, err := m.serve.StderrPipe()
	if err != nil {
		return err
	}
	if err := m.serve.Start(); err != nil {
		return err
	}
	ready := make(chan string, 1)
	go func() {
		defer close(m.output)
		m.follow(log, ready)
	}()
	ads, ok := <-ready
	if !ok {
		return errors.New("the control plane ended before it served")
	}
	m.ADS = ads
	return nil
}

// follow reads the log, and gives the address of ADS when everything is listened on.
func (m *Mesh) follow(log io.Reader, ready chan<- string) {
	defer close(ready)
	var ads string
	left := 5 // the four ports and the socket
	for lines := bufio.NewScanner(log); lines.Scan(); {
		var line struct {
			Message string `json:"@message"`
			For     string `json:"for"`
			Address string `json:"address"`
		}
		if json.Unmarshal(lines.Bytes(), &line) != nil || line.Message != "listening" {
			continue
		}
		if line.For == "ADS" {
			ads = line.Address
		}
		if left--; left == 0 {
			ready <- ads
		}
	}
}

// Apply is `watchword apply`.
func (m *Mesh) Apply(documents string) error {
	_, err := m.watchword(documents, "apply", "-f", "-")
	return err
}

// JoinToken is `watchword join-token create`, for one instance.
func (m *Mesh) JoinToken(service string) (string, error) {
	out, err := m.watchword("", "join-token", "create", "--service", service)
	return strings.TrimSpace(out), err
}

func (m *Mesh) watchword(input string, args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(m.dir, "watchword"), append(args, "--data-dir", filepath.Join(m.dir, "data"))...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		err = fmt.Errorf("watchword %s: %w\n%s", args[0], err, exit.Stderr)
	}
	return string(out), err
}

// Build builds a program of this repository, which is gone after Close.
func (m *Mesh) Build(pkg string) (binary string, err error) {
	binary = filepath.Join(m.dir, filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-o", binary, pkg)
	_, file, _, _ := runtime.Caller(0)
	cmd.Dir = filepath.Join(filepath.Dir(file), "..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return binary, nil
}

// FreeAddress is a HOST:PORT of loopback that nobody listens on.
func (m *Mesh) FreeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// Close ends the control plane and removes its folder.
func (m *Mesh) Close() {
	if m.serve != nil && m.serve.Process != nil {
		_ = m.serve.Process.Signal(syscall.SIGTERM)
		<-m.output
		_ = m.serve.Wait()
	}
	_ = os.RemoveAll(m.dir)
}
