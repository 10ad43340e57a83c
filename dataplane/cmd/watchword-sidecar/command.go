package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"

	"github.com/watchword-mesh/watchword/dataplane"
	"github.com/watchword-mesh/watchword/dataplane/enrolment"
	"github.com/watchword-mesh/watchword/dataplane/proxy"
)

// joinTokenVariable is an environment variable, which other users of the host can't
// see, unlike flags.
const joinTokenVariable = "WATCHWORD_JOIN_TOKEN"

type flags struct {
	service, node                         string
	ads                                   []string
	joinTokenFile, kubernetesTokenFile    string
	caFile, keyFile                       string
	cacheFile                             string
	cacheSecrets                          bool
	listen, upstream, protocol, tls       string
	outboundListen, opsListen             string
	passUnknown                           bool
	maxBody, maxForm                      int64
	maxConnections                        int
	drain, upstreamTimeout, clientTimeout time.Duration
	logLevel, logFormat                   string
}

func newCommand() *cobra.Command {
	f := new(flags)
	cmd := &cobra.Command{
		Use:   "watchword-sidecar --service SERVICE",
		Short: "Protect a service, and add tokens to its calls",
		Long: `Enrols this host as an instance of the service, takes the service's requests as its
policies say, and forwards what they let in. Requests that the service makes through
the outbound listener get a token each.

Where it listens is what the Service says in spec.inbound and spec.outbound, or what
the flags say. Until it has its ruleset, it refuses every request with 503.

A program needs no line of code for its calls: start it with
http_proxy=http://ADDRESS of the outbound listener, and let it call http://SERVICE/.`,
		Example: `  watchword-sidecar --service orders --join-token-file orders.token
  watchword-sidecar --service orders --listen 0.0.0.0:8443 --tls mesh --upstream unix:/run/orders.sock
  watchword-sidecar --service reports --outbound-listen 127.0.0.1:15001`,
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := f.sidecar(cmd)
			if err != nil {
				return err
			}
			return s.run(cmd.Context())
		},
	}
	f.add(cmd)
	return cmd
}

func (f *flags) add(cmd *cobra.Command) {
	to := cmd.Flags()
	to.StringVar(&f.service, "service", "", "`SERVICE` to protect")
	to.StringVar(&f.node, "node", "", "`NAME` of this data plane in status (default SERVICE-HOSTNAME-PID)")
	to.StringSliceVar(&f.ads, "ads", []string{"127.0.0.1:7401"}, "`HOST:PORT,...` where the control plane serves ADS")
	to.StringVar(&f.joinTokenFile, "join-token-file", "", "`FILE` with a join token (or the token itself in $"+joinTokenVariable+")")
	to.StringVar(&f.kubernetesTokenFile, "kubernetes-token-file", "", "`FILE` with a projected token of the pod's service account, in place of a join token")
	to.StringVar(&f.caFile, "ca-file", "", "with --kubernetes-token-file: `FILE` with the CA of the mesh, as PEM")
	to.StringVar(&f.keyFile, "key-file", "", "`FILE` to keep key and certificate in, so that a restart is the same instance (default: in memory alone)")
	to.StringVar(&f.cacheFile, "cache-file", "", "`FILE` to keep the last accepted configuration in, for a start without control plane (default none)")
	to.BoolVar(&f.cacheSecrets, "cache-secrets", false, "keep shared secrets in --cache-file, too")
	to.StringVar(&f.listen, "listen", "", "`ADDRESS` to take requests on, HOST:PORT or unix:PATH (default: spec.inbound of the Service)")
	to.StringVar(&f.upstream, "upstream", "", "with --listen: `ADDRESS` of the service itself, HOST:PORT, unix:PATH or https://HOST:PORT")
	to.StringVar(&f.protocol, "protocol", "auto", "with --listen: what the service speaks, `auto|http1|http2`; auto is what the caller speaks")
	to.StringVar(&f.tls, "tls", "none", "with --listen: what callers have to speak, `none|mesh`; mesh is TLS with the certificate of the instance")
	to.StringVar(&f.outboundListen, "outbound-listen", "", "loopback `ADDRESS` to take the service's own requests on, HOST:PORT or unix:PATH (default: spec.outbound of the Service)")
	to.BoolVar(&f.passUnknown, "pass-unknown", false, "forward the service's requests to hosts that are no callee, without a token (default: refuse them)")
	to.StringVar(&f.opsListen, "ops-listen", "127.0.0.1:7409", "`HOST:PORT` for /livez, /readyz and /metrics; empty for none")
	to.Int64Var(&f.maxBody, "max-body", 0, "largest body of a request, in `BYTES`; 0 is no limit")
	to.Int64Var(&f.maxForm, "max-form", 1<<20, "largest form that is read for a token or for claims, in `BYTES`")
	to.IntVar(&f.maxConnections, "max-connections", 10000, "`N` connections of callers at a time")
	to.DurationVar(&f.drain, "drain", 30*time.Second, "`TIME` that requests have to end after SIGTERM")
	to.DurationVar(&f.upstreamTimeout, "upstream-timeout", 0, "`TIME` that the service has to begin its answer; 0 is no limit")
	to.DurationVar(&f.clientTimeout, "client-timeout", 30*time.Second, "`TIME` that a caller may send nothing of a body, or take nothing of an answer")
	to.StringVar(&f.logLevel, "log-level", "info", "`trace|debug|info|warn|error`")
	to.StringVar(&f.logFormat, "log-format", "text", "`text|json`")
}

// check gives all faults at once.
func (f *flags) check() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if f.service == "" {
		fault("--service is missing: name the Service that this sidecar protects")
	}
	for _, a := range f.ads {
		if _, _, err := net.SplitHostPort(a); err != nil {
			fault("--ads %q: want HOST:PORT", a)
		}
	}
	if (f.listen == "") != (f.upstream == "") {
		fault("--listen and --upstream go together; without both, spec.inbound of the Service counts")
	}
	if _, ok := protocols[f.protocol]; !ok {
		fault("--protocol %q: want auto, http1 or http2", f.protocol)
	}
	if f.tls != "none" && f.tls != "mesh" {
		fault("--tls %q: want none or mesh", f.tls)
	}
	if f.outboundListen != "" && !strings.HasPrefix(f.outboundListen, "unix:") {
		if a, err := netip.ParseAddrPort(f.outboundListen); err != nil || !a.Addr().IsLoopback() {
			fault("--outbound-listen %q: want IP:PORT on loopback, or unix:PATH: whoever reaches it is the service", f.outboundListen)
		}
	}
	if hclog.LevelFromString(f.logLevel) == hclog.NoLevel {
		fault("--log-level %q: want trace, debug, info, warn or error", f.logLevel)
	}
	if f.logFormat != "text" && f.logFormat != "json" {
		fault("--log-format %q: want text or json", f.logFormat)
	}
	return errors.Join(faults...)
}

var protocols = map[string]proxy.Protocol{"auto": proxy.Auto, "http1": proxy.HTTP1, "http2": proxy.HTTP2}

func (f *flags) credential() (enrolment.Credential, error) {
	var given []enrolment.Credential
	if token := os.Getenv(joinTokenVariable); token != "" {
		given = append(given, enrolment.JoinToken(token))
	}
	if f.joinTokenFile != "" {
		given = append(given, enrolment.JoinTokenFile(f.joinTokenFile))
	}
	if f.kubernetesTokenFile != "" {
		if f.caFile == "" {
			return nil, errors.New("--kubernetes-token-file needs --ca-file: such a token says nothing of the control plane, so anybody could take it")
		}
		given = append(given, enrolment.KubernetesTokenFile{File: f.kubernetesTokenFile, CAFile: f.caFile})
	}
	switch {
	case len(given) > 1:
		return nil, fmt.Errorf("give one of --join-token-file, --kubernetes-token-file and $%s", joinTokenVariable)
	case len(given) == 1:
		return given[0], nil
	case f.keyFile == "":
		return nil, fmt.Errorf("there is nothing that proves which service this is: give --join-token-file or $%s (`watchword join-token create` makes one), or --kubernetes-token-file", joinTokenVariable)
	}
	return nil, nil
}

func (f *flags) sidecar(cmd *cobra.Command) (*sidecar, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	credential, err := f.credential()
	if err != nil {
		return nil, err
	}
	log := hclog.New(&hclog.LoggerOptions{
		Name: "watchword-sidecar", Level: hclog.LevelFromString(f.logLevel), Output: cmd.ErrOrStderr(), JSONFormat: f.logFormat == "json",
	})
	return &sidecar{flags: f, log: log, config: dataplane.Config{
		Addresses: f.ads, Service: f.service, Node: f.node, Agent: dataplane.AgentSidecar,
		Credential: credential, KeyFile: f.keyFile, File: f.cacheFile, FileSecrets: f.cacheSecrets,
		MaxFormBytes: f.maxForm, Logger: log,
	}}, nil
}
