// Command watchword-sidecar protects a service that can link no library, and adds
// tokens to the service's own calls: it is the Go data plane behind a proxy.
//
//	caller -> inbound listener: verdict of the ruleset -> the service
//	the service -> outbound listener (or http_proxy): a token -> callee
//
// Where it listens is up to its Service (spec.inbound, spec.outbound), as for a
// managed Envoy, or up to flags.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// The first signal drains; a second one ends a drain that takes too long.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := newCommand().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "watchword-sidecar:", err)
		os.Exit(1)
	}
}
