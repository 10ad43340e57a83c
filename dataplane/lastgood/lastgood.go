// Package lastgood keeps what a data plane has in force in a file, so that it can
// start while the control plane is away.
//
// A stale file is worse than none: it lets in what was revoked since. So an update
// counts as accepted when [File.Save] has returned, and not before: then the update
// is on disk, or the file is gone. What was cut off or damaged is never loaded.
//
// The file holds shared secrets if the ruleset does: it is for its owner alone, and
// one that others may have read or made is not loaded either.
package lastgood

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/watchword-mesh/watchword/internal/atomicfile"
)

// maxSize of the file, in bytes: some 64 MiB of resources, which JSON makes larger
// by a third, and room.
const maxSize = 128 << 20

var (
	// ErrCorrupt is that the file is cut off, damaged, or not of a form that is
	// known here.
	ErrCorrupt = errors.New("it is damaged")
	// ErrOtherService is that the file is of another service.
	ErrOtherService = errors.New("it is of another service")
	// ErrStale is that a file could be neither replaced nor removed: the next start
	// may find what is no longer in force. An update must not be acknowledged then.
	ErrStale = errors.New("the earlier file is still there and holds what is no longer in force; remove it")
)

// Content is what was in force at one time.
type Content struct {
	// Service whose resources these are.
	Service string
	// Saved is when they were last known to be in force.
	Saved     time.Time
	Resources []Resource
}

// Resource is one resource of the control plane, as it was received.
type Resource struct {
	TypeURL, Name, Version string
	// Body is the message, in protobuf's wire format.
	Body []byte
}

// String names the resource; the body may hold secrets.
func (r Resource) String() string { return fmt.Sprintf("%s %s@%s", r.TypeURL, r.Name, r.Version) }

// GoString is String.
func (r Resource) GoString() string { return r.String() }

// File is the file of one process. It is not safe for concurrent use.
type File struct {
	path string
	// How a file is written and removed; tests let them fail.
	write  func(path string, content []byte) error
	remove func(path string) error
}

// Open makes ready to use the file at path, which need not be there yet; its folder
// must be, and only the owner of the folder may be able to change the names in it.
// What an earlier process that was killed has left beside the file is removed.
func Open(path string) (*File, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("the file for the last resources: %w", err)
	}
	if err := checkFolder(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("the file for the last resources, %s: %w", path, err)
	}
	if err := atomicfile.Clean(path); err != nil {
		return nil, fmt.Errorf("the file for the last resources, %s: removing what was left over: %w", path, err)
	}
	return &File{path: path, write: atomicfile.Write, remove: atomicfile.Remove}, nil
}

// checkFolder refuses a folder in which others could put an older file of ours back
// in its place.
func checkFolder(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is no folder", path)
	}
	if info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("others may replace files in the folder %s (mode %#o): chmod go-w it", path, info.Mode().Perm())
	}
	return nil
}

// Load gives what was saved last for the service. The error wraps [fs.ErrNotExist] if
// nothing was, [ErrCorrupt] or [ErrOtherService]. Content comes without an error only.
func (f *File) Load(service string) (Content, error) {
	c, err := f.load(service)
	if err != nil {
		return Content{}, fmt.Errorf("loading the last resources from %s: %w", f.path, err)
	}
	return c, nil
}

func (f *File) load(service string) (Content, error) {
	raw, err := atomicfile.Read(f.path, maxSize)
	if _, ok := errors.AsType[*atomicfile.NotPrivateError](err); ok {
		return Content{}, fmt.Errorf("%w, so others may have read or made it; remove it", err)
	}
	if err != nil {
		return Content{}, err
	}
	c, err := decode(raw)
	if err != nil {
		return Content{}, err
	}
	if c.Service != service {
		return Content{}, fmt.Errorf("%w, %q, not of %q; give each service its own", ErrOtherService, c.Service, service)
	}
	return c, nil
}

// Save replaces the file. When it has returned nil, the content is on disk. After an
// error there is no file, so that a start without the control plane has nothing
// rather than what is out of date; or, if even that failed, the error wraps
// [ErrStale].
func (f *File) Save(c Content) error {
	raw, err := encode(c)
	if err == nil {
		err = f.write(f.path, raw)
	}
	if err == nil {
		return nil
	}
	if gone := f.remove(f.path); gone != nil {
		err = fmt.Errorf("%w: %w: %w", ErrStale, err, gone)
	}
	return fmt.Errorf("saving the resources to %s: %w", f.path, err)
}

// Forget removes the file for good, as when the control plane says that the instance
// was revoked. That there is none is no error; any other wraps [ErrStale].
func (f *File) Forget() error {
	if err := f.remove(f.path); err != nil {
		return fmt.Errorf("removing %s: %w: %w", f.path, ErrStale, err)
	}
	return nil
}
