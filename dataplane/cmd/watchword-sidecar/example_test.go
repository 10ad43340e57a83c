package main_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/watchword-mesh/watchword/test/examplemesh"
)

const services = `
apiVersion: watchword.dev/v1
kind: Service
metadata: {name: orders}
spec:
  dataPlanes: [GO]
  inbound: {port: %[1]s, localAddress: %[2]q, tls: MESH}
  endpoints: ["127.0.0.1:%[1]s"]
---
apiVersion: watchword.dev/v1
kind: Service
metadata: {name: shop}
spec:
  dataPlanes: [GO]
  outbound: {port: %[3]s}
  calls: [{service: orders}]
`

// A sidecar in front of a plain program, and another one that a plain program calls
// through: neither knows anything of tokens or TLS.
func Example() {
	mesh, err := examplemesh.Start() // a control plane: `watchword serve`
	if err != nil {
		fmt.Println(err)
		return
	}
	defer mesh.Close()
	orders := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %s, caller: %s", r.Method, r.URL.Path, r.Header.Get("X-Watchword-Caller"))
	}))
	defer orders.Close()
	inbound, outbound, err := ports(mesh)
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := mesh.Apply(fmt.Sprintf(services, inbound, orders.Listener.Addr().String(), outbound)); err != nil {
		fmt.Println(err)
		return
	}
	for service, port := range map[string]string{"orders": inbound, "shop": outbound} {
		stop, err := startSidecar(mesh, service, "127.0.0.1:"+port)
		if err != nil {
			fmt.Println(err)
			return
		}
		defer stop()
	}

	// As http_proxy=http://127.0.0.1:OUTBOUND would have it.
	viaSidecar := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: "127.0.0.1:" + outbound})}
	defer viaSidecar.CloseIdleConnections()
	if err := get(&http.Client{Transport: viaSidecar}, "http://orders/orders/7"); err != nil {
		fmt.Println(err)
	}
	if err := get(&http.Client{Transport: viaSidecar}, "http://billing/"); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 200 OK: GET /orders/7, caller: spiffe://mesh.local/shop
	// 403 Forbidden: {"reason":"callee_unknown","message":"no service that may be called has this host; name it in `calls` of the Service"}
}

// startSidecar runs the built program until stop, and waits until it is ready and
// listens.
func startSidecar(mesh *examplemesh.Mesh, service, listener string) (stop func(), err error) {
	binary, err := mesh.Build("./dataplane/cmd/watchword-sidecar")
	if err != nil {
		return nil, err
	}
	token, err := mesh.JoinToken(service)
	if err != nil {
		return nil, err
	}
	ops, err := mesh.FreeAddress()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(binary, "--service", service, "--ads", mesh.ADS, "--ops-listen", ops)
	cmd.Env = append(os.Environ(), "WATCHWORD_JOIN_TOKEN="+token)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	}
	if err := waitReady("http://"+ops+"/readyz", listener); err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

func waitReady(probe, listener string) error {
	for range 3000 {
		if ready(probe) {
			if conn, err := net.Dial("tcp", listener); err == nil {
				return conn.Close()
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("%s is not ready", probe)
}

func ready(probe string) bool {
	resp, err := http.Get(probe)
	if err != nil {
		return false
	}
	return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
}

func get(client *http.Client, url string) error {
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return err
	}
	fmt.Printf("%s: %s\n", resp.Status, body)
	return nil
}

// ports are free ones for the two listeners.
func ports(mesh *examplemesh.Mesh) (inbound, outbound string, err error) {
	var found [2]string
	for i := range found {
		address, err := mesh.FreeAddress()
		if err != nil {
			return "", "", err
		}
		u, err := url.Parse("http://" + address)
		if err != nil {
			return "", "", err
		}
		found[i] = u.Port()
	}
	return found[0], found[1], nil
}
