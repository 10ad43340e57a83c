//go:build !unix

package enrolment

import "io/fs"

// checkOwner knows no owners of files here.
func checkOwner(string, fs.FileInfo) error { return nil }
