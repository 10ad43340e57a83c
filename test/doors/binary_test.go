package doors

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/watchword-mesh/watchword/test/meshtest"
)

// binary is the built program.
var binary string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "watchword-doors-")
	if err != nil {
		log.Fatal(err)
	}
	binary = filepath.Join(dir, "watchword")
	build := exec.Command("go", "build", "-o", binary, "./controlplane/cmd/watchword")
	build.Dir = meshtest.Root()
	if out, err := build.CombinedOutput(); err != nil {
		log.Fatalf("%s: %v\n%s", build, err, out)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// command runs `watchword` to its end and returns what it wrote.
func command(t *testing.T, args ...string) []byte {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), binary, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("watchword %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// envoyCommand is a running `watchword envoy`.
type envoyCommand struct {
	cmd *exec.Cmd
	// door is where Envoy's admin interface can be read.
	door string
	tmp  string
	log  meshtest.Log
}

// startEnvoyCommand runs it with a folder of its own for temporary files. It is
// handed a join token in its environment, and an Envoy's arguments must not have it.
func startEnvoyCommand(t *testing.T, m *mesh, service, joinToken, keyFile string) *envoyCommand {
	t.Helper()
	e := &envoyCommand{door: meshtest.FreeAddress(t), tmp: meshtest.ShortDir(t)}
	e.cmd = exec.Command(binary, "envoy", "--ads", m.Config.XDSListen, "--service", service, "--node", service+"-node", "--envoy", meshtest.EnvoyBinary(t),
		"--envoy-admin", e.door, "--key-file", keyFile, "--concurrency", "1")
	e.cmd.Env = append(os.Environ(), "TMPDIR="+e.tmp, "WATCHWORD_JOIN_TOKEN="+joinToken)
	e.cmd.Stdout, e.cmd.Stderr = &e.log, &e.log
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = e.cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = e.cmd.Process.Signal(syscall.SIGTERM) // it stops its Envoy
		<-ended
		if t.Failed() {
			t.Logf("log of %v:\n%s", e.cmd.Args, &e.log)
		}
	})
	return e
}

// processes are what anybody on the machine can see of it and of its children, and
// the environment of the children.
func (e *envoyCommand) processes(t *testing.T) []byte {
	t.Helper()
	var out bytes.Buffer
	read := func(pid, file string) []byte {
		text, err := os.ReadFile(filepath.Join("/proc", pid, file))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	pid := fmt.Sprint(e.cmd.Process.Pid)
	out.Write(read(pid, "cmdline"))
	var children []string
	tasks, err := filepath.Glob(filepath.Join("/proc", pid, "task", "*", "children"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range tasks {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that has ended
		}
		children = append(children, strings.Fields(string(text))...)
	}
	if len(children) == 0 {
		t.Fatal("watchword envoy has no child: where is Envoy?")
	}
	for _, child := range children {
		out.Write(read(child, "cmdline"))
		out.Write(read(child, "environ"))
	}
	return out.Bytes()
}
