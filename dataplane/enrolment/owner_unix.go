//go:build unix

package enrolment

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// checkOwner refuses the file of another user: it may be a key that they have, too.
func checkOwner(path string, info fs.FileInfo) error {
	s, ok := info.Sys().(*syscall.Stat_t)
	if ok && s.Uid != 0 && int(s.Uid) != os.Geteuid() {
		return fmt.Errorf("key file %s belongs to another user (%d), who may have the key; remove it and enrol anew", path, s.Uid)
	}
	return nil
}
