package main

import (
	"fmt"
	"net/netip"
	"os"

	"github.com/spf13/cobra"

	"github.com/watchword-mesh/watchword/controlplane"
	"github.com/watchword-mesh/watchword/controlplane/envoy"
	"github.com/watchword-mesh/watchword/internal/identity"
)

type envoyFlags struct {
	instanceFlags
	service, node, ads, admin, binary string
	identityDir, trustDomain          string
	concurrency                       int
	printBootstrap, printFilters      bool
}

func newEnvoyCommand(o *options) *cobra.Command {
	var flags envoyFlags
	cmd := &cobra.Command{
		Use:   "envoy --service SERVICE [-- ENVOY-ARGUMENT...]",
		Short: "Run an Envoy that protects a service",
		Long: `Enrols this host as an instance of the service, writes a bootstrap and runs Envoy
with it in the foreground, until Envoy ends. SIGINT and SIGTERM go to Envoy, and its
exit code is that of this command. What comes after -- goes to Envoy as it is.

A join token proves once which service this is. From then on the instance has a
key, which is in memory alone unless --key-file is given, and a certificate, which
this command renews while Envoy runs and hands to it over a Unix socket.

With --envoy-admin this command serves what Envoy's admin interface shows, without
secrets: it can be read, and nothing can be changed.

For an Envoy that somebody else owns, --print-filters prints the HTTP filters to
put before its router, and --print-bootstrap a whole bootstrap to start from. Both
have the certificate from the folder where ` + "`watchword enrol`" + ` keeps it.`,
		Example: `  watchword envoy --service orders --join-token-file orders.token
  watchword envoy --service orders --envoy-admin 127.0.0.1:9901 -- --log-level info
  watchword envoy --service orders --print-filters`,
		Args: envoyArguments,
		RunE: func(cmd *cobra.Command, args []string) error { return runEnvoyCommand(cmd, &flags, args) },
	}
	o.addServiceFlag(cmd, &flags.service, "`SERVICE` to protect")
	f := cmd.Flags()
	f.StringVar(&flags.node, "node", "", "`NAME` of this Envoy in status (default SERVICE-HOSTNAME-PID)")
	f.StringVar(&flags.ads, "ads", "127.0.0.1:7401", "`HOST:PORT,...` where the control plane serves ADS")
	flags.addCredential(f)
	f.StringVar(&flags.keyFile, "key-file", "", "`FILE` to keep key and certificate in, so that a restart is the same instance and needs no join token (default: in memory alone)")
	f.StringVar(&flags.admin, "envoy-admin", "", "`IP:PORT` on loopback where Envoy's admin interface can be read (default none)")
	f.StringVar(&flags.binary, "envoy", "", "`PATH` of the Envoy binary (default $ENVOY, else envoy on the PATH)")
	f.IntVar(&flags.concurrency, "concurrency", 0, "`N` worker threads of Envoy (default one for each core)")
	f.BoolVar(&flags.printBootstrap, "print-bootstrap", false, "print the bootstrap as YAML and run nothing")
	f.BoolVar(&flags.printFilters, "print-filters", false, "print the HTTP filters as YAML and run nothing")
	f.StringVar(&flags.identityDir, "identity-dir", "/var/lib/watchword/identity", "with --print-*: `DIR` where watchword enrol keeps the certificate")
	f.StringVar(&flags.trustDomain, "trust-domain", controlplane.DefaultTrustDomain, "with --print-*: trust domain of the mesh")
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
	inFolder := &envoy.BootstrapIdentity{TrustDomain: flags.trustDomain, Folder: flags.identityDir}
	if flags.printFilters {
		return printOwn(cmd)(envoy.Filters(flags.service, inFolder))
	}
	if err := flags.check(); err != nil {
		return err
	}
	if flags.printBootstrap {
		return printOwn(cmd)(envoy.Bootstrap(envoy.BootstrapOptions{
			Node: flags.nodeName(), Service: flags.service, ADSAddress: flags.ads, AdminAddress: flags.admin, Identity: inFolder}))
	}
	binary, err := flags.find()
	if err != nil {
		return err
	}
	// Before a join token is used up for nothing.
	if err := checkEnvoy(cmd.Context(), binary, versionTimeout); err != nil {
		return err
	}
	return runProtected(cmd.Context(), flags, binary, args)
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

func (f *envoyFlags) check() error {
	if !identity.IsName(f.service) {
		return usagef("--service %q is not the name of a Service: lower-case letters, digits and dashes", f.service)
	}
	if f.concurrency < 0 {
		return usagef("--concurrency %d: want at least 1", f.concurrency)
	}
	if err := checkADS(f.ads); err != nil {
		return err
	}
	if f.admin == "" {
		return nil
	}
	at, err := netip.ParseAddrPort(f.admin)
	if err != nil {
		return usagef("--envoy-admin %q: want IP:PORT", f.admin)
	}
	// Who reaches it can see whom the service talks to.
	if !at.Addr().IsLoopback() {
		return usagef("--envoy-admin %s: it has no authentication; use a loopback address", f.admin)
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
