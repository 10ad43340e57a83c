package main

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"

	"github.com/spf13/cobra"

	"github.com/watchword-mesh/watchword/controlplane/envoy"
)

type envoyFlags struct {
	service, node, ads, admin, binary string
	concurrency                       int
	printBootstrap, printFilters      bool
}

func newEnvoyCommand(o *options) *cobra.Command {
	var flags envoyFlags
	cmd := &cobra.Command{
		Use:   "envoy --service SERVICE [-- ENVOY-ARGUMENT...]",
		Short: "Run an Envoy that protects a service",
		Long: `Writes a bootstrap and runs Envoy with it in the foreground, until Envoy ends. SIGINT
and SIGTERM go to Envoy, and its exit code is that of this command. What comes
after -- goes to Envoy as it is.

For an Envoy that somebody else owns, --print-filters prints the HTTP filters to
put before its router, and --print-bootstrap a whole bootstrap to start from.`,
		Example: `  watchword envoy --service orders
  watchword envoy --service orders --envoy-admin 127.0.0.1:9901 -- --log-level info
  watchword envoy --service orders --print-filters`,
		Args: envoyArguments,
		RunE: func(cmd *cobra.Command, args []string) error { return runEnvoyCommand(cmd, &flags, args) },
	}
	o.addServiceFlag(cmd, &flags.service, "`SERVICE` to protect")
	f := cmd.Flags()
	f.StringVar(&flags.node, "node", "", "`NAME` of this Envoy in status (default SERVICE-HOSTNAME-PID)")
	f.StringVar(&flags.ads, "ads", "127.0.0.1:7401", "`HOST:PORT` where the control plane serves ADS")
	f.StringVar(&flags.admin, "envoy-admin", "", "`IP:PORT` on loopback for Envoy's admin interface, which has no authentication (default none)")
	f.StringVar(&flags.binary, "envoy", "", "`PATH` of the Envoy binary (default $ENVOY, else envoy on the PATH)")
	f.IntVar(&flags.concurrency, "concurrency", 0, "`N` worker threads of Envoy (default one for each core)")
	f.BoolVar(&flags.printBootstrap, "print-bootstrap", false, "print the bootstrap as YAML and run nothing")
	f.BoolVar(&flags.printFilters, "print-filters", false, "print the HTTP filters as YAML and run nothing")
	cmd.MarkFlagsMutuallyExclusive("print-bootstrap", "print-filters")
	return cmd
}

// envoyArguments keeps a forgotten -- from being passed on in silence.
func envoyArguments(cmd *cobra.Command, args []string) error {
	if dash := cmd.ArgsLenAtDash(); dash > 0 || dash < 0 && len(args) > 0 {
		return fmt.Errorf("unexpected argument %q; what is for Envoy comes after --", args[0])
	}
	return nil
}

func runEnvoyCommand(cmd *cobra.Command, flags *envoyFlags, args []string) error {
	if flags.printFilters {
		return printOwn(cmd)(envoy.Filters(flags.service))
	}
	if err := flags.check(); err != nil {
		return err
	}
	bootstrap, err := envoy.Bootstrap(envoy.BootstrapOptions{
		Node: flags.nodeName(), Service: flags.service, ADSAddress: flags.ads, AdminAddress: flags.admin})
	if flags.printBootstrap {
		return printOwn(cmd)(bootstrap, err)
	}
	if err != nil {
		return usageError{err}
	}
	binary, err := flags.find()
	if err != nil {
		return err
	}
	return withBootstrap(bootstrap, func(path string) error {
		return runEnvoy(cmd.Context(), binary, flags.arguments(path, args))
	})
}

// printOwn prints what package envoy made; it refuses only bad flags.
func printOwn(cmd *cobra.Command) func([]byte, error) error {
	return func(text []byte, err error) error {
		if err != nil {
			return usageError{err}
		}
		_, err = cmd.OutOrStdout().Write(text)
		return err
	}
}

// serviceName is what metadata.name of a Service may be.
var serviceName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

func (f *envoyFlags) check() error {
	if !serviceName.MatchString(f.service) {
		return usagef("--service %q is not the name of a Service: lower-case letters, digits and dashes", f.service)
	}
	if f.concurrency < 0 {
		return usagef("--concurrency %d: want at least 1", f.concurrency)
	}
	if _, _, err := net.SplitHostPort(f.ads); err != nil {
		return usagef("--ads %q: want HOST:PORT", f.ads)
	}
	if f.admin == "" {
		return nil
	}
	at, err := netip.ParseAddrPort(f.admin)
	if err != nil {
		return usagef("--envoy-admin %q: want IP:PORT", f.admin)
	}
	// Who reaches it can read every header and stop the proxy.
	if !at.Addr().IsLoopback() {
		return usagef("--envoy-admin %s: Envoy's admin interface has no authentication; use a loopback address", f.admin)
	}
	return nil
}

// nodeName is unique among the Envoys of a service on this host, since two
// with one name can't be told apart in status. A bootstrap that is printed is
// for another process, whose ID is not known.
func (f *envoyFlags) nodeName() string {
	if f.node != "" {
		return f.node
	}
	name := f.service
	if host, err := os.Hostname(); err == nil {
		name += "-" + host
	}
	if f.printBootstrap {
		return name
	}
	return fmt.Sprintf("%s-%d", name, os.Getpid())
}
