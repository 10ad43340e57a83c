package main

import (
	"errors"
	"os"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/watchword-mesh/watchword/controlplane"
)

// serveFlags are the flags of serve beside the configuration itself.
type serveFlags struct {
	config    controlplane.Config
	logLevel  string
	logFormat string
}

func newServeCommand() *cobra.Command {
	f := &serveFlags{}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the control plane",
		Long: `Run the control plane: admin API, ADS for data planes, token service, health
and metrics. It keeps everything in an etcd inside the process, in --data-dir,
or in the etcd cluster that --etcd-endpoints names.

The first start makes the signing key, the key-encryption key (DATA-DIR/kek,
unless --kek-file, WATCHWORD_KEK or --kek-exec gives another: keep a copy,
without it nothing can be read), the CA of the mesh (its certificate is in
DATA-DIR/ca.pem) and the admin token (DATA-DIR/admin.token), which is there
until roles replace it.

Every listener has TLS, with a certificate of that CA or the one of
--tls-cert-file. Only a loopback address may go without: http://HOST:PORT.`,
		Example: `  watchword serve
  watchword serve --data-dir /var/lib/watchword --etcd-endpoints https://etcd-0:2379,https://etcd-1:2379`,
		Args: noArguments(""),
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd, f) },
	}
	c, flags := &f.config, cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&c.AdminListen, "admin-listen", controlplane.DefaultAdminListen, "`HOST:PORT` of the admin API")
	flags.StringVar(&c.XDSListen, "xds-listen", controlplane.DefaultXDSListen, "`HOST:PORT` of ADS and enrolment, for data planes")
	flags.StringVar(&c.STSListen, "sts-listen", controlplane.DefaultSTSListen, "`HOST:PORT` of the token service")
	flags.StringVar(&c.OpsListen, "ops-listen", controlplane.DefaultOpsListen, "`HOST:PORT` of /livez, /readyz and /metrics")
	flags.StringVar(&c.AdminSocket, "admin-socket", "", "`PATH` of a Unix socket of the admin API for all users of this machine, whose names decide (default DATA-DIR/admin.sock, for the user of the control plane and root)")
	flags.StringVar(&c.TLSCertFile, "tls-cert-file", "", "`FILE` with the certificate of admin API, token service and health, read again when it changes (default one of the mesh's CA)")
	flags.StringVar(&c.TLSKeyFile, "tls-key-file", "", "`FILE` with the key of that certificate")
	flags.StringSliceVar(&c.TLSNames, "tls-names", nil, "more `NAMES` and addresses for certificates of the mesh's CA, with commas")
	flags.StringVar(&c.AdminClientCAFile, "admin-client-ca-file", "", "`FILE` with the CA of client certificates that RoleBindings name")
	flags.StringVar(&c.IssuerURL, "issuer-url", "", "`URL` in the iss of issued tokens, fixed at the first start (default https://STS-LISTEN)")
	flags.StringVar(&c.TrustDomain, "trust-domain", "", "trust domain of the SPIFFE IDs in sub, fixed at the first start (default "+controlplane.DefaultTrustDomain+")")
	flags.StringVar(&c.KEKFile, "kek-file", "", "`FILE` with the key-encryption key, 32 random bytes in base64 (default DATA-DIR/kek, or WATCHWORD_KEK)")
	flags.StringVar(&c.KEKExec, "kek-exec", "", "`COMMAND` that wraps and unwraps the key-encryption key, such as by a KMS; a key of another source beside it only opens what was sealed before")
	flags.StringSliceVar(&c.Etcd.Endpoints, "etcd-endpoints", nil, "`URLS` of an etcd cluster, with commas; none: etcd runs inside this process")
	flags.StringVar(&c.Etcd.Prefix, "etcd-prefix", "/watchword/", "`PREFIX` of all keys in etcd")
	flags.StringVar(&c.Etcd.CAFile, "etcd-ca-file", "", "`FILE` with the CA of etcd's certificates")
	flags.StringVar(&c.Etcd.CertFile, "etcd-cert-file", "", "`FILE` with the client certificate for etcd")
	flags.StringVar(&c.Etcd.KeyFile, "etcd-key-file", "", "`FILE` with the key of that certificate")
	flags.StringVar(&c.Etcd.Username, "etcd-username", "", "user name for etcd")
	flags.StringVar(&c.Etcd.PasswordFile, "etcd-password-file", "", "`FILE` with the password for etcd")
	flags.StringVar(&c.AdvertiseAddress, "advertise-address", "", "HOST:PORT where other replicas reach the address of --xds-listen (default that, with the name of this host)")
	flags.BoolVar(&c.KongSecretIsBase64, "kong-secret-is-base64", false, "secrets that come through Kong's admin API are base64, unless a request says")
	flags.StringVar(&f.logLevel, "log-level", "info", "least `LEVEL` that is logged: trace, debug, info, warn, error")
	flags.StringVar(&f.logFormat, "log-format", "text", "`FORMAT` of the log on stderr: text or json")
	return cmd
}

func serve(cmd *cobra.Command, f *serveFlags) error {
	log, err := f.logger(cmd)
	if err != nil {
		return err
	}
	c := f.config
	c.Logger = log
	c.Version = buildVersion().Version
	c.KEK = os.Getenv("WATCHWORD_KEK")
	if c.DataDir, err = cmd.Flags().GetString("data-dir"); err != nil {
		return err
	}
	err = controlplane.Run(cmd.Context(), c)
	if wrong := (*controlplane.ConfigError)(nil); errors.As(err, &wrong) {
		return usageError{err}
	}
	if err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

func (f *serveFlags) logger(cmd *cobra.Command) (hclog.Logger, error) {
	level := hclog.LevelFromString(f.logLevel)
	if level == hclog.NoLevel {
		return nil, usagef("--log-level %q: wants trace, debug, info, warn or error", f.logLevel)
	}
	if f.logFormat != "text" && f.logFormat != "json" {
		return nil, usagef("--log-format %q: wants text or json", f.logFormat)
	}
	return hclog.New(&hclog.LoggerOptions{
		Name:       "watchword",
		Level:      level,
		Output:     cmd.ErrOrStderr(),
		JSONFormat: strings.EqualFold(f.logFormat, "json"),
	}), nil
}
