package store

import (
	"fmt"
	"os"
	"path/filepath"
)

// WriteSecret makes a file that only its owner can read: whole, or not at all
// if the process or the machine stops on the way. It never overwrites one.
func WriteSecret(path, text string) error { return placeSecret(path, []byte(text), os.Link) }

// replaceSecret is WriteSecret for a file that is there.
func replaceSecret(path string, text []byte) error { return placeSecret(path, text, os.Rename) }

func placeSecret(path string, text []byte, place func(from, to string) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = place(f.Name(), path)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// MoveSecret gives a file another name, in the place of what has it, for good.
func MoveSecret(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	return syncDir(filepath.Dir(to))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// ReadSecret reads a file that only its owner may be able to read.
func ReadSecret(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others (mode %04o): chmod 600 it", path, info.Mode().Perm())
	}
	return os.ReadFile(path)
}
