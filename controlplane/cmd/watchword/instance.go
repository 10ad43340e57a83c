package main

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/watchword-mesh/watchword/dataplane/enrolment"
)

// joinTokenVariable holds a join token. There is no flag for it, since others
// on the host can read a command line.
const joinTokenVariable = "WATCHWORD_JOIN_TOKEN"

// instanceFlags say who a process is, and what proves it.
type instanceFlags struct {
	joinTokenFile, kubernetesTokenFile, caFile, keyFile string
}

func (f *instanceFlags) addCredential(flags *pflag.FlagSet) {
	flags.StringVar(&f.joinTokenFile, "join-token-file", "", "`FILE` with a join token (or the token itself in $"+joinTokenVariable+")")
	flags.StringVar(&f.kubernetesTokenFile, "kubernetes-token-file", "", "`FILE` with a projected token of the pod's service account, in place of a join token")
	flags.StringVar(&f.caFile, "ca-file", "", "with --kubernetes-token-file: `FILE` with the CA of the mesh, as PEM")
}

// credential is what was given, nil if nothing was.
func (f *instanceFlags) credential() (enrolment.Credential, error) {
	token := os.Getenv(joinTokenVariable)
	var given []enrolment.Credential
	if token != "" {
		given = append(given, enrolment.JoinToken(token))
	}
	if f.joinTokenFile != "" {
		given = append(given, enrolment.JoinTokenFile(f.joinTokenFile))
	}
	if f.kubernetesTokenFile != "" {
		if f.caFile == "" {
			return nil, usagef("--kubernetes-token-file needs --ca-file: such a token says nothing of the control plane, so anybody could take it")
		}
		given = append(given, enrolment.KubernetesTokenFile{File: f.kubernetesTokenFile, CAFile: f.caFile})
	}
	switch {
	case len(given) > 1:
		return nil, usagef("give one of --join-token-file, $%s and --kubernetes-token-file", joinTokenVariable)
	case len(given) == 1:
		return given[0], nil
	case f.keyFile == "":
		return nil, usagef("there is nothing that proves which service this is: give --join-token-file or $%s (`watchword join-token create` makes one), or --kubernetes-token-file", joinTokenVariable)
	}
	return nil, nil
}

// enrol waits until the control plane has said yes or no, or ctx ends.
func (f *instanceFlags) enrol(ctx context.Context, service, node, address string) (*enrolment.Identity, error) {
	credential, err := f.credential()
	if err != nil {
		return nil, err
	}
	id, err := enrolment.Enrol(ctx, enrolment.Config{Addresses: strings.Split(address, ","), Service: service, Node: node,
		Credential: credential, KeyFile: f.keyFile, Logger: instanceLog()})
	switch {
	case err == nil:
		return id, nil
	case ctx.Err() != nil:
		return nil, errors.New("interrupted before it was enrolled")
	}
	text := plainWords(err.Error())
	if errors.Is(err, enrolment.ErrRefused) {
		return nil, &failure{code: exitUnreachable, err: errors.New(text), hint: refusedHint(credential, text)}
	}
	return nil, errors.New(text)
}

// withoutJoinToken is the environment for another program.
func withoutJoinToken(env []string) []string {
	var out []string
	for _, e := range env {
		if !strings.HasPrefix(e, joinTokenVariable+"=") {
			out = append(out, e)
		}
	}
	return out
}

// checkADS looks at the addresses of the replicas of a control plane.
func checkADS(addresses string) error {
	for address := range strings.SplitSeq(addresses, ",") {
		if _, _, err := net.SplitHostPort(address); err != nil {
			return usagef("--ads %q: want HOST:PORT, of several replicas with commas between them", address)
		}
	}
	return nil
}
