package transport

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// checkFiles is how often, at most, the files are looked at.
const checkFiles = time.Second

// Files is a certificate with its key from two PEM files. When they change, such
// as by a renewal, the next handshake has the new one; a pair that can't be used
// leaves the last one in force.
type Files struct {
	certFile, keyFile string
	log               hclog.Logger
	now               func() time.Time

	mu      sync.Mutex
	current *tls.Certificate
	stamps  [2]stamp
	checked time.Time
}

// stamp tells whether a file was replaced or written to.
type stamp struct {
	modified time.Time
	size     int64
}

// LoadFiles reads the pair for the first time; now is the clock.
func LoadFiles(certFile, keyFile string, log hclog.Logger, now func() time.Time) (*Files, error) {
	f := &Files{certFile: certFile, keyFile: keyFile, log: log, now: now}
	if err := f.load(); err != nil {
		return nil, err
	}
	f.checked = now()
	return f, nil
}

// Certificate is the pair in force.
func (f *Files) Certificate() (*tls.Certificate, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now := f.now(); now.Sub(f.checked) >= checkFiles {
		f.checked = now
		f.refresh()
	}
	return f.current, nil
}

func (f *Files) refresh() {
	if stamps, err := f.stat(); err == nil && stamps == f.stamps {
		return
	}
	before := f.current
	if err := f.load(); err != nil {
		f.log.Warn("a new TLS certificate can't be used; going on with the last one", "file", f.certFile, "error", err, "expires", before.Leaf.NotAfter)
		return
	}
	f.log.Info("TLS certificate reloaded", "file", f.certFile, "expires", f.current.Leaf.NotAfter)
}

// load reads both files between two equal stamps, so that it never pairs an old
// half with a new one for good: if they change meanwhile, the next look sees it.
func (f *Files) load() error {
	stamps, err := f.stat()
	if err != nil {
		return fmt.Errorf("reading the TLS certificate: %w", err)
	}
	c, err := tls.LoadX509KeyPair(f.certFile, f.keyFile)
	if err != nil {
		return fmt.Errorf("reading the TLS certificate %s and its key %s: %w", f.certFile, f.keyFile, err)
	}
	if now := f.now(); now.After(c.Leaf.NotAfter) {
		return fmt.Errorf("the TLS certificate %s has expired at %s", f.certFile, c.Leaf.NotAfter.Format(time.RFC3339))
	}
	f.current, f.stamps = &c, stamps
	return nil
}

func (f *Files) stat() (stamps [2]stamp, err error) {
	for i, name := range []string{f.certFile, f.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return stamps, err
		}
		stamps[i] = stamp{info.ModTime(), info.Size()}
	}
	return stamps, nil
}
