package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/watchword-mesh/watchword/controlplane"
	"github.com/watchword-mesh/watchword/internal/jose"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

const ecdsType = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"

func serviceName(i int) string { return fmt.Sprintf("service-%d", i) }
func inboundName(i int) string { return "mesh.inbound/" + serviceName(i) }
func revokedName(i int) string { return "mesh.revoked/" + serviceName(i) }

// whole is a control plane as `watchword serve` runs it: the etcd inside, with
// fsync, the admin API, the loop, ADS. A change is one apply of an Issuer with
// another key, which every service accepts.
type whole struct {
	admin    adminv1.AdminServiceClient
	ctx      context.Context
	services int
	// at is the admin API over TLS.
	at string
}

func newWhole() server { return &whole{ctx: context.Background()} }

func (w *whole) Start(address, dir string, services int) (string, error) {
	w.services = services
	where := make(chan [2]string, 8)
	failed := make(chan error, 1)
	c := controlplane.Config{
		DataDir: dir, XDSListen: address,
		AdminListen: "127.0.0.1:0", STSListen: "127.0.0.1:0", OpsListen: "http://127.0.0.1:0",
		Listening: func(what, at string) { where <- [2]string{what, at} },
	}
	go func() { failed <- controlplane.Run(w.ctx, c) }()
	addresses := map[string]string{}
	for len(addresses) < 5 {
		select {
		case err := <-failed:
			return "", err
		case e := <-where:
			if strings.HasPrefix(e[1], "unix:") {
				e[0] = "socket"
			}
			addresses[e[0]] = e[1]
		}
	}
	w.at = strings.TrimPrefix(addresses["admin API"], "https://")
	// At the socket the user of the control plane may do everything.
	conn, err := grpc.NewClient(addresses["socket"], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return "", err
	}
	w.admin = adminv1.NewAdminServiceClient(conn)
	return addresses["ADS"], w.seed(services)
}

func (w *whole) JoinTokens(instances int) ([]string, error) {
	var tokens []string
	for i := range w.services {
		resp, err := w.admin.CreateJoinToken(w.ctx, &adminv1.CreateJoinTokenRequest{Service: serviceName(i), Uses: int32(instances)})
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, resp.GetToken())
	}
	return tokens, nil
}

func (w *whole) Admin() string { return w.at }

// seed makes the mesh at the first start.
func (w *whole) seed(services int) error {
	list, err := w.admin.List(w.ctx, &adminv1.ListRequest{Kind: "Service"})
	if err != nil || len(list.GetItems()) > 0 {
		return err
	}
	if _, err := w.apply(issuer()); err != nil {
		return err
	}
	var mesh strings.Builder
	mesh.WriteString(policies)
	for i := range services {
		fmt.Fprintf(&mesh, "---\napiVersion: watchword.dev/v1\nkind: Service\nmetadata: {name: %s}\nspec: {routes: [{name: health, paths: [/healthz]}]}\n", serviceName(i))
	}
	_, err = w.apply(mesh.String())
	return err
}

// policies of the mesh: tokens of the built-in issuer and of another one, an
// open health check, and rules on who may what.
const policies = `---
apiVersion: watchword.dev/v1
kind: AuthenticationPolicy
metadata: {name: mesh}
spec:
  jwtRules:
  - {issuer: watchword}
  - {issuer: idp, audiences: [mesh], outputClaims: [{claimPath: [email], header: x-email}]}
---
apiVersion: watchword.dev/v1
kind: AuthorizationPolicy
metadata: {name: mesh}
spec:
  action: ALLOW
  rules:
  - from: {issuers: [watchword]}
    to: {methods: [GET, POST]}
  - from: {issuers: [idp]}
    when: [{claimPath: [groups], values: [staff, ops]}]
`

// issuer has two keys, one of them new at each call.
func issuer() string {
	var keys []string
	for range 2 {
		k, err := jose.GenerateKey("ES256")
		if err != nil {
			panic(err)
		}
		keys = append(keys, k.Public().JWK())
	}
	return fmt.Sprintf("apiVersion: watchword.dev/v1\nkind: Issuer\nmetadata: {name: idp}\nspec:\n  issuer: https://idp.example\n  keySet: {jwks: '{\"keys\":[%s]}'}\n", strings.Join(keys, ","))
}

func (w *whole) apply(text string) (int64, error) {
	resp, err := w.admin.Apply(w.ctx, &adminv1.ApplyRequest{Documents: []*adminv1.Document{{Source: "bench", Content: text}}})
	return resp.GetRevision(), err
}

func (w *whole) Served(n int) error {
	for {
		got, err := w.wait(1)
		if err != nil || got == n {
			return err
		}
		time.Sleep(5 * time.Millisecond) // not all have connected
	}
}

// wait returns how many data planes a revision touched, when all have it.
func (w *whole) wait(revision int64) (int, error) {
	stream, err := w.admin.WaitInSync(w.ctx, &adminv1.WaitInSyncRequest{Revision: revision, Timeout: durationpb.New(time.Minute)})
	total := 0
	for err == nil {
		var resp *adminv1.WaitInSyncResponse
		if resp, err = stream.Recv(); err == nil {
			total = int(resp.GetTotal())
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return total, err
}

func (w *whole) Change(n int) error {
	revision, err := w.apply(issuer())
	if err != nil {
		return err
	}
	got, err := w.wait(revision)
	if err == nil && got != n {
		err = fmt.Errorf("the change touched %d data planes, want %d", got, n)
	}
	return err
}
