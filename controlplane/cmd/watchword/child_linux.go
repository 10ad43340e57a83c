package main

import "syscall"

// childAttributes of Envoy: a process group of its own, so that Ctrl-C on a terminal
// reaches it once, and an end when this process is killed, since nobody would renew
// its certificate then.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}
