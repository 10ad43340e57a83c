package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/watchword-mesh/watchword/controlplane/envoy"
	"github.com/watchword-mesh/watchword/dataplane/enrolment"
	"github.com/watchword-mesh/watchword/internal/identity"
)

type enrolFlags struct {
	instanceFlags
	service, node, ads, dir string
	renew                   bool
}

func newEnrolCommand(o *options) *cobra.Command {
	var flags enrolFlags
	cmd := &cobra.Command{
		Use:   "enrol --service SERVICE --dir DIR",
		Short: "Get a certificate for an Envoy that somebody else runs, or another program",
		Long: `Enrols this host as an instance of a service, and keeps in a folder:

  key.pem           the private key, with what a restart needs (mode 0600)
  cert.pem          the certificate of the instance
  ca.pem            what the control plane's certificate must come from
  identity.yaml, authorities.yaml   for Envoy, which reads these files again when
                    one is moved in place (see watchword envoy --print-bootstrap)

A certificate lives for an hour. With --renew the command goes on, and puts each new
one in place in time, until it is ended. A folder that holds the key of an instance
already needs no join token any more.`,
		Example: `  watchword enrol --service orders --dir /var/lib/watchword/identity --join-token-file orders.token --renew`,
		Args:    noArguments(""),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runEnrol(cmd, &flags) },
	}
	o.addServiceFlag(cmd, &flags.service, "`SERVICE` that this is an instance of")
	f := cmd.Flags()
	f.StringVar(&flags.dir, "dir", "", "`DIR` to keep the files in; made with mode 0700 if it is not there")
	f.StringVar(&flags.node, "node", "", "`NAME` of this instance for people (default the host's)")
	f.StringVar(&flags.ads, "ads", "127.0.0.1:7401", "`HOST:PORT,...` where the control plane serves ADS")
	flags.addCredential(f)
	f.BoolVar(&flags.renew, "renew", false, "stay, and renew the certificate until ended")
	must(cmd.MarkFlagRequired("dir"))
	must(cmd.MarkFlagDirname("dir"))
	return cmd
}

func runEnrol(cmd *cobra.Command, f *enrolFlags) error {
	if !identity.IsName(f.service) {
		return usagef("--service %q is not the name of a Service: lower-case letters, digits and dashes", f.service)
	}
	if err := checkADS(f.ads); err != nil {
		return err
	}
	dir, err := filepath.Abs(f.dir)
	if err == nil {
		err = makePrivateDir(dir)
	}
	if err != nil {
		return fmt.Errorf("--dir %s: %w", f.dir, err)
	}
	f.keyFile = filepath.Join(dir, envoy.KeyFile)
	if f.node == "" {
		f.node, _ = os.Hostname() // a label, which may be empty
	}
	ctx := cmd.Context()
	id, err := f.enrol(ctx, f.service, f.node, f.ads)
	if err != nil {
		return err
	}
	if err := writeIdentity(dir, id); err != nil {
		return err
	}
	fmt.Fprintf(cmd.OutOrStdout(), "instance %s of service %s, in %s, until %s\n", id.Instance(), id.Service(), dir, id.Expires().UTC().Format("2006-01-02 15:04:05Z"))
	if !f.renew {
		return nil
	}
	return keepIdentity(ctx, dir, id)
}

// makePrivateDir makes a folder, or takes one in which nobody else can put files.
func makePrivateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(dir)
	if err == nil && info.Mode().Perm()&0o022 != 0 {
		err = fmt.Errorf("others can put files there (mode %04o): chmod 700 it", info.Mode().Perm())
	}
	return err
}

// keepIdentity puts each new certificate in place, until ctx ends.
func keepIdentity(ctx context.Context, dir string, id *enrolment.Identity) error {
	ended := make(chan error, 1)
	go func() { ended <- id.Run(ctx) }()
	for {
		select {
		case <-id.Changed():
			if err := writeIdentity(dir, id); err != nil {
				instanceLog().Error("the new certificate is not in place; the old one ends soon", "error", err, "expires", id.Expires())
			}
		case err := <-ended:
			if ctx.Err() != nil {
				return nil // it was ended, as it was to be
			}
			return err
		}
	}
}

// writeIdentity writes what is there beside the key. The certificate is last:
// when it is there, so is all that it needs.
func writeIdentity(dir string, id *enrolment.Identity) error {
	files, err := envoy.FileSecrets(dir)
	if err != nil {
		return err
	}
	chain, _ := id.Certificate()
	var authorities [][]byte
	for _, c := range id.Authorities() {
		authorities = append(authorities, c.Raw)
	}
	for name, text := range files {
		if err := replaceFile(filepath.Join(dir, name), text); err != nil {
			return err
		}
	}
	return errors.Join(
		replaceFile(filepath.Join(dir, envoy.AuthoritiesFile), certificatesPEM(authorities)),
		replaceFile(filepath.Join(dir, envoy.CertificateFile), certificatesPEM(chain)),
	)
}
