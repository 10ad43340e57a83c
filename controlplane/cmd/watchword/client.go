package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

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
	e, err := parseEndpoint(o.address())
	if err != nil {
		return err
	}
	options, err := o.dialOptions(e)
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(e.target(), append(options,
		grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largestAnswer)),
		grpc.WithUnaryInterceptor(o.limitTime))...)
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

// bearerToken reads the token that goes with every call. It is empty where other
// evidence is to speak: the user at the other end of a Unix socket, or a client
// certificate; a token beside it would say who calls a second time.
func (o *options) bearerToken(e endpoint) (string, error) {
	if o.tokenFile != "" {
		return readBearer(o.tokenFile)
	}
	if e.socket != "" || o.clientCertFile != "" {
		return "", nil
	}
	token, err := readBearer(filepath.Join(o.dataDir, "admin.token"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return token, err
}

func readBearer(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", &failure{code: exitUnreachable, err: fmt.Errorf("reading the token for the admin API: %w", err),
			hint: "name a file that you may read with --token-file"}
	}
	token := strings.TrimSpace(string(text))
	if token == "" || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", &failure{code: exitUnreachable, err: fmt.Errorf("%s does not hold a token: want one line of text", path),
			hint: "name the right file with --token-file"}
	}
	return token, nil
}

// bearer is a token as credentials of each call.
type bearer struct {
	token string
	// Refuse to send it without TLS; parseEndpoint and dialLoopback let nothing
	// else leave the machine.
	tls bool
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token}, nil
}

func (b bearer) RequireTransportSecurity() bool { return b.tls }
