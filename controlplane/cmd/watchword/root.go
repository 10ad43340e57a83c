package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const (
	groupPolicies = "policies"
	groupPlanes   = "planes"
	groupTokens   = "tokens"
	groupAccess   = "access"
	groupServer   = "server"
)

// program is the command tree, and whether a command of it began to run: an
// error before that is wrong usage.
type program struct {
	root    *cobra.Command
	options *options
	started bool
}

func newProgram() *program {
	p := &program{options: &options{}}
	p.root = newRootCommand(p.options)
	p.prepare(p.root)
	return p
}

// newRootCommand is the command tree.
func newRootCommand(o *options) *cobra.Command {
	root := &cobra.Command{
		Use:   "watchword",
		Short: "Control plane for service-to-service authentication with JWTs",
		Long: `Watchword keeps the policies that say which service may call which, issues the
tokens that services call each other with, and tells every Envoy what to accept.
` + "`watchword serve`" + ` is the control plane; most other commands talk to it.`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddGroup(
		&cobra.Group{ID: groupPolicies, Title: "Resources:"},
		&cobra.Group{ID: groupPlanes, Title: "Data planes:"},
		&cobra.Group{ID: groupTokens, Title: "Instances and tokens:"},
		&cobra.Group{ID: groupAccess, Title: "Access and keys:"},
		&cobra.Group{ID: groupServer, Title: "This program:"},
	)
	root.SetHelpCommandGroupID(groupServer)
	root.SetCompletionCommandGroupID(groupServer)
	o.addFlags(root)
	addCommands(root, groupPolicies, newApplyCommand(o), newDiffCommand(o), newGetCommand(o), newDeleteCommand(o), newImportCommand(o), newTestCommand(o))
	addCommands(root, groupPlanes, newStatusCommand(o), newRefusalsCommand(o), newExplainCommand(o), newXDSCommand(o), newEnvoyCommand(o), newEnrolCommand(o))
	addCommands(root, groupTokens, newJoinTokenCommand(o), newInstanceCommand(o), newClientSecretCommand(o), newTokenCommand(o), newRevokeCommand(o), newRevocationsCommand(o))
	addCommands(root, groupAccess, newWhoamiCommand(o), newDoctorCommand(o), newAuditCommand(o), newKeyCommand(o), newKEKCommand(o), newAdminTokenCommand(o))
	addCommands(root, groupServer, newServeCommand(), newVersionCommand(o))
	root.AddCommand(newExitCodesTopic())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd("")
	return root
}

func addCommands(root *cobra.Command, group string, commands ...*cobra.Command) {
	for _, c := range commands {
		c.GroupID = group
		root.AddCommand(c)
	}
}

// prepare gives the whole tree what no command should have to remember: the
// environment as the second source of each flag, and the mark where wrong
// usage ends.
func (p *program) prepare(cmd *cobra.Command) {
	describeEnvironment(cmd)
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			p.started = true
			return run(cmd, args)
		}
	}
	if run := cmd.Run; run != nil {
		cmd.Run = func(cmd *cobra.Command, args []string) {
			p.started = true
			run(cmd, args)
		}
	}
	for _, sub := range cmd.Commands() {
		p.prepare(sub)
	}
}

// execute runs the command that args name, reports its error, and returns the
// exit code.
func (p *program) execute(ctx context.Context, args []string) int {
	p.root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		return readEnvironment(cmd)
	}
	p.root.SetArgs(args)
	cmd, err := p.root.ExecuteContextC(ctx)
	if err != nil && !p.started {
		err = usageError{err}
	}
	return report(cmd, err)
}

// options are the flags that all commands share.
type options struct {
	server    string
	dataDir   string
	tokenFile string
	caFile    string
	// A client certificate and its key; both or none.
	clientCertFile, clientKeyFile string
	output                        format
	noColor                       bool
	timeout                       time.Duration

	certificate *clientCertificate
	// proved says whether a call had a token or a client certificate.
	proved bool
}

func (o *options) addFlags(root *cobra.Command) {
	o.output = formatTable
	flags := root.PersistentFlags()
	flags.StringVar(&o.server, "server", "", "`ADDRESS` of the admin API: HOST:PORT with TLS, http://HOST:PORT of loopback without, or unix:PATH (default unix:DATA-DIR/admin.sock)")
	flags.StringVar(&o.dataDir, "data-dir", "watchword-data", "`DIR` where serve keeps its data, the admin socket, the admin token and the certificate of its CA")
	flags.StringVar(&o.tokenFile, "token-file", "", "`FILE` with a token for the admin API (default DATA-DIR/admin.token if it is there, but none at a Unix socket or with a client certificate)")
	flags.StringVar(&o.caFile, "ca-file", "", "`FILE` with the CA of the control plane's certificate (default DATA-DIR/ca.pem if it is there, else the system's CAs)")
	flags.StringVar(&o.clientCertFile, "client-cert-file", "", "`FILE` with a client certificate for the admin API")
	flags.StringVar(&o.clientKeyFile, "client-key-file", "", "`FILE` with the private key of that certificate")
	flags.VarP(&o.output, "output", "o", "`FORMAT` of what is printed: "+strings.Join(formatNames(), ", "))
	flags.BoolVar(&o.noColor, "no-color", false, "no colours on a terminal (NO_COLOR does the same)")
	addDuration(flags, &o.timeout, "timeout", 10*time.Second, "longest wait for one answer of the control plane")
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formatNames(), cobra.ShellCompDirectiveNoFileComp)))
	must(root.MarkPersistentFlagDirname("data-dir"))
	for _, name := range []string{"token-file", "ca-file", "client-cert-file", "client-key-file"} {
		must(root.MarkPersistentFlagFilename(name))
	}
}

// noArguments refuses arguments, with the way out for those that users expect
// to work.
func noArguments(hint string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return fmt.Errorf("unexpected argument %q%s", args[0], hint)
	}
}

// must is for what only a mistake in this package can break, at start.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
