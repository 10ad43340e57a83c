//go:build !linux

package main

import "syscall"

// childAttributes of Envoy: a process group of its own, so that Ctrl-C on a terminal
// reaches it once.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
