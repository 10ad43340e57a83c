package controlplane

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"github.com/watchword-mesh/watchword/controlplane/transport"
)

// listeners are all open before anything is started, so that a port in use is
// found first.
type listeners struct {
	admin, xds, sts, ops *listener
	socket               net.Listener
}

// listener is one that is open, and not served yet.
type listener struct {
	net.Listener
	transport.Address
}

// Limits on connections. One of ADS stays open as long as a data plane lives; the
// others are short.
var (
	xdsLimits   = transport.Limits{Total: 20000, PerSource: 2000, PerSecond: 200}
	stsLimits   = transport.Limits{Total: 10000, PerSource: 1000, PerSecond: 200}
	adminLimits = transport.Limits{Total: 1000, PerSource: 250, PerSecond: 50}
	opsLimits   = transport.Limits{Total: 250, PerSource: 50, PerSecond: 20}
)

// ownDescriptors is how many files the process needs beside its connections: for
// etcd, its own connections, files.
const ownDescriptors = 512

// shares are the limits of the listeners, within the open files that the system lets
// the process have. Without that a flood of one listener would leave the others,
// and etcd, without any.
type shares struct{ admin, socket, xds, sts, ops transport.Limits }

func sharesOf(descriptors uint64) shares {
	s := shares{adminLimits, adminLimits, xdsLimits, stsLimits, opsLimits}
	all := []*transport.Limits{&s.admin, &s.socket, &s.xds, &s.sts, &s.ops}
	want := uint64(ownDescriptors)
	for _, l := range all {
		want += uint64(l.Total)
	}
	if descriptors >= want {
		return s
	}
	have := max(descriptors, 2*ownDescriptors) - ownDescriptors
	for _, l := range all {
		l.Total = max(int(uint64(l.Total)*have/(want-ownDescriptors)), 1)
		l.PerSource = min(l.PerSource, max(l.Total/2, 1))
	}
	return s
}

// descriptors is how many files the process may have open. Go has raised the soft
// limit to the hard one.
func descriptors() uint64 {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 1024
	}
	return r.Cur
}

func listen(c Config) (*listeners, error) {
	l := &listeners{}
	var errs []error
	for _, e := range []struct {
		at            **listener
		flag, address string
	}{
		{&l.admin, "--admin-listen", c.AdminListen},
		{&l.xds, "--xds-listen", c.XDSListen},
		{&l.sts, "--sts-listen", c.STSListen},
		{&l.ops, "--ops-listen", c.OpsListen},
	} {
		address, err := transport.ParseAddress(e.address)
		var open net.Listener
		if err == nil {
			open, err = address.Listen()
		}
		if errors.Is(err, syscall.EADDRINUSE) {
			err = fmt.Errorf("%s %s: the port is in use by another process (another watchword?): stop it, or choose another port", e.flag, e.address)
		} else if err != nil {
			err = fmt.Errorf("%s %s: %w", e.flag, e.address, err)
		} else {
			*e.at = &listener{open, address}
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// open says whether it listens on all addresses of the machine.
func (l *listener) open() bool { return l.Addr().(*net.TCPAddr).IP.IsUnspecified() }

// url is the base of what is served there.
func (l *listener) url() string { return l.Address.URL(l.Addr()) }

// advertised is where other replicas reach ADS.
func (l *listeners) advertised(c Config) string {
	if c.AdvertiseAddress != "" {
		return c.AdvertiseAddress
	}
	host, err := os.Hostname()
	if !l.xds.open() || err != nil {
		return l.xds.Addr().String()
	}
	return net.JoinHostPort(host, strconv.Itoa(l.xds.Addr().(*net.TCPAddr).Port))
}

// guarded is the listener within its limits, with TLS unless its address goes
// without.
func (l *listener) guarded(limits transport.Limits, config *tls.Config, refused func()) net.Listener {
	inner := transport.Limit(l.Listener, limits, refused)
	if l.Plain {
		return inner
	}
	return tls.NewListener(inner, config)
}

// removeSocket removes a socket that nobody listens at any more, and nothing else.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s is there, and is no socket: choose another path with --admin-socket", path)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		_ = conn.Close()
		return fmt.Errorf("somebody listens at %s (another watchword?): stop it, or choose another path with --admin-socket", path)
	}
	return os.Remove(path)
}

// openAdminSocket listens in the data folder. What an earlier process left is
// removed; this one owns the data by then.
func (l *listeners) openAdminSocket(c Config) error {
	path := c.adminSocketPath()
	if err := removeSocket(path); err != nil {
		return fmt.Errorf("the admin socket: %w", err)
	}
	s, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("the admin socket: %w", err)
	}
	l.socket = s
	// Who may do what at it, the peer's user decides. In the data folder nobody
	// else gets to it; this is the second lock.
	mode := os.FileMode(0o600)
	if c.AdminSocket != "" {
		mode = 0o666
	}
	return os.Chmod(path, mode)
}

func (l *listeners) close() {
	for _, n := range []*listener{l.admin, l.xds, l.sts, l.ops} {
		if n != nil {
			_ = n.Close()
		}
	}
	if l.socket != nil {
		_ = l.socket.Close()
	}
}

// stopTimeout is how long requests in flight may take at a stop.
const stopTimeout = 5 * time.Second

// Times that one request may take. A client that is slower than these is cut off.
const (
	headerTimeout = 10 * time.Second
	// bodyTimeout is for a request with its body.
	bodyTimeout = time.Minute
	// answerTimeout is for a short answer; watches of the admin API have none.
	answerTimeout = 30 * time.Second
	idleTimeout   = 2 * time.Minute
	// writeTimeout is how long a connection may take nothing of what it is sent.
	writeTimeout = 30 * time.Second
)

// faultsOnly is what net/http says of its own accord, such as of a handler that
// panicked; failed handshakes are left out, which strangers could write at will.
type faultsOnly struct{ log hclog.Logger }

// Write implements io.Writer.
func (f faultsOnly) Write(line []byte) (int, error) {
	if text := string(line); !strings.Contains(text, "TLS handshake error") {
		f.log.Error("serving HTTP", "fault", strings.TrimSpace(text))
	}
	return len(line), nil
}

// serveHTTP serves one handler, HTTP/1.1 and HTTP/2, until ctx ends. An answer
// must be done in time, unless there is none for it (0).
func serveHTTP(ctx context.Context, g *errgroup.Group, logger hclog.Logger, h http.Handler, answer time.Duration, listeners ...net.Listener) {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       bodyTimeout,
		WriteTimeout:      answer,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    32 << 10,
		Protocols:         new(http.Protocols),
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 100, WriteByteTimeout: writeTimeout, SendPingTimeout: idleTimeout},
		ConnContext:       transport.WithPeer,
		ErrorLog:          log.New(faultsOnly{logger}, "", 0),
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetHTTP2(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	for _, l := range listeners {
		g.Go(func() error {
			if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
	}
	g.Go(func() error {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if err := srv.Shutdown(stop); err != nil {
			return srv.Close()
		}
		return nil
	})
}

// elsewhere says whether tokens name an address of this machine where the token
// service is not, such as since a version that had no TLS.
func elsewhere(issuer string, sts *listener) bool {
	u, err := url.Parse(issuer)
	if err != nil || !transport.Loopback(u.Hostname()) {
		return false // a proxy may be in between
	}
	at, err := url.Parse(sts.url())
	return err == nil && (u.Scheme != at.Scheme || u.Port() != at.Port())
}

// announce says one line for each thing that it listens on.
func (r *replica) announce(l *listeners) {
	if issuer := (mesh{loop: r.loop}).Issuer(); elsewhere(issuer, l.sts) {
		r.Logger.Warn("tokens and metadata name an issuer that is not where the token service listens: give it that address with --sts-listen, with http:// in front if the issuer has it",
			"issuer", issuer, "listens", l.sts.url())
	}
	for _, e := range []struct{ what, at string }{
		{"admin API", l.admin.url()}, {"admin API", "unix:" + l.socket.Addr().String()}, {"ADS", l.xds.Addr().String()},
		{"token service", l.sts.url()}, {"health and metrics", l.ops.url()},
	} {
		r.Logger.Info("listening", "for", e.what, "address", e.at)
		r.Listening(e.what, e.at)
	}
}
