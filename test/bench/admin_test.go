package bench

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// BenchmarkAdminCall is a small call of the admin API over TLS, on a connection
// that stays open, by each way of saying who calls. The floor answers the same
// without asking who calls, over the same TLS. Both take turns.
//
//	cpu-us/call  CPU time of the server
//	x-none       the same as a multiple of the floor's
func BenchmarkAdminCall(b *testing.B) {
	dir, floorDir := meshtest.ShortDir(b), meshtest.ShortDir(b)
	own := launch(b, "watchword", "127.0.0.1:0", 1, envDir+"="+dir)
	defer own.stop()
	floor := launch(b, "floor of calls", "127.0.0.1:0", 0, envDir+"="+floorDir)
	defer floor.stop()
	none := caller{child: floor, dir: floorDir}
	for _, c := range callers(b, own, dir) {
		b.Run(c.name, func(b *testing.B) {
			var ours, theirs []time.Duration
			for b.Loop() {
				for range callRounds {
					theirs = append(theirs, none.round(b))
					ours = append(ours, c.round(b))
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(median(ours).Microseconds())/callsPerRound, "cpu-us/call")
			b.ReportMetric(float64(median(ours))/float64(median(theirs)), "x-none")
		})
	}
}

const (
	callRounds    = 7
	callsPerRound = 800
	callsAtOnce   = 4
)

// caller calls a server in one way.
type caller struct {
	*child
	name, dir   string
	token       string
	certificate *tls.Certificate
}

// callers make the resources that each way needs.
func callers(b *testing.B, own *child, dir string) []caller {
	b.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "admin.token"))
	if err != nil {
		b.Fatal(err)
	}
	officer := caller{child: own, name: "admin-token", dir: dir, token: strings.TrimSpace(string(text))}
	admin := officer.connect(b)
	s := meshtest.NewSigner(b, "ES256")
	if _, err := admin.Apply(b.Context(), meshtest.Documents(fmt.Sprintf(roles, meshtest.JWKS(s), serviceName(0)))); err != nil {
		b.Fatal(meshtest.Explain(err))
	}
	issued, err := admin.IssueToken(b.Context(), &adminv1.IssueTokenRequest{Service: serviceName(0), Audience: "watchword-admin"})
	if err != nil {
		b.Fatal(err)
	}
	as, err := own.enrol(mesh{streams: 1, services: 1})
	if err != nil {
		b.Fatal(err)
	}
	chain, key := as[0][0].Certificate()
	return []caller{
		officer,
		{child: own, name: "certificate", dir: dir, certificate: &tls.Certificate{Certificate: chain, PrivateKey: key}},
		{child: own, name: "own-token", dir: dir, token: issued.GetAccessToken()},
		{child: own, name: "oidc-token", dir: dir, token: s.Token(b, meshtest.NewClaims("https://login.example", "alice", "watchword-admin"))},
	}
}

const roles = `
apiVersion: watchword.dev/v1
kind: Issuer
metadata: {name: people}
spec: {issuer: "https://login.example", keySet: {jwks: '%s'}}
---
apiVersion: watchword.dev/v1
kind: RoleBinding
metadata: {name: viewers}
spec:
  role: VIEWER
  subjects:
  - service: %s
  - token: {issuer: people, subjects: [alice]}
`

// connect opens a connection until the end of the benchmark.
func (c caller) connect(b *testing.B) adminv1.AdminServiceClient {
	b.Helper()
	config := &tls.Config{RootCAs: meshtest.CAOf(b, c.dir)}
	if c.certificate != nil {
		config.Certificates = []tls.Certificate{*c.certificate}
	}
	options := []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithNoProxy()}
	if c.token != "" {
		options = append(options, grpc.WithPerRPCCredentials(meshtest.BearerToken(c.token)))
	}
	conn, err := grpc.NewClient(c.ask("admin"), options...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close() })
	return adminv1.NewAdminServiceClient(conn)
}

// round is the CPU time that calls take, after the first, which connects.
func (c caller) round(b *testing.B) time.Duration {
	b.Helper()
	admin := c.connect(b)
	call := func(ctx context.Context, n int) error {
		for range n {
			if _, err := admin.GetSelf(ctx, &adminv1.GetSelfRequest{}); err != nil {
				return fmt.Errorf("GetSelf by %s: %w", c.name, err)
			}
		}
		return nil
	}
	if err := call(b.Context(), 1); err != nil {
		b.Fatal(err)
	}
	before := c.used()
	g, ctx := errgroup.WithContext(b.Context())
	for range callsAtOnce {
		g.Go(func() error { return call(ctx, callsPerRound/callsAtOnce) })
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	return c.used() - before
}
