package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// listeners are all open before anything is started, so that a port in use is
// found first.
type listeners struct {
	admin, xds, sts, ops net.Listener
	socket               net.Listener
}

func listen(c Config) (*listeners, error) {
	l := &listeners{}
	var errs []error
	for _, e := range []struct {
		at            *net.Listener
		flag, address string
	}{
		{&l.admin, "--admin-listen", c.AdminListen},
		{&l.xds, "--xds-listen", c.XDSListen},
		{&l.sts, "--sts-listen", c.STSListen},
		{&l.ops, "--ops-listen", c.OpsListen},
	} {
		var err error
		*e.at, err = net.Listen("tcp", e.address)
		if err == nil && !(*e.at).Addr().(*net.TCPAddr).IP.IsLoopback() {
			err = fmt.Errorf("it is %s here, which is not loopback", (*e.at).Addr()) // a localhost of another kind
		}
		if errors.Is(err, syscall.EADDRINUSE) {
			err = fmt.Errorf("%s %s: the port is in use by another process (another watchword?): stop it, or choose another port", e.flag, e.address)
		} else if err != nil {
			err = fmt.Errorf("%s %s: %w", e.flag, e.address, err)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// openAdminSocket listens in the data folder. What an earlier process left is
// removed; this one owns the data by then.
func (l *listeners) openAdminSocket(c Config) error {
	path := filepath.Join(c.DataDir, adminSocket)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the admin socket: %w", err)
	}
	s, err := net.Listen("unix", path)
	if err != nil {
		return fmt.Errorf("the admin socket: %w", err)
	}
	l.socket = s
	// The folder lets nobody else in; this is the second lock.
	return os.Chmod(path, 0o600)
}

func (l *listeners) close() {
	for _, n := range []net.Listener{l.admin, l.xds, l.sts, l.ops, l.socket} {
		if n != nil {
			_ = n.Close()
		}
	}
}

// stopTimeout is how long requests in flight may take at a stop.
const stopTimeout = 5 * time.Second

// serveHTTP serves one handler, HTTP/1.1 and cleartext HTTP/2, until ctx ends.
func serveHTTP(ctx context.Context, g *errgroup.Group, h http.Handler, listeners ...net.Listener) {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		Protocols:         new(http.Protocols),
	}
	srv.Protocols.SetHTTP1(true)
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

// announce says one line for each thing that it listens on.
func (r *replica) announce(l *listeners) {
	for _, e := range []struct {
		what string
		at   net.Listener
	}{
		{"admin API", l.admin}, {"admin API", l.socket}, {"ADS", l.xds}, {"token service", l.sts}, {"health and metrics", l.ops},
	} {
		r.Logger.Info("listening", "for", e.what, "address", e.at.Addr().String())
		r.Listening(e.what, e.at.Addr().String())
	}
}
