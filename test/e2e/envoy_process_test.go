package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/watchword-mesh/watchword/test/meshtest"
)

// `watchword envoy` that is killed takes its Envoy with it: without it nobody renews
// the certificate, and another start would share the port with the one that is left.
func TestEnvoyEndsWithItsParent(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.Apply(t, m.service(t, "orders"))
	cmd := exec.Command(binary, "envoy", "--service", "orders", "--ads", m.Config.XDSListen, "--envoy", meshtest.EnvoyBinary(t), "--concurrency", "1")
	cmd.Env = append(os.Environ(), "WATCHWORD_JOIN_TOKEN="+m.JoinToken(t, "orders"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var log meshtest.Log
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	m.WaitConnected(t, "orders", 1)
	wantStatus(t, "running", meshtest.Call{}, m.send(t, "orders", meshtest.Call{}), 401)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	meshtest.Eventually(t, func() error {
		c, err := net.Dial("tcp", m.inbound["orders"])
		if err != nil {
			return nil
		}
		_ = c.Close()
		return fmt.Errorf("Envoy still listens at %s", m.inbound["orders"])
	})
}
