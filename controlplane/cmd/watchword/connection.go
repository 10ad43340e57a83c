package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/watchword-mesh/watchword/controlplane/transport"
)

// endpoint is where the admin API is: at a Unix socket, or at an address.
type endpoint struct {
	// Path of the socket; empty for an address.
	socket  string
	address transport.Address
}

var (
	hostNames = regexp.MustCompile(`^[A-Za-z0-9._:%-]+$`)
	wanted    = "want HOST:PORT, http://HOST:PORT of loopback, or unix:PATH"
)

// parseEndpoint reads --server.
func parseEndpoint(text string) (endpoint, error) {
	if path, ok := strings.CutPrefix(text, "unix:"); ok {
		path, err := filepath.Abs(strings.TrimPrefix(path, "//"))
		if err != nil {
			return endpoint{}, fmt.Errorf("finding %s: %w", text, err)
		}
		return endpoint{socket: path}, nil
	}
	a, err := transport.ParseAddress(text)
	host, port, split := net.SplitHostPort(a.HostPort)
	if split != nil || strings.Count(text, "://") > 1 {
		return endpoint{}, usagef("--server %q: %s", text, wanted)
	}
	if err != nil {
		return endpoint{}, usagef("--server %w", err)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || !hostNames.MatchString(host) {
		return endpoint{}, usagef("--server %q: %s", text, wanted)
	}
	return endpoint{address: a}, nil
}

// target is what gRPC calls the endpoint. The resolver of Go finds the address,
// so that a name is looked up as all other programs do.
func (e endpoint) target() string {
	if e.socket != "" {
		return "unix://" + e.socket
	}
	return "passthrough:///" + e.address.HostPort
}

// tls says whether the connection has TLS.
func (e endpoint) tls() bool { return e.socket == "" && !e.address.Plain }

// dialOptions are how to connect, and what to prove who calls with.
func (o *options) dialOptions(e endpoint) ([]grpc.DialOption, error) {
	if err := o.checkCredentials(e); err != nil {
		return nil, err
	}
	token, err := o.bearerToken(e)
	if err != nil {
		return nil, err
	}
	var options []grpc.DialOption
	if token != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer{token, e.tls()}))
	}
	o.proved = token != "" || o.clientCertFile != ""
	if !e.tls() {
		if e.socket == "" {
			options = append(options, grpc.WithContextDialer(dialLoopback))
		}
		return append(options, grpc.WithTransportCredentials(insecure.NewCredentials())), nil
	}
	config, err := o.tlsConfig()
	if err != nil {
		return nil, err
	}
	return append(options, grpc.WithTransportCredentials(credentials.NewTLS(config))), nil
}

// checkCredentials refuses what would not be used, though its giver counts on it.
func (o *options) checkCredentials(e endpoint) error {
	if (o.clientCertFile == "") != (o.clientKeyFile == "") {
		return usagef("--client-cert-file and --client-key-file go together: the certificate, and its private key")
	}
	if !e.tls() && o.clientCertFile != "" {
		return usagef("--client-cert-file needs TLS, which %s has not; use --server HOST:PORT", o.address())
	}
	if e.address.Plain && o.caFile != "" {
		return usagef("--ca-file needs TLS, which %s has not; leave http:// out", o.address())
	}
	return nil
}

// dialLoopback connects to this machine only: a name such as localhost can be
// another one's.
func dialLoopback(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{Control: func(_, at string, _ syscall.RawConn) error {
		if ap, err := netip.ParseAddrPort(at); err != nil || !ap.Addr().Unmap().IsLoopback() {
			return fmt.Errorf("%s is not loopback, and there is no TLS", at)
		}
		return nil
	}}
	return d.DialContext(ctx, "tcp", address)
}

func (o *options) tlsConfig() (*tls.Config, error) {
	roots, err := o.roots()
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	if o.clientCertFile == "" {
		return config, nil
	}
	certificate, err := tls.LoadX509KeyPair(o.clientCertFile, o.clientKeyFile)
	if err != nil {
		return nil, &failure{code: exitUnreachable, err: fmt.Errorf("reading the client certificate: %w", err),
			hint: "--client-cert-file holds the certificate in PEM, --client-key-file its private key"}
	}
	o.certificate = &clientCertificate{certificate: certificate}
	config.GetClientCertificate = o.certificate.get
	return config, nil
}

// roots are the CAs that may have signed the control plane's certificate; nil is
// those of the system.
func (o *options) roots() (*x509.CertPool, error) {
	return o.rootsIn(x509.NewCertPool())
}

// rootsIn adds the CAs to a pool; it is nil if there are none to add.
func (o *options) rootsIn(pool *x509.CertPool) (*x509.CertPool, error) {
	path := o.caFile
	if path == "" {
		path = filepath.Join(o.dataDir, "ca.pem")
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && o.caFile == "" {
		return nil, nil
	}
	if err != nil {
		return nil, &failure{code: exitUnreachable, err: fmt.Errorf("reading the CA of the control plane: %w", err),
			hint: "name a file with its certificate in PEM with --ca-file"}
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, &failure{code: exitUnreachable, err: fmt.Errorf("%s holds no certificate in PEM", path),
			hint: "name a file with the certificate of the CA with --ca-file"}
	}
	return pool, nil
}
