package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// process is `watchword serve` as an operator runs it.
type process struct {
	dir            string
	admin, xds, at string // addresses of the admin API, ADS and the token endpoint
	extra, env     []string

	log   meshtest.Log
	cmd   *exec.Cmd
	ended chan struct{}
}

// newProcess prepares one on a folder.
func newProcess(t *testing.T, dir string, extra ...string) *process {
	t.Helper()
	return &process{dir: dir, admin: meshtest.FreeAddress(t), xds: meshtest.FreeAddress(t), at: meshtest.FreeAddress(t), extra: extra}
}

func (p *process) start(t *testing.T) {
	t.Helper()
	args := []string{"serve", "--data-dir", p.dir, "--admin-listen", p.admin, "--xds-listen", p.xds, "--sts-listen", p.at, "--ops-listen", "http://127.0.0.1:0"}
	p.cmd = exec.Command(binary, append(args, p.extra...)...)
	p.cmd.Env = append(os.Environ(), p.env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	p.ended = ended
	cmd := p.cmd
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
		if t.Failed() {
			t.Logf("log of %v:\n%s", cmd.Args, &p.log)
		}
	})
}

// serving starts it and returns its admin API when it answers.
func (p *process) serving(t *testing.T) adminv1.AdminServiceClient {
	t.Helper()
	p.start(t)
	meshtest.Eventually(t, func() error {
		select {
		case <-p.ended:
			t.Fatalf("watchword serve ended: %s\n%s", p.cmd.ProcessState, &p.log)
		default:
		}
		c, err := net.Dial("unix", filepath.Join(p.dir, "admin.sock"))
		if err == nil {
			_ = c.Close()
		}
		return err
	})
	conn, err := grpc.NewClient("unix://"+filepath.Join(p.dir, "admin.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return adminv1.NewAdminServiceClient(conn)
}

// wait returns the exit code; a process that ends in no time fails the test.
func (p *process) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(meshtest.Patience):
		t.Fatalf("watchword serve goes on after %s\n%s", meshtest.Patience, &p.log)
	}
	return p.cmd.ProcessState.ExitCode()
}

// stop asks for an orderly end, as service managers do.
func (p *process) stop(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := p.wait(t); code != 0 {
		t.Errorf("after SIGTERM: exit code %d, want 0\n%s", code, &p.log)
	}
}

// wantRefusal starts it and wants it to end with one error that has all the
// words, and none of what only a programmer can read.
func (p *process) wantRefusal(t *testing.T, words ...string) {
	t.Helper()
	p.log = meshtest.Log{}
	p.start(t)
	p.wantEnd(t, words...)
}

func (p *process) wantEnd(t *testing.T, words ...string) {
	t.Helper()
	if code := p.wait(t); code <= 0 {
		t.Errorf("exit code %d, want one above 0\n%s", code, &p.log)
	}
	var errors []string
	for line := range strings.Lines(p.log.String()) {
		if strings.HasPrefix(line, "watchword: ") {
			errors = append(errors, line)
		}
	}
	if len(errors) != 1 {
		t.Fatalf("got %d errors, want one, in\n%s", len(errors), &p.log)
	}
	for _, w := range words {
		if !strings.Contains(errors[0], w) {
			t.Errorf("got the error %q, want %q in it", errors[0], w)
		}
	}
	for _, w := range []string{"goroutine ", "panic:", ".go:"} {
		if strings.Contains(p.log.String(), w) {
			t.Errorf("%q, which only a programmer can read, is in\n%s", w, &p.log)
		}
	}
}

// What an operator can get wrong before the first start is one error that
// names the place.
func TestServeRefusals(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = taken.Close() })
	nobody, file := meshtest.FreeAddress(t), filepath.Join(meshtest.ShortDir(t), "file")
	write(t, file, "")
	long := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	for _, c := range []struct {
		what, dir string
		args      []string
		words     []string
	}{
		{"port in use", "", []string{"--xds-listen", taken.Addr().String()}, []string{"--xds-listen " + taken.Addr().String(), "in use", "choose another"}},
		{"no TLS for others", "", []string{"--sts-listen", "http://0.0.0.0:7402"}, []string{"--sts-listen", "no TLS", "loopback"}},
		{"no address for callers", "", []string{"--sts-listen", "0.0.0.0:0"}, []string{"--sts-listen", "--issuer-url"}},
		{"ADS without TLS", "", []string{"--xds-listen", "http://127.0.0.1:0"}, []string{"--xds-listen", "certificates"}},
		{"data folder is a file", file, nil, []string{"data folder", file}},
		{"data folder below a file", filepath.Join(file, "data"), nil, []string{"data folder", file}},
		{"data folder where nothing can be made", "/proc/watchword", nil, []string{"data folder", "/proc/watchword"}},
		{"data folder with too long a name", long, nil, []string{"--data-dir", "shorter"}},
		{"etcd is not there", "", []string{"--etcd-endpoints", "http://" + nobody}, []string{"connecting to etcd at http://" + nobody}},
		{"no file with etcd's CA", "", []string{"--etcd-endpoints", "https://" + nobody, "--etcd-ca-file", file + "x"}, []string{"--etcd-ca-file", file + "x"}},
		{"no such KEK", "", []string{"--kek-file", file + "x"}, []string{"key-encryption key", file + "x"}},
		{"a KEK that is none", "", []string{"--kek-file", file}, []string{"key-encryption key", file, "32 random bytes"}},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			if c.dir == "" {
				c.dir = meshtest.ShortDir(t)
			}
			newProcess(t, c.dir, c.args...).wantRefusal(t, c.words...)
		})
	}
}

// A folder in use, another key than the one that sealed it, and damaged files
// are each one error that names the way out; once that is taken, everything is
// there again.
func TestServeOnTroubledFolder(t *testing.T) {
	t.Parallel()
	p := newProcess(t, meshtest.ShortDir(t))
	admin := p.serving(t)
	if _, err := admin.Apply(t.Context(), meshtest.Documents(resource("Service", "orders", "{}"))); err != nil {
		t.Fatal(err)
	}
	newProcess(t, p.dir).wantRefusal(t, p.dir, "in use by another watchword")
	p.stop(t)

	other := newProcess(t, p.dir)
	other.env = []string{"WATCHWORD_KEK=" + strings.Repeat("A", 43) + "="}
	other.wantRefusal(t, "key-encryption key")

	db := filepath.Join(p.dir, "etcd", "member", "snap", "db")
	good, err := os.ReadFile(db)
	if err != nil {
		t.Fatal(err)
	}
	for what, damaged := range map[string][]byte{
		"overwritten": []byte(strings.Repeat("not a database\n", 10000)),
		"cut":         good[:5000],
		"empty pages": append(append([]byte{}, good[:8192]...), make([]byte, len(good)-8192)...),
	} {
		t.Run("database "+what, func(t *testing.T) {
			if err := os.WriteFile(db, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			newProcess(t, p.dir).wantRefusal(t, filepath.Join(p.dir, "etcd"), "--data-dir")
		})
	}
	if err := os.WriteFile(db, good, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("log overwritten", func(t *testing.T) {
		logs, err := filepath.Glob(filepath.Join(p.dir, "etcd", "member", "wal", "*.wal"))
		if err != nil || len(logs) == 0 {
			t.Fatalf("no log of etcd: %v", err)
		}
		text, err := os.ReadFile(logs[0])
		if err != nil {
			t.Fatal(err)
		}
		damaged := append([]byte{}, text...)
		copy(damaged[100:], "this was a record once, and now it is something else")
		if err := os.WriteFile(logs[0], damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		newProcess(t, p.dir).wantRefusal(t, filepath.Join(p.dir, "etcd"), "--data-dir")
		if err := os.WriteFile(logs[0], text, 0o600); err != nil {
			t.Fatal(err)
		}
	})
	wantServices(t, p.serving(t), "orders")
}

// wantServices wants exactly these services to be stored.
func wantServices(t *testing.T, admin adminv1.AdminServiceClient, want ...string) {
	t.Helper()
	list, err := admin.List(t.Context(), &adminv1.ListRequest{Kind: "Service"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, i := range list.GetItems() {
		got = append(got, i.GetFields()["metadata"].GetStructValue().GetFields()["name"].GetStringValue())
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the services %q are stored, want %q", got, want)
	}
}

// SIGTERM and SIGINT end the process in order, in little time, though data
// planes are connected and clients wait; SIGKILL loses nothing either.
func TestServeEnds(t *testing.T) {
	t.Parallel()
	p := newProcess(t, meshtest.ShortDir(t))
	admin := p.serving(t)
	resp, err := admin.Apply(t.Context(), meshtest.Documents(resource("Service", "orders", "{}")))
	if err != nil {
		t.Fatal(err)
	}
	e := &meshtest.Envoy{Service: "orders", ADS: p.xds, Join: func() string {
		made, err := admin.CreateJoinToken(t.Context(), &adminv1.CreateJoinTokenRequest{Service: "orders"})
		if err != nil {
			t.Fatal(err)
		}
		return made.GetToken()
	}}
	e.Start(t)
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGKILL} {
		meshtest.Eventually(t, func() error { return connected(t, e, 1) })
		wait, err := admin.WaitInSync(t.Context(), &adminv1.WaitInSyncRequest{Revision: resp.GetRevision() + 1000})
		if err == nil {
			_, err = wait.Recv()
		}
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := p.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		code, took := p.wait(t), time.Since(began)
		if s != syscall.SIGKILL && (code != 0 || took > 10*time.Second || !strings.Contains(p.log.String(), "stopped")) {
			t.Errorf("%v: exit code %d after %s, want 0 soon, and a last word\n%s", s, code, took, &p.log)
		}
		p.log = meshtest.Log{}
		admin = p.serving(t)
		wantServices(t, admin, "orders")
	}
}

// A disk that is full, or a file that may not grow, is one error. What was
// confirmed before is there after the next start, and of what was not there is
// nothing that is half stored.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	t.Run("no space", func(t *testing.T) {
		dir := meshtest.ShortDir(t)
		// Who may not mount has the other case, which is the same to etcd but
		// for the number of the error.
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=160m,mode=0700"); err != nil {
			t.Logf("mounting a small file system: %v", err)
			return
		}
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, 0); err != nil {
				t.Error(err)
			}
		})
		filler := filepath.Join(dir, "filler")
		fillUp(t, dir, func(*process) { fill(t, filler) }, func() {
			if err := os.Remove(filler); err != nil {
				t.Fatal(err)
			}
		}, "the disk is full", "make room")
	})
	t.Run("file size limit", func(t *testing.T) {
		fillUp(t, meshtest.ShortDir(t), func(p *process) { limitFiles(t, p, 256<<10) }, func() {}, "etcd inside this process")
	})
}

// fillUp takes the room away, and applies until the process ends.
func fillUp(t *testing.T, dir string, take func(*process), give func(), words ...string) {
	t.Helper()
	p := newProcess(t, dir)
	admin := p.serving(t)
	take(p)
	var paths []string
	for i := range 40 {
		paths = append(paths, fmt.Sprintf("/%s/%d", strings.Repeat("x", 100), i))
	}
	rule := "{to: {paths: [" + strings.Join(paths, ", ") + "]}}"
	var confirmed []string
	for i := range 500 {
		name := fmt.Sprintf("s%04d", i) // of both resources: both are stored, or none
		docs := resource("Service", name, "{}") +
			resource("AuthorizationPolicy", name, "action: DENY", "target: {services: ["+name+"]}", "rules: ["+rule+"]")
		if !applied(t, admin, docs) {
			break
		}
		confirmed = append(confirmed, name)
	}
	p.wantEnd(t, words...)
	t.Logf("%d changes were confirmed before there was no room", len(confirmed))

	give()
	p.log = meshtest.Log{}
	list, err := p.serving(t).List(t.Context(), &adminv1.ListRequest{})
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]string{}
	for _, i := range list.GetItems() {
		f := i.GetFields()
		kinds[f["metadata"].GetStructValue().GetFields()["name"].GetStringValue()] += f["kind"].GetStringValue() + " "
	}
	for _, name := range confirmed {
		if kinds[name] == "" {
			t.Errorf("%s was confirmed and is lost", name)
		}
	}
	for name, k := range kinds {
		if want := "Service AuthorizationPolicy "; k != want && name != "watchword" {
			t.Errorf("of %s only %s is stored, want %s", name, k, want)
		}
	}
	p.stop(t)
}

// applied says whether a change was confirmed. A control plane that can't go
// on must say so, and not leave its client waiting.
func applied(t *testing.T, admin adminv1.AdminServiceClient, docs string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), meshtest.Patience)
	defer cancel()
	_, err := admin.Apply(ctx, meshtest.Documents(docs))
	if ctx.Err() != nil {
		t.Fatalf("no answer after %s: %v", meshtest.Patience, err)
	}
	if status.Code(err) == codes.InvalidArgument {
		t.Fatal(meshtest.Explain(err))
	}
	return err == nil
}

// fill writes until nothing fits any more.
func fill(t *testing.T, file string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 1<<20); len(block) > 0; {
		if _, err := f.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
}

// limitFiles keeps the process from writing to any file beyond this many bytes.
func limitFiles(t *testing.T, p *process, size uint64) {
	t.Helper()
	limit := syscall.Rlimit{Cur: size, Max: size}
	const fileSize = 1 // RLIMIT_FSIZE
	if _, _, errno := syscall.Syscall6(syscall.SYS_PRLIMIT64, uintptr(p.cmd.Process.Pid), fileSize, uintptr(unsafe.Pointer(&limit)), 0, 0, 0); errno != 0 {
		t.Fatalf("limiting the size of files: %v", errno)
	}
}
