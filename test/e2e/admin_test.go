package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// Every way into the admin API wants a credential: gRPC and JSON, over TCP and over
// the socket, calls and streams. Over the socket it is enough to be the user of the
// control plane, unless a wrong credential is given.
func TestAdminNeedsCredential(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	socket := filepath.Join(m.Config.DataDir, "admin.sock")
	m.Apply(t, resource("Service", "orders", "{}")+resource("Service", "shop", "calls: [{service: orders}]"))
	_, clientSecret := m.ClientSecret(t, "shop")
	wrong := map[string]string{
		"none": "", "wrong": "wwat_wrong", "a part": m.AdminToken(t)[:20], "one more letter": m.AdminToken(t) + "x",
		"a mesh token": m.Token(t, "shop", "orders"), "a client secret": clientSecret,
	}
	for what, token := range wrong {
		for _, target := range []string{m.Config.AdminListen, "unix://" + socket} {
			if token == "" && target != m.Config.AdminListen {
				continue
			}
			for call, err := range grpcCalls(t, m, target, token) {
				if status.Code(err) != codes.Unauthenticated {
					t.Errorf("gRPC %s on %s, token: %s: got %v, want Unauthenticated", call, target, what, err)
				}
			}
		}
		for _, network := range []string{"tcp", "unix"} {
			if token == "" && network == "unix" {
				continue
			}
			for _, path := range []string{"/v1/resources", "/v1/dataplanes", "/v1/revisions/1/wait"} {
				if got, body := getJSON(t, m, network, path, token); got != http.StatusUnauthorized {
					t.Errorf("JSON %s over %s, token: %s: got %d %s, want 401", path, network, what, got, body)
				}
			}
		}
	}
	for target, token := range map[string]string{m.Config.AdminListen: m.AdminToken(t), "unix://" + socket: ""} {
		for call, err := range grpcCalls(t, m, target, token) {
			if err != nil && call != "Apply" { // it applies the same twice
				t.Errorf("gRPC %s on %s with a good credential: %v", call, target, err)
			}
		}
	}
}

// grpcCalls makes calls with a token and returns what came of each.
func grpcCalls(t *testing.T, m *mesh, target, token string) map[string]error {
	t.Helper()
	creds := insecure.NewCredentials()
	if !strings.HasPrefix(target, "unix:") {
		creds = credentials.NewTLS(&tls.Config{RootCAs: m.CA(t)})
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := t.Context()
	if token != "" {
		ctx = meshtest.BearerToken(token).Context(ctx)
	}
	c := adminv1.NewAdminServiceClient(conn)
	out := map[string]error{}
	_, out["List"] = c.List(ctx, &adminv1.ListRequest{})
	_, out["Apply"] = c.Apply(ctx, meshtest.Documents(resource("Service", "evil", "{}")))
	_, out["CreateClientSecret"] = c.CreateClientSecret(ctx, &adminv1.CreateClientSecretRequest{Service: "shop"})
	_, out["IssueToken"] = c.IssueToken(ctx, &adminv1.IssueTokenRequest{Service: "shop", Audience: "orders"})
	stream, err := c.WaitInSync(ctx, &adminv1.WaitInSyncRequest{Revision: 1})
	if err == nil {
		_, err = stream.Recv()
	}
	out["WaitInSync"] = err
	return out
}

// getJSON makes a GET of the JSON side over the port or the socket.
func getJSON(t *testing.T, m *mesh, network, path, token string) (int, []byte) {
	t.Helper()
	address := m.Config.AdminListen
	if network == "unix" {
		address = filepath.Join(m.Config.DataDir, "admin.sock")
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: m.CA(t)}, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}}
	defer transport.CloseIdleConnections()
	base := map[string]string{"tcp": "https://localhost", "unix": "http://admin"}[network]
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := (&http.Client{Transport: transport, Timeout: meshtest.Patience}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, body
}

// The JSON side has the same resources in the form that users write.
func TestAdminJSON(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.Apply(t, resource("Service", "orders", "audiences: [orders-api]")+resource("Service", "shop", "{}"))
	for _, c := range []struct {
		path  string
		want  int
		names string
	}{
		{"/v1/resources", 200, "Issuer/watchword Service/orders Service/shop"},
		{"/v1/resources/Service", 200, "Service/orders Service/shop"},
		{"/v1/resources/service/orders", 200, "Service/orders"},
		{"/v1/resources/Service/nobody", 404, ""},
		{"/v1/resources/Nothing", 400, ""},
		{"/v1/dataplanes", 200, ""},
		{"/v1/dataplane-configs/nobody", 404, ""},
	} {
		for _, network := range []string{"tcp", "unix"} {
			got, body := getJSON(t, m, network, c.path, m.AdminToken(t))
			if names := namesIn(t, body); got != c.want || names != c.names {
				t.Errorf("GET %s over %s: got %d with %q, want %d with %q; body %s", c.path, network, got, names, c.want, c.names, body)
			}
		}
	}
}

// namesIn lists the resources of an answer as KIND/NAME.
func namesIn(t *testing.T, body []byte) string {
	t.Helper()
	var list struct {
		Items []struct {
			Kind     string
			Metadata struct{ Name string }
		}
	}
	if err := json.Unmarshal(body, &list); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	var names []string
	for _, i := range list.Items {
		names = append(names, i.Kind+"/"+i.Metadata.Name)
	}
	return strings.Join(names, " ")
}

// An update that names an old revision is refused and says which is the new
// one; one that names the stored revision goes through, once.
func TestOldRevisionIsRefused(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	first := m.Apply(t, resource("Service", "orders", "audiences: [a]"))
	naming := func(revision int64, audience string) string {
		return strings.Replace(resource("Service", "orders", "audiences: ["+audience+"]"), "{name: orders}", fmt.Sprintf("{name: orders, revision: %d}", revision), 1)
	}
	second := m.Apply(t, naming(first, "b"))
	_, err := m.Admin.Apply(t.Context(), meshtest.Documents(naming(first, "c")))
	if text := status.Convert(err).Message(); status.Code(err) != codes.FailedPrecondition || !strings.Contains(text, fmt.Sprint(first)) || !strings.Contains(text, fmt.Sprint(second)) {
		t.Errorf("naming the old revision: got %v, want FailedPrecondition with %d and %d", err, first, second)
	}
	_, err = m.Admin.Delete(t.Context(), &adminv1.DeleteRequest{References: []*adminv1.Reference{{Kind: "Service", Name: "orders", Revision: first}}})
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("deleting the old revision: got %v, want FailedPrecondition", err)
	}
	list, err := m.Admin.List(t.Context(), &adminv1.ListRequest{Kind: "Service", Name: "orders"})
	if err != nil || !strings.Contains(list.String(), `"b"`) {
		t.Errorf("stored is %v (%v), want the audience of the second update", list, err)
	}
}

// Writers that would each be right alone, but not together, can't both win:
// exactly one of the policies with one target is stored, with all of its
// documents, and of the others nothing at all.
func TestConcurrentConflictingApplies(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.Apply(t, resource("Service", "orders", "{}"))
	const writers = 12
	errs := make([]error, writers)
	var wg sync.WaitGroup
	start := make(chan struct{})
	for i := range writers {
		wg.Go(func() {
			<-start
			// The Service comes first in the transaction; half of it would show.
			_, errs[i] = m.Admin.Apply(t.Context(), meshtest.Documents(
				resource("Service", fmt.Sprintf("with-%d", i), "{}")+authentication(fmt.Sprintf("policy-%d", i), "orders", "", "OFF")))
		})
	}
	close(start)
	wg.Wait()
	var won []int
	for i, err := range errs {
		switch {
		case err == nil:
			won = append(won, i)
		case status.Code(err) != codes.InvalidArgument || !strings.Contains(meshtest.Explain(err), "same target"):
			t.Errorf("writer %d: got %s, want InvalidArgument that names the same target", i, meshtest.Explain(err))
		}
	}
	if len(won) != 1 {
		t.Fatalf("writers %v won, want exactly one", won)
	}
	_, body := getJSON(t, m, "tcp", "/v1/resources", m.AdminToken(t))
	want := fmt.Sprintf("Issuer/watchword Service/orders Service/with-%d AuthenticationPolicy/policy-%[1]d", won[0])
	if got := namesIn(t, body); got != want {
		t.Errorf("stored are %q, want %q", got, want)
	}
}

// Writers that don't disturb each other all get through, however many there
// are at once.
func TestConcurrentApplies(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	const writers = 8
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	errs := make([]error, writers)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			_, errs[i] = m.Admin.Apply(ctx, meshtest.Documents(resource("Service", fmt.Sprintf("s%d", i), "{}")))
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Errorf("writer %d: %s", i, meshtest.Explain(err))
		}
	}
	_, body := getJSON(t, m, "tcp", "/v1/resources/Service", m.AdminToken(t))
	if got := len(strings.Fields(namesIn(t, body))); got != writers {
		t.Errorf("%d services are stored, want %d", got, writers)
	}
}
