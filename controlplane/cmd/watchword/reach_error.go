package main

import (
	"fmt"
	"slices"
	"strings"
)

// strangerCertificate is the way out for a certificate that was never asked for.
const strangerCertificate = "give `watchword serve` the CA that signed it with --admin-client-ca-file, or name another certificate; see docs/tls.md"

// notKnown is for a control plane that does not know who calls.
func (o *options) notKnown(message error) error {
	if o.certificate.kept() {
		return &failure{code: exitUnreachable, err: fmt.Errorf("%s asked for no client certificate of the CA that signed %s, so none was shown: %w", o.address(), o.clientCertFile, message),
			hint: strangerCertificate}
	}
	if !o.proved {
		return &failure{code: exitUnreachable, err: fmt.Errorf("%s does not know who you are: %w", o.address(), message),
			hint: "name a token with --token-file, or a client certificate with --client-cert-file and --client-key-file; docs/roles.md says what it accepts"}
	}
	return &failure{code: exitUnreachable, err: fmt.Errorf("%s refused the credential: %w", o.address(), message),
		hint: "name another one with --token-file or --client-cert-file; docs/roles.md says what it accepts"}
}

// layers are what gRPC puts before the cause of a connection's failure.
var layers = []string{"Error while dialing: ", "authentication handshake failed: ", "error reading server preface: "}

// notReachable says what was tried, and how to have it there.
func (o *options) notReachable(message string) error {
	cause := message
	for _, layer := range layers {
		if _, after, ok := strings.Cut(cause, layer); ok {
			cause = strings.TrimSuffix(after, `"`)
		}
	}
	if cause == message && !broke(message) {
		// It answered: what it needs itself is not there.
		return &failure{code: exitUnreachable, err: fmt.Errorf("the control plane at %s can't do this now: %s", o.address(), oneLine(plainWords(message))),
			hint: "try again; the log of `watchword serve` may say more"}
	}
	return &failure{code: exitUnreachable, err: fmt.Errorf("control plane not reachable at %s: %s", o.address(), oneLine(cause)),
		hint: o.wayThere(message)}
}

// broke says whether the connection broke, rather than that somebody answered.
func broke(message string) bool {
	return slices.ContainsFunc([]string{"error reading from server", "connection error", "broken pipe", "connection reset by peer"},
		func(words string) bool { return strings.Contains(message, words) })
}

// wayThere is the hint for a connection that failed.
func (o *options) wayThere(message string) string {
	hint := handshakeHint(message)
	wanted := wrongCertificate
	if o.certificate.kept() {
		wanted = strangerCertificate
	}
	switch hint {
	case "":
	case wrongCertificate:
		return wanted
	default:
		return hint
	}
	switch unix := strings.HasPrefix(o.address(), "unix:"); {
	case unix && len(o.address()) > len("unix:")+100:
		return "the path of a Unix socket can't have more than about 100 bytes: use a shorter --data-dir, or --server HOST:PORT"
	case unix && strings.Contains(message, "permission denied"):
		return "run as root or as the user that runs `watchword serve`, or use --server HOST:PORT with a credential; see docs/roles.md"
	case strings.HasPrefix(o.server, "http://") && strings.Contains(message, "server preface"):
		return "something else than an admin API without TLS answers there; if it has TLS, leave http:// out"
	case !strings.HasPrefix(o.server, "http://") && !unix && (strings.Contains(message, "broken pipe") || strings.Contains(message, "reset by peer")):
		// With TLS 1.3 a client is refused after its handshake is over, and what it
		// sends may break before it reads why.
		return "it closed the connection; if it wants a client certificate: " + wanted
	case o.server != "":
		return "is `watchword serve` running there? --server or WATCHWORD_SERVER names another place"
	}
	return fmt.Sprintf("is `watchword serve` running? start it with --data-dir %s, or name its folder with --data-dir or its address with --server", o.dataDir)
}

// handshakeHints are the ways out of what crypto/tls and crypto/x509 say, by a
// part of their words.
var handshakeHints = []struct{ words, hint string }{
	{"certificate signed by unknown authority", "name the CA of its certificate with --ca-file; the control plane's own is in ca.pem of its data folder"},
	{"certificate is valid for ", wrongName},
	{"certificate is not valid for any names", wrongName},
	{"doesn't contain any IP SANs", wrongName},
	{"has expired or is not yet valid", "compare the clocks of both machines; if they are right, its certificate has to be replaced"},
	{"remote error: tls: certificate required", wrongCertificate},
	{"remote error: tls: bad certificate", wrongCertificate},
	{"remote error: tls: unknown certificate", wrongCertificate},
	{"remote error: tls: expired certificate", wrongCertificate},
	{"does not look like a TLS handshake", "it has no TLS there: on its own machine, use --server http://HOST:PORT"},
}

const (
	wrongName        = "use a name that its certificate has, or give this one to `watchword serve` with --tls-names; a certificate of --tls-cert-file has to have it itself"
	wrongCertificate = "name a client certificate that it accepts with --client-cert-file and --client-key-file; see docs/roles.md"
)

func handshakeHint(message string) string {
	for _, h := range handshakeHints {
		if strings.Contains(message, h.words) {
			return h.hint
		}
	}
	return ""
}
