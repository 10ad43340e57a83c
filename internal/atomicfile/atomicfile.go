// Package atomicfile keeps small private files: who reads one sees what was
// written before or what was written last, whole, also after a power failure;
// and nobody but its owner could have read or made it.
package atomicfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// NotPrivateError is that other users may have read a file, or made it.
type NotPrivateError struct {
	Path string
	// Why, such as "has mode 0640".
	Why string
}

func (e *NotPrivateError) Error() string { return e.Path + " " + e.Why }

// Write replaces the file, or makes it, with mode 0600. When it has returned nil,
// the content is on disk, under its name. After an error the old content is there,
// or, if the folder could not be synced, maybe the new one.
func Write(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), temporary(path)+"*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncFolder(filepath.Dir(path))
}

// Remove removes the file for good. That there is none is no error.
func Remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// Clean removes what a Write left behind that was stopped on its way. No other
// process may write the same file meanwhile.
func Clean(path string) error {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	var faults []error
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), temporary(path)) && e.Type().IsRegular() {
			faults = append(faults, os.Remove(filepath.Join(filepath.Dir(path), e.Name())))
		}
	}
	return errors.Join(faults...)
}

func temporary(path string) string { return "." + filepath.Base(path) + ".tmp-" }

// Read gives the content of a regular file of at most limit bytes that is of this
// user, or root, and that nobody else can read. The error wraps [fs.ErrNotExist] if
// there is none, and a [*NotPrivateError] if others may have read or made it.
func Read(path string, limit int64) ([]byte, error) {
	link, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if err := checkOwner(path, link); err != nil { // of a link: who made it chose the file
		return nil, err
	}
	f, err := os.OpenFile(path, openFlags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := check(f, limit); err != nil {
		return nil, err
	}
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(content)) > limit {
		err = tooLarge(path, limit)
	}
	return content, err
}

// check looks at the file that is open, whatever has its name by now.
func check(f *os.File, limit int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	switch {
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is no regular file", f.Name())
	case info.Mode().Perm()&0o077 != 0:
		return &NotPrivateError{f.Name(), fmt.Sprintf("has mode %#o", info.Mode().Perm())}
	case info.Size() > limit:
		return tooLarge(f.Name(), limit)
	}
	return checkOwner(f.Name(), info)
}

func tooLarge(path string, limit int64) error {
	return fmt.Errorf("%s is larger than %d bytes", path, limit)
}
