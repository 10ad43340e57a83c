package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
)

// embedded is an etcd of one member inside the process. It has no listener at
// all: the client calls it directly, and there are no peers.
type embedded struct {
	etcd  *embed.Etcd
	lock  *os.File
	guard *guard
	once  sync.Once
}

// Ticks of a single member, which has nobody to wait for: ready in tens of
// milliseconds instead of a second.
const (
	tickMs     = 10
	electionMs = 100
)

// startTimeout is how long a start may take, replay of the log included.
const startTimeout = 60 * time.Second

func openEmbedded(ctx context.Context, c Config) (*embedded, *clientv3.Client, error) {
	dir := filepath.Join(c.DataDir, "etcd")
	lock, err := LockDir(c.DataDir)
	if err != nil {
		return nil, nil, err
	}
	e := &embedded{lock: lock, guard: newGuard(c.Fatal)}
	if err = verify(filepath.Join(dir, "member", "snap", "db")); err == nil {
		e.etcd, err = start(embedConfig(dir, c, e.guard), e.guard)
	}
	if err == nil {
		err = e.ready(ctx)
	}
	if err != nil {
		e.close()
		return nil, nil, fmt.Errorf("starting the etcd inside this process on %s: %w", dir, err)
	}
	return e, v3client.New(e.etcd.Server), nil
}

func (e *embedded) ready(ctx context.Context) error {
	select {
	case <-e.etcd.Server.ReadyNotify():
		return nil
	case err := <-e.etcd.Err():
		return err
	case <-time.After(startTimeout):
		return fmt.Errorf("it was not ready within %s: is the disk very slow?", startTimeout)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func embedConfig(dir string, c Config, g *guard) *embed.Config {
	cfg := embed.NewConfig()
	cfg.Dir = dir
	cfg.Name = "watchword"
	cfg.TickMs, cfg.ElectionMs = tickMs, electionMs
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = "periodic", "1h"
	cfg.UnsafeNoFsync = c.fast
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls, cfg.ListenPeerUrls = nil, nil, nil
	// Only a name in the membership record; nobody dials it.
	cfg.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "localhost:2380"}}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(bridge(c.Logger.Named("etcd"), g))
	return cfg
}

// verify walks the database once: some damage makes it panic on goroutines of
// its own, where nobody can catch it.
func verify(path string) (err error) {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v%s", p, hint(nil))
		}
	}()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, PreLoadFreelist: false})
	if err != nil {
		return fmt.Errorf("%w%s", err, hint(err))
	}
	defer db.Close()
	return db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(_, _ []byte) error { return nil })
		})
	})
}

// start runs etcd's start beside a guard: damaged files are reported by a
// panic or a fatal log line on whatever goroutine finds them.
func start(cfg *embed.Config, g *guard) (*embed.Etcd, error) {
	type result struct {
		etcd *embed.Etcd
		err  error
	}
	done := make(chan result, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- result{err: fmt.Errorf("%v", p)}
			}
		}()
		e, err := embed.StartEtcd(cfg)
		done <- result{e, explain(err)}
	}()
	var r result
	select {
	case r = <-done:
	case r.err = <-g.failed:
	}
	if r.err != nil {
		return nil, fmt.Errorf("%w%s", r.err, hint(r.err))
	}
	g.started.Store(true)
	return r.etcd, nil
}

// hint names the way out.
func hint(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return " (etcd wants at least 128 MiB)"
	case errors.Is(err, os.ErrPermission):
		return " (the folder must belong to the user that runs watchword)"
	}
	return " (if its files are damaged, move the folder away and restore a backup, or start with another --data-dir)"
}

func (e *embedded) close() {
	e.once.Do(func() {
		// After a fatal error its loop is gone, and a stop would wait for it.
		if e.etcd != nil && !e.guard.dead.Load() {
			e.etcd.Close()
		}
		_ = e.lock.Close()
	})
}

// LockDir makes sure that one process uses the folder, until the file is
// closed. (etcd itself would wait in silence.)
func LockDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the data folder: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the data folder: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("the data folder %s is in use by another watchword: stop it, or choose another --data-dir", dir)
	}
	return f, nil
}
