package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/watchword-mesh/watchword/test/meshtest"
)

// deployed is a service with the sidecar of deployments/sidecar.
type deployed struct {
	*mesh
	inbound, outbound, ops string
}

// deploy makes the mesh that both of them are for, with documents before the Service
// and more of its spec: orders calls itself through its own sidecar, as shop would.
func deploy(t *testing.T, before string, more ...string) *deployed {
	t.Helper()
	d := &deployed{mesh: startMesh(t), inbound: meshtest.FreeAddress(t), outbound: meshtest.FreeAddress(t), ops: meshtest.FreeAddress(t)}
	d.Apply(t, before+resource("Service", "orders", append(more, "dataPlanes: [GO]",
		fmt.Sprintf("inbound: {port: %s, localAddress: %q, tls: MESH}", portOf(d.inbound), d.echo.Address),
		fmt.Sprintf("outbound: {port: %s}", portOf(d.outbound)), "hosts: [orders, orders.shop.svc.cluster.local]",
		fmt.Sprintf("endpoints: [%q]", d.inbound), "calls: [{service: orders}]")...))
	return d
}

// The unit of systemd runs the sidecar with flags that it takes; a restart is the same
// instance, and needs no join token.
func TestSidecarUnit(t *testing.T) {
	t.Parallel()
	d := deploy(t, "")
	unit := readUnit(t)
	state, etc := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(etc, "orders.jointoken"), []byte(d.JoinToken(t, "orders")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(state, unit["StateDirectory"][0]), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, want := unit["LoadCredential"][0], "jointoken:/etc/watchword/orders.jointoken"; got != want {
		t.Errorf("LoadCredential is %q, want %q", got, want)
	}
	// What systemd does: specifiers are replaced, ${X} is one word, $X several.
	line := strings.NewReplacer("%d/jointoken", filepath.Join(etc, "orders.jointoken"), "%S", state, "${WATCHWORD_ADS}", d.Config.XDSListen,
		" $WATCHWORD_FLAGS", " --ops-listen "+d.ops).Replace(unit["ExecStart"][0])
	words := strings.Fields(line)
	if words[0] != "/usr/local/bin/watchword-sidecar" || strings.ContainsAny(line, "%$") {
		t.Fatalf("ExecStart is %q", line)
	}
	for range 2 {
		stop := d.runSidecar(t, words[1:])
		d.callThrough(t)
		d.documented(t)
		stop()
	}
	if out := d.instances(t); out != 1 {
		t.Errorf("after a restart there are %d instances, want the same one", out)
	}
}

// documented compares the metrics that the sidecar has with those that operators are
// told of.
func (d *deployed) documented(t *testing.T) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(meshtest.Root(), "docs", "operations.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, metrics := fetch(t, http.DefaultClient, "http://"+d.ops+"/metrics")
	has := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (watchword_\w+) (\w+)$`).FindAllStringSubmatch(metrics, -1) {
		has[m[1]] = true
		if row := regexp.MustCompile("\n\\| `" + m[1] + "(\\{[a-z,]+\\})?` \\| " + m[2] + " \\| "); !row.Match(page) {
			t.Errorf("docs/operations.md has no row for %s, a %s", m[1], m[2])
		}
	}
	for _, m := range regexp.MustCompile("\n\\| `(watchword_dataplane_\\w+)").FindAllSubmatch(page, -1) {
		if !has[string(m[1])] {
			t.Errorf("docs/operations.md has %s, which the sidecar has not", m[1])
		}
	}
}

func (d *deployed) instances(t *testing.T) int {
	t.Helper()
	cmd := exec.Command(binary, "instance", "list", "-o", "name", "--data-dir", d.Config.DataDir)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	return len(strings.Fields(string(out)))
}

// readUnit is the unit for orders, by key.
func readUnit(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(meshtest.Root(), "deployments", "sidecar", "watchword-sidecar@.service"))
	if err != nil {
		t.Fatal(err)
	}
	unit := map[string][]string{}
	for _, m := range regexp.MustCompile(`(?m)^(\w+)=(.*)$`).FindAllStringSubmatch(string(text), -1) {
		unit[m[1]] = append(unit[m[1]], strings.ReplaceAll(m[2], "%i", "orders"))
	}
	return unit
}

// The pod of the manifest enrols by its service account and takes its listeners from
// the Service that the manifest's comment has.
func TestSidecarPod(t *testing.T) {
	t.Parallel()
	const audience = "https://control-plane.example.com:7402"
	cluster := meshtest.NewSigner(t, "ES256")
	d := deploy(t, fmt.Sprintf("apiVersion: watchword.dev/v1\nkind: Issuer\nmetadata: {name: cluster}\nspec:\n  issuer: https://cluster.example\n  keySet: {jwks: %q}\n---\n", `{"keys":[`+cluster.JWK()+`]}`),
		fmt.Sprintf("bootstrap: {kubernetes: [{issuer: cluster, namespace: shop, serviceAccount: orders, audiences: [%q]}]}", audience))
	token := filepath.Join(t.TempDir(), "token")
	now := time.Now()
	if err := os.WriteFile(token, []byte(cluster.Token(t, meshtest.Claims{
		"iss": "https://cluster.example", "sub": "system:serviceaccount:shop:orders", "aud": []string{audience},
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(time.Hour).Unix(),
		"kubernetes.io": map[string]any{"namespace": "shop", "serviceaccount": map[string]any{"name": "orders", "uid": "u"}},
	})), 0o600); err != nil {
		t.Fatal(err)
	}
	pod := readPod(t)
	if got := pod.Volumes[0].Projected.Sources[0].ServiceAccountToken.Audience; got != audience {
		t.Errorf("the audience of the pod's token is %q, want %q", got, audience)
	}
	var args []string
	for _, a := range pod.InitContainers[0].Args {
		args = append(args, strings.NewReplacer("$(POD_NAME)", "orders-7d9f", "control-plane.example.com:7401", d.Config.XDSListen,
			"/var/run/watchword/token", token, "/etc/watchword/ca.pem", filepath.Join(d.Config.DataDir, "ca.pem"), "0.0.0.0:7409", d.ops).Replace(a))
	}
	stop := d.runSidecar(t, args)
	d.callThrough(t)
	stop()
}

// pod is what is looked at of the manifest.
type pod struct {
	InitContainers []struct {
		Args          []string `yaml:"args"`
		RestartPolicy string   `yaml:"restartPolicy"`
	} `yaml:"initContainers"`
	Volumes []struct {
		Projected struct {
			Sources []struct {
				ServiceAccountToken struct {
					Audience string `yaml:"audience"`
				} `yaml:"serviceAccountToken"`
			} `yaml:"sources"`
		} `yaml:"projected"`
	} `yaml:"volumes"`
}

func readPod(t *testing.T) pod {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(meshtest.Root(), "deployments", "sidecar", "kubernetes.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for documents := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var m struct {
			Kind string `yaml:"kind"`
			Spec struct {
				Template struct {
					Spec pod `yaml:"spec"`
				} `yaml:"template"`
			} `yaml:"spec"`
		}
		if err := documents.Decode(&m); errors.Is(err, io.EOF) {
			t.Fatal("kubernetes.yaml has no Deployment")
		} else if err != nil {
			t.Fatal(err)
		}
		if m.Kind == "Deployment" {
			return m.Spec.Template.Spec
		}
	}
}

// runSidecar runs the built program until it is ready and listens. stop ends it in
// order.
func (d *deployed) runSidecar(t *testing.T, args []string) (stop func()) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "watchword-sidecar")
	build := exec.Command("go", "build", "-o", program, "./dataplane/cmd/watchword-sidecar")
	build.Dir = meshtest.Root()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", build, err, out)
	}
	log := new(meshtest.Log)
	cmd := exec.Command(program, args...)
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	meshtest.Eventually(t, func() error {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("%s ended: %v\n%s", cmd, err, log)
		default:
		}
		res, err := http.Get("http://" + d.ops + "/readyz")
		if err != nil {
			return err
		}
		_ = res.Body.Close()
		c, err := net.Dial("tcp", d.outbound)
		if err == nil && res.StatusCode != http.StatusOK {
			err = fmt.Errorf("not ready: %s\n%s", res.Status, log)
		}
		if err != nil {
			return err
		}
		return c.Close()
	})
	return func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			t.Errorf("%s ended with %v\n%s", cmd, err, log)
		}
	}
}

// callThrough sends a request out by the sidecar and in by it.
func (d *deployed) callThrough(t *testing.T) {
	t.Helper()
	transport := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: d.outbound})}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	if code, body := fetch(t, client, "http://orders.shop.svc.cluster.local/a"); code != 200 || !strings.Contains(body, "spiffe://mesh.local/orders") {
		t.Errorf("through both listeners of the sidecar: %d %s", code, body)
	}
}
