package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"

	"github.com/watchword-mesh/watchword/controlplane/envoy"
	"github.com/watchword-mesh/watchword/dataplane/enrolment"
	"github.com/watchword-mesh/watchword/dataplane/sds"
)

// sidecar is what runs beside one Envoy: it hands it its certificate, keeps that
// fresh, and serves the part of its admin interface that anybody may see.
//
// All is in a folder that lets nobody else in. There is no secret in it: the
// certificate and its key go over a socket.
type sidecar struct {
	dir    string
	socket *sds.Socket
	admin  net.Listener // nil without --envoy-admin
}

const (
	sdsSocket   = "sds.sock"
	adminSocket = "admin.sock"
)

// newSidecar takes what others could have, so that this fails first.
func newSidecar(f *envoyFlags) (_ *sidecar, err error) {
	s := new(sidecar)
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.dir, err = os.MkdirTemp("", "watchword-envoy-"); err != nil { // mode 0700
		return nil, fmt.Errorf("making a folder for the bootstrap: %w", err)
	}
	if s.socket, err = sds.Listen(s.path(sdsSocket)); err != nil {
		return nil, fmt.Errorf("the socket for Envoy's certificate: %w", err)
	}
	if f.admin != "" {
		if s.admin, err = net.Listen("tcp", f.admin); err != nil {
			return nil, fmt.Errorf("--envoy-admin %s: %w", f.admin, err)
		}
	}
	return s, nil
}

func (s *sidecar) path(name string) string { return filepath.Join(s.dir, name) }

func (s *sidecar) close() {
	if s.admin != nil {
		_ = s.admin.Close()
	}
	if s.socket != nil {
		_ = s.socket.Close()
	}
	if s.dir != "" {
		_ = os.RemoveAll(s.dir)
	}
}

// writeBootstrap returns the path of the file.
func (s *sidecar) writeBootstrap(f *envoyFlags, id *enrolment.Identity) (string, error) {
	o := envoy.BootstrapOptions{Node: f.nodeName(), Service: f.service, ADSAddress: f.ads,
		Identity: &envoy.BootstrapIdentity{TrustDomain: id.TrustDomain(), SDSSocket: s.path(sdsSocket)}}
	if s.admin != nil {
		o.AdminAddress = s.path(adminSocket)
	}
	text, err := envoy.Bootstrap(o)
	if err != nil {
		return "", usageError{err}
	}
	path := s.path("bootstrap.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return "", fmt.Errorf("writing the bootstrap: %w", err)
	}
	return path, nil
}

// start runs all of it until ctx ends. The channel has the first error; wait
// returns when nothing runs any more.
func (s *sidecar) start(ctx context.Context, id *enrolment.Identity) (failed <-chan error, wait func()) {
	errs := make(chan error, 3)
	var running sync.WaitGroup
	run := func(serve func() error) {
		running.Go(func() {
			if err := serve(); err != nil && ctx.Err() == nil {
				errs <- err
			}
		})
	}
	run(func() error { return sds.Serve(ctx, s.socket, id) })
	run(func() error { return id.Run(ctx) })
	if s.admin != nil {
		run(func() error { return newAdminDoor(s.path(adminSocket)).serve(ctx, s.admin) })
	}
	return errs, running.Wait
}

// runProtected enrols, and runs Envoy until it ends.
func runProtected(ctx context.Context, f *envoyFlags, binary string, extra []string) error {
	s, err := newSidecar(f)
	if err != nil {
		return err
	}
	defer s.close()
	id, err := f.enrol(ctx, f.service, f.nodeName(), f.ads)
	if ctx.Err() != nil {
		return errors.New("interrupted before Envoy was started")
	}
	if err != nil {
		return err
	}
	bootstrap, err := s.writeBootstrap(f, id)
	if err != nil {
		return err
	}
	// A signal is for Envoy first: what it needs runs until it has ended.
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	failed, wait := s.start(running, id)
	defer wait()
	defer stop()
	return runEnvoy(ctx, binary, f.arguments(bootstrap, extra), failed)
}
