package sds

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
)

// Socket is a Unix socket for programs of the same user, and root.
type Socket struct{ *net.UnixListener }

// Listen makes the socket. Its folder must let nobody else in (0700): between
// the making of a socket and the setting of its mode others could connect.
func Listen(path string) (*Socket, error) {
	info, err := os.Stat(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("the folder of the socket: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the folder %s of the socket lets other users in (mode %04o): make it 0700", filepath.Dir(path), info.Mode().Perm())
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing an earlier socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, err
	}
	return &Socket{l}, nil
}

// Accept waits for the next program that may be here, and hangs up on others.
func (s *Socket) Accept() (net.Conn, error) {
	for {
		c, err := s.AcceptUnix()
		if err != nil {
			return nil, err
		}
		uid, err := peerUser(c)
		if err == nil && mayConnect(uid, os.Geteuid()) {
			return c, nil
		}
		_ = c.Close()
	}
}

// mayConnect lets in root, who can read this process's memory anyhow.
func mayConnect(uid, own int) bool { return uid == own || uid == 0 }
