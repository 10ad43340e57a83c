package main

import (
	"errors"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write what the commands print into the scripts")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"watchword": main})
}

// TestScripts runs each command as an operator does, against a control plane
// that is a fake: standard output, standard error and exit code are all part
// of the interface.
//
// Beside the commands of testscript there are
//
//	exits CODE COMMAND...   the command must end with this exit code
//	fake MODE               the canned answers of fakeAdmin; with hang, the file
//	                        "hanging" is there once a call hangs
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           "testdata/script",
		Setup:         startFakes,
		UpdateScripts: *update,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits,
			"fake": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Value(fakeKey{}).(*fakeAdmin).setMode(args[0])
			},
		},
	})
}

type fakeKey struct{}

// startFakes gives each script a control plane in its watchword-data, which
// listens on $ADDR too, and with TLS on $TLS_ADDR, a token endpoint at $TOKEN_URL, with TLS at
// $TLS_TOKEN_URL,
// and startEnrolment. What [fakeAdmin.tlsConfig] writes is in $WORK.
func startFakes(env *testscript.Env) error {
	dir := filepath.Join(env.WorkDir, "watchword-data")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "admin.token"), []byte(fakeToken+"\n"), 0o600); err != nil {
		return err
	}
	socket, err := net.Listen("unix", filepath.Join(dir, "admin.sock"))
	if err != nil {
		return err
	}
	loopback, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	secure, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fake := newFakeAdmin(env.WorkDir)
	config, err := fake.tlsConfig(env.WorkDir)
	if err != nil {
		return err
	}
	env.Defer(fake.serve(config, secure, socket, loopback))
	env.Values[fakeKey{}] = fake
	endpoint := httptest.NewServer(http.HandlerFunc(fakeTokenEndpoint))
	env.Defer(endpoint.Close)
	secureEndpoint := httptest.NewUnstartedServer(http.HandlerFunc(fakeTokenEndpoint))
	secureEndpoint.TLS = config.Clone()
	secureEndpoint.Config.ErrorLog = log.New(io.Discard, "", 0)
	secureEndpoint.StartTLS()
	env.Defer(secureEndpoint.Close)
	env.Setenv("TLS_TOKEN_URL", secureEndpoint.URL)
	env.Setenv("ADDR", loopback.Addr().String())
	env.Setenv("TLS_ADDR", secure.Addr().String())
	_, port, _ := net.SplitHostPort(secure.Addr().String())
	env.Setenv("TLS_PORT", port)
	env.Setenv("TOKEN_URL", endpoint.URL)
	env.Setenv("TERM", "xterm")
	return startEnrolment(env)
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%q: exit code %d, want %d", args[1:], got, want)
	}
}
