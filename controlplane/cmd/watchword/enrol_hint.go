package main

import (
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"

	"github.com/watchword-mesh/watchword/dataplane/enrolment"
)

// portHint is the way out of an address at which somebody else answers, or nobody.
const portHint = "--ads names the port of ADS and enrolment, 7401 by default"

// otherPort are words of what answers at the other ports of the control plane.
var otherPort = []string{"does not look like a TLS handshake", "this call needs a credential", "unexpected HTTP status code", "unknown service"}

// placeHint is the way out of an error that is about where was asked; it is empty
// for other errors.
func placeHint(text string) string {
	if slices.ContainsFunc(otherPort, func(words string) bool { return strings.Contains(text, words) }) {
		return portHint
	}
	if strings.Contains(text, "connection refused") {
		return "is `watchword serve` running there? " + portHint
	}
	return ""
}

// refusedHint is the way out for who is not let in with a credential.
func refusedHint(credential enrolment.Credential, text string) string {
	if hint := placeHint(text); hint != "" {
		return hint
	}
	stranger := strings.Contains(text, "the server is not the control plane")
	switch credential.(type) {
	case enrolment.KubernetesTokenFile:
		if stranger || strings.Contains(text, "the CA of the mesh") {
			return "--ca-file is for the CA of the mesh, which is ca.pem in the data folder of this control plane, not for the CA of the cluster; " + portHint
		}
		return "spec.bootstrap.kubernetes of the Service must name issuer, namespace and service account, and the token must be for its audience; see docs/enrolment.md"
	case nil:
		if stranger {
			return "the key file is of another mesh; " + portHint
		}
		return "the key of the file is not enrolled any more: remove the file, and give a join token (`watchword join-token create` makes one)"
	}
	if stranger {
		return "a join token is for one mesh: `watchword join-token create` makes one of this; " + portHint
	}
	return "a join token is for one service and one mesh, a number of uses and a time; `watchword join-token create` makes a new one"
}

// instanceLog says on standard error what an operator has to know.
func instanceLog() hclog.Logger {
	return instanceLogger{hclog.New(&hclog.LoggerOptions{Name: "watchword", Level: hclog.Warn, Output: os.Stderr})}
}

// instanceLogger says errors in plain words, and the way out if there is one.
type instanceLogger struct{ hclog.Logger }

func (l instanceLogger) Warn(message string, args ...any) { l.Logger.Warn(message, plainArgs(args)...) }
func (l instanceLogger) Error(message string, args ...any) {
	l.Logger.Error(message, plainArgs(args)...)
}

func plainArgs(args []any) []any {
	out, hint := slices.Clone(args), ""
	for i, arg := range out {
		if err, ok := arg.(error); ok {
			text := plainWords(err.Error())
			out[i], hint = errors.New(text), placeHint(text)
		}
	}
	if hint != "" {
		out = append(out, "hint", hint)
	}
	return out
}
