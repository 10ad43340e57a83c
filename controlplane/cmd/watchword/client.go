package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// largestAnswer bounds one answer of the control plane, in bytes: the dump of
// a data plane with many routes is the largest.
const largestAnswer = 64 << 20

// client is a connection to the admin API.
type client struct {
	adminv1.AdminServiceClient
	options *options
}

// withClient runs f with a client and explains its error. Unary calls end
// after --timeout, streams when ctx does.
func (o *options) withClient(cmd *cobra.Command, f func(context.Context, *client) error) error {
	target, err := dialTarget(o.address())
	if err != nil {
		return err
	}
	token, err := o.adminToken()
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithPerRPCCredentials(bearer(token)),
		grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largestAnswer)),
		grpc.WithUnaryInterceptor(o.limitTime))
	if err != nil {
		return usagef("--server %s: %v", o.address(), err)
	}
	defer conn.Close()
	return o.explain(f(cmd.Context(), &client{adminv1.NewAdminServiceClient(conn), o}))
}

func (o *options) limitTime(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	return invoke(ctx, method, request, reply, conn, opts...)
}

// address is --server with its default.
func (o *options) address() string {
	if o.server != "" {
		return o.server
	}
	return "unix:" + filepath.Join(o.dataDir, "admin.sock")
}

// dialTarget is the gRPC target of an address. The connection has no TLS, so
// the admin token must not leave the machine.
func dialTarget(address string) (string, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		path, err := filepath.Abs(strings.TrimPrefix(path, "//"))
		if err != nil {
			return "", fmt.Errorf("finding %s: %w", address, err)
		}
		return "unix://" + path, nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return "", usagef("--server %q: want unix:PATH or HOST:PORT", address)
	}
	if ip, err := netip.ParseAddr(host); host != "localhost" && (err != nil || !ip.IsLoopback()) {
		return "", usagef("--server %q is not on this machine: the admin API has no TLS, so its token goes to a Unix socket or a loopback address only. Run watchword there", address)
	}
	return "passthrough:///" + address, nil
}

// adminToken reads the credential for every admin call.
func (o *options) adminToken() (string, error) {
	path := o.tokenFile
	if path == "" {
		path = filepath.Join(o.dataDir, "admin.token")
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", &failure{code: exitUnreachable, err: fmt.Errorf("no admin token at %s", path),
			hint: "`watchword serve` writes it at its first start; name its folder with --data-dir, or the file with --token-file"}
	}
	if err != nil {
		return "", &failure{code: exitUnreachable, err: fmt.Errorf("reading the admin token: %w", err),
			hint: "run as the user that runs `watchword serve`, or name a copy that you may read with --token-file"}
	}
	token := strings.TrimSpace(string(text))
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", &failure{code: exitUnreachable, err: fmt.Errorf("%s does not hold an admin token: want one line of text", path),
			hint: "name the right file with --token-file"}
	}
	return token, nil
}

// bearer is the admin token as credentials of each call.
type bearer string

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity is false since dialTarget lets no call leave the
// machine.
func (bearer) RequireTransportSecurity() bool { return false }
