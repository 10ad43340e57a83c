package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"time"
)

// versionTimeout is how long a program may take to say that it is Envoy.
const versionTimeout = 5 * time.Second

// envoyVersion is what Envoy prints for --version behind its own path:
// COMMIT/VERSION/STATE/KIND/TLS-LIBRARY. The path may have any word in it.
var envoyVersion = regexp.MustCompile(`version: [0-9a-f]+/[0-9]+\.[0-9]+`)

// checkEnvoy asks a program whether it is Envoy.
func checkEnvoy(ctx context.Context, binary string, timeout time.Duration) error {
	asking, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(asking, binary, "--version")
	cmd.Env = withoutJoinToken(os.Environ())
	// It ends with all that it has started itself.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted before Envoy was started")
	case asking.Err() != nil:
		err = fmt.Errorf("it has not answered --version in %s", timeout)
	case err != nil:
		err = fmt.Errorf("asked for its --version: %w", err)
	case !envoyVersion.Match(out):
		err = errors.New("it answers --version with something else")
	default:
		return nil
	}
	return &failure{code: exitFailed, err: fmt.Errorf("%s is not an Envoy that runs here: %w", binary, err),
		hint: "name the binary with --envoy PATH or ENVOY=PATH; nothing was enrolled"}
}
