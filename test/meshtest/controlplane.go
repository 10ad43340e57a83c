package meshtest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/oauth2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/watchword-mesh/watchword/controlplane"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// ControlPlane is a control plane inside the test's process. It keeps its
// addresses and its folder over Stop and Start.
type ControlPlane struct {
	// Config it runs with. Start fills in what is empty: a folder of its own,
	// free ports, and a logger at debug that writes to Log.
	Config controlplane.Config
	// Log is what it wrote.
	Log Log
	// Admin is the admin API with the admin token, set by Start.
	Admin adminv1.AdminServiceClient

	cancel context.CancelFunc
	ended  chan error
	conn   *grpc.ClientConn
}

// Start runs it until Stop or the end of the test, and returns when it serves.
func (c *ControlPlane) Start(t testing.TB) {
	t.Helper()
	if c.cancel == nil {
		c.prepare(t)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan struct{}, 16)
	c.Config.Listening = func(string, string) { ready <- struct{}{} }
	c.cancel, c.ended = cancel, make(chan error, 1)
	go func() { c.ended <- controlplane.Run(ctx, c.Config) }()
	for range 5 { // the four ports and the socket
		select {
		case <-ready:
		case err := <-c.ended:
			c.ended = nil
			t.Fatalf("the control plane did not start: %v", err)
		case <-time.After(Patience):
			t.Fatalf("the control plane does not serve after %s", Patience)
		}
	}
	c.connect(t)
}

// prepare does what only the first Start does.
func (c *ControlPlane) prepare(t testing.TB) {
	t.Helper()
	if c.Config.DataDir == "" {
		c.Config.DataDir = ShortDir(t)
	}
	for _, address := range []*string{&c.Config.AdminListen, &c.Config.XDSListen, &c.Config.STSListen, &c.Config.OpsListen} {
		if *address == "" {
			*address = FreeAddress(t)
		}
	}
	if !strings.Contains(c.Config.OpsListen, "//") {
		c.Config.OpsListen = "http://" + c.Config.OpsListen
	}
	if c.Config.Logger == nil {
		c.Config.Logger = hclog.New(&hclog.LoggerOptions{Name: "watchword", Level: hclog.Debug, Output: &c.Log})
	}
	c.Log.showLater(t, "the control plane")
	t.Cleanup(func() { c.Stop(t) })
}

func (c *ControlPlane) connect(t testing.TB) {
	t.Helper()
	conn, err := grpc.NewClient(c.Config.AdminListen,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: c.CA(t)})),
		grpc.WithNoProxy(),
		grpc.WithPerRPCCredentials(BearerToken(c.AdminToken(t))))
	if err != nil {
		t.Fatal(err)
	}
	c.conn, c.Admin = conn, adminv1.NewAdminServiceClient(conn)
}

// Stop ends it in order. A control plane that was not started, or has ended,
// stays as it is.
func (c *ControlPlane) Stop(t testing.TB) {
	t.Helper()
	if c.ended == nil {
		return
	}
	_ = c.conn.Close()
	c.cancel()
	select {
	case err := <-c.ended:
		if err != nil {
			t.Errorf("the control plane ended with: %v", err)
		}
	case <-time.After(Patience):
		t.Errorf("the control plane did not stop within %s", Patience)
	}
	c.ended = nil
}

// AdminToken is the credential that the first start left in the data folder.
func (c *ControlPlane) AdminToken(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(c.Config.DataDir, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// CA is what the certificates of its listeners come from.
func (c *ControlPlane) CA(t testing.TB) *x509.CertPool { t.Helper(); return CAOf(t, c.Config.DataDir) }

// CAOf is the CA of the control plane with that data folder.
func CAOf(t testing.TB, dataDir string) *x509.CertPool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dataDir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		t.Fatalf("ca.pem has no certificate: %s", text)
	}
	return pool
}

// HTTP is a client that trusts its certificates.
func (c *ControlPlane) HTTP(t testing.TB) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.CA(t)}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: Patience}
}

// HTTPContext makes OAuth clients use HTTP.
func (c *ControlPlane) HTTPContext(t testing.TB) context.Context {
	t.Helper()
	return context.WithValue(t.Context(), oauth2.HTTPClient, c.HTTP(t))
}

// JoinToken makes a join token of the service.
func (c *ControlPlane) JoinToken(t testing.TB, service string) string {
	t.Helper()
	resp, err := c.Admin.CreateJoinToken(t.Context(), &adminv1.CreateJoinTokenRequest{Service: service})
	if err != nil {
		t.Fatalf("a join token of %s: %v", service, err)
	}
	return resp.GetToken()
}

// TokenURL is the token endpoint.
func (c *ControlPlane) TokenURL() string { return c.IssuerURL() + "/token" }

// IssuerURL is the `iss` of the tokens that it issues.
func (c *ControlPlane) IssuerURL() string {
	if c.Config.IssuerURL != "" {
		return c.Config.IssuerURL
	}
	return "https://" + c.Config.STSListen
}

// Apply stores YAML documents and returns the revision; a refusal fails the
// test with every fault.
func (c *ControlPlane) Apply(t testing.TB, yaml string) int64 {
	t.Helper()
	resp, err := c.Admin.Apply(t.Context(), Documents(yaml))
	if err != nil {
		t.Fatalf("apply: %s\ndocuments:\n%s", Explain(err), yaml)
	}
	return resp.GetRevision()
}

// ApplyWait is Apply, and returns when every data plane that it touched is in
// sync.
func (c *ControlPlane) ApplyWait(t testing.TB, yaml string) int64 {
	t.Helper()
	revision := c.Apply(t, yaml)
	c.Wait(t, revision)
	return revision
}

// Wait returns when every data plane that the revision touched is in sync.
func (c *ControlPlane) Wait(t testing.TB, revision int64) {
	t.Helper()
	stream, err := c.Admin.WaitInSync(t.Context(), &adminv1.WaitInSyncRequest{Revision: revision, Timeout: durationpb.New(Patience)})
	if err != nil {
		t.Fatal(err)
	}
	var last *adminv1.WaitInSyncResponse
	for {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatalf("waiting for revision %d: %v; last: %v", revision, err, last)
		}
		if last = resp; resp.GetDone() {
			return
		}
	}
}

// WaitConnected returns when that many data planes of a service are connected
// and in sync.
func (c *ControlPlane) WaitConnected(t testing.TB, service string, n int) {
	t.Helper()
	Eventually(t, func() error {
		resp, err := c.Admin.ListDataPlanes(t.Context(), &adminv1.ListDataPlanesRequest{Service: service})
		if err != nil {
			return err
		}
		inSync := 0
		for _, d := range resp.GetDataPlanes() {
			if d.GetInSync() {
				inSync++
			}
		}
		if inSync != n || len(resp.GetDataPlanes()) != n {
			return fmt.Errorf("want %d data planes of %q in sync, there are %v", n, service, resp.GetDataPlanes())
		}
		return nil
	})
}

// Delete removes one resource and returns the revision.
func (c *ControlPlane) Delete(t testing.TB, kind, name string) int64 {
	t.Helper()
	resp, err := c.Admin.Delete(t.Context(), &adminv1.DeleteRequest{References: []*adminv1.Reference{{Kind: kind, Name: name}}})
	if err != nil {
		t.Fatalf("deleting %s/%s: %v", kind, name, err)
	}
	return resp.GetRevision()
}

// Token is one that the service gets for the audience, with all the scopes
// that it may have.
func (c *ControlPlane) Token(t testing.TB, service, audience string) string {
	t.Helper()
	resp, err := c.Admin.IssueToken(t.Context(), &adminv1.IssueTokenRequest{Service: service, Audience: audience})
	if err != nil {
		t.Fatalf("a token of %s for %s: %v", service, audience, err)
	}
	return resp.GetAccessToken()
}

// ClientSecret makes a client secret of the service for the token endpoint.
func (c *ControlPlane) ClientSecret(t testing.TB, service string) (id, secret string) {
	t.Helper()
	resp, err := c.Admin.CreateClientSecret(t.Context(), &adminv1.CreateClientSecretRequest{Service: service})
	if err != nil {
		t.Fatalf("a client secret of %s: %v", service, err)
	}
	return resp.GetClientId(), resp.GetClientSecret()
}

// Documents is an ApplyRequest of one text.
func Documents(yaml string) *adminv1.ApplyRequest {
	return &adminv1.ApplyRequest{Documents: []*adminv1.Document{{Source: "test.yaml", Content: yaml}}}
}

// Explain is the message of an admin call's error, with a line for each fault.
func Explain(err error) string {
	st := status.Convert(err)
	text := fmt.Sprintf("%s: %s", st.Code(), st.Message())
	for _, d := range st.Details() {
		for _, f := range d.(*adminv1.Faults).GetFaults() {
			text += fmt.Sprintf("\n  %s:%d: %s: %s: %s", f.GetSource(), f.GetLine(), f.GetResource(), f.GetField(), f.GetMessage())
		}
	}
	return text
}

// BearerToken is a credential for gRPC calls.
type BearerToken string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b BearerToken) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (BearerToken) RequireTransportSecurity() bool { return false }

// Context carries the token as metadata, for a single call.
func (b BearerToken) Context(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+string(b))
}

// ShortDir is a temporary folder whose name is short enough for a Unix socket
// in it; the names that t.TempDir makes are not.
func ShortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "ww-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}
