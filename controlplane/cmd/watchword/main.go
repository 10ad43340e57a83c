// Command watchword is the whole product in one binary: `watchword serve` is
// the control plane, every other command is a client of its admin API.
//
// A client command knows no policy: it sends what the user wrote, prints what
// the control plane answered, and turns the answer's status into an exit code.
// What it adds is for the person at the terminal: where it looked for the
// control plane, what was wrong in which line, and what to do about it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	os.Exit(run())
}

// run is main without the exit. The first SIGINT or SIGTERM cancels the
// command's context; after that the signals have their default effect again,
// so that a second one ends a stop that hangs.
func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	return newProgram().execute(ctx, os.Args[1:])
}
