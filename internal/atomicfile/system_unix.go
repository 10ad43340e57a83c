//go:build unix

package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// openFlags keep an open from waiting for the other end of a named pipe.
const openFlags = os.O_RDONLY | syscall.O_NONBLOCK

// checkOwner refuses what is another user's.
func checkOwner(path string, info fs.FileInfo) error {
	s, ok := info.Sys().(*syscall.Stat_t)
	if ok && s.Uid != 0 && int(s.Uid) != os.Geteuid() {
		return &NotPrivateError{path, fmt.Sprintf("belongs to another user (%d)", s.Uid)}
	}
	return nil
}

// syncFolder makes the names in a folder outlive a power failure.
func syncFolder(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
