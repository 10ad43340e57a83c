package e2e

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/watchword-mesh/watchword/test/meshtest"
)

// A service that speaks one version of HTTP is reached by callers of both, if
// its Service says which one it speaks.
func TestServiceOfOneProtocol(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	for protocol, major := range map[string]int{"HTTP1": 1, "HTTP2": 2} {
		t.Run(protocol, func(t *testing.T) {
			upstream := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Spoken", fmt.Sprint(r.ProtoMajor))
				_, _ = w.Write([]byte("{}"))
			}))
			upstream.Config.Protocols = new(http.Protocols)
			upstream.Config.Protocols.SetHTTP1(major == 1)
			upstream.Config.Protocols.SetUnencryptedHTTP2(major == 2)
			upstream.Start()
			t.Cleanup(upstream.Close)
			name := map[string]string{"HTTP1": "one", "HTTP2": "two"}[protocol]
			address := meshtest.FreeAddress(t)
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				t.Fatal(err)
			}
			m.Apply(t, resource("Service", name, "{}"))
			m.startEnvoy(t, name)
			m.ApplyWait(t, resource("Service", name, fmt.Sprintf("inbound: {port: %s, localAddress: %q, protocol: %s}", port, upstream.Listener.Addr(), protocol))+
				resource("AuthenticationPolicy", name+"-open", "target: {services: ["+name+"]}", `mode: "OFF"`))
			meshtest.Send(t, address, meshtest.Call{Path: "/x"}) // waits for the listener
			for _, caller := range []meshtest.Protocol{meshtest.HTTP1, meshtest.HTTP2} {
				conn := &meshtest.Conn{Address: address, Protocol: caller}
				got := conn.Do(t, meshtest.Call{Path: "/x"})
				if got.Status != 200 || got.Header.Get("X-Spoken") != fmt.Sprint(major) {
					t.Errorf("a caller over %s: %d %q, the service spoke HTTP/%s; want 200 and HTTP/%d", caller, got.Status, got.Body, got.Header.Get("X-Spoken"), major)
				}
			}
		})
	}
}
