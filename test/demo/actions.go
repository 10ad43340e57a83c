package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
)

// action is what a step does.
type action interface {
	// commands are what a user would type for it.
	commands(m *mesh) []string
	// run does it and says how it came out. An error means that there is no
	// outcome.
	run(ctx context.Context, m *mesh) (string, error)
}

// apply writes a manifest, or a folder of them, and waits for the ACKs.
type apply struct{ file string }

func (a apply) commands(*mesh) []string {
	return []string{"watchword apply -f " + a.file + " --wait"}
}

func (a apply) run(ctx context.Context, m *mesh) (string, error) {
	return m.lastLine(ctx, "apply", "-f", m.path(a.file), "--wait")
}

// remove deletes a resource and waits for the ACKs.
type remove struct{ kind, name string }

func (a remove) commands(*mesh) []string {
	return []string{"watchword delete " + a.kind + " " + a.name + " --wait"}
}

func (a remove) run(ctx context.Context, m *mesh) (string, error) {
	return m.lastLine(ctx, "delete", a.kind, a.name, "--wait")
}

type startControlPlane struct{}

func (startControlPlane) commands(*mesh) []string { return []string{"watchword serve"} }

func (startControlPlane) run(ctx context.Context, m *mesh) (string, error) {
	return "ready", m.serve(ctx)
}

// killControlPlane gives it no chance to say goodbye.
type killControlPlane struct{}

func (killControlPlane) commands(m *mesh) []string {
	return []string{fmt.Sprintf("kill -KILL %d; watchword status", m.controlPlane.pid())}
}

func (killControlPlane) run(ctx context.Context, m *mesh) (string, error) {
	if err := m.controlPlane.end(syscall.SIGKILL); err != nil {
		return "", err
	}
	_, err := m.cli(ctx, "status")
	var exit *exitError
	switch {
	case err == nil:
		return "killed, and yet status answers", nil
	case errors.As(err, &exit) && exit.code == exitUnreachable:
		return fmt.Sprintf("killed; status ends with exit code %d, not reachable", exit.code), nil
	}
	return "", err
}

// restartControlPlane starts it on the same data and waits until all data
// planes are in sync again.
type restartControlPlane struct{ dataPlanes int }

func (restartControlPlane) commands(*mesh) []string {
	return []string{"watchword serve", "watchword status"}
}

func (a restartControlPlane) run(ctx context.Context, m *mesh) (string, error) {
	if err := m.serve(ctx); err != nil {
		return "", err
	}
	return m.inSync(ctx, a.dataPlanes)
}

// startEnvoys starts one for each of the services and waits until they are in
// sync and their ports are open.
type startEnvoys []string

func (a startEnvoys) commands(*mesh) []string {
	var out []string
	for _, service := range a {
		out = append(out, "WATCHWORD_JOIN_TOKEN=$(watchword join-token create --service "+service+") watchword envoy --service "+service)
	}
	return append(out, "watchword status")
}

func (a startEnvoys) run(ctx context.Context, m *mesh) (string, error) {
	for _, service := range a {
		if err := m.startEnvoy(ctx, service); err != nil {
			return "", err
		}
	}
	for _, service := range a {
		if err := m.listening(ctx, "envoy-"+service, m.ports[service]); err != nil {
			return "", err
		}
	}
	return m.inSync(ctx, len(a))
}

// enrolOwnEnvoy gets a certificate for an Envoy that somebody else owns.
type enrolOwnEnvoy struct{}

func (enrolOwnEnvoy) commands(*mesh) []string {
	return []string{"watchword join-token create --service orders > join-token", "watchword enrol --service orders --dir own-identity --join-token-file join-token"}
}

func (enrolOwnEnvoy) run(ctx context.Context, m *mesh) (string, error) {
	return "enrolled", m.enrolOwnEnvoy(ctx)
}

// startOwnEnvoy starts an Envoy that somebody else owns, and asks it.
type startOwnEnvoy struct{ ask request }

func (a startOwnEnvoy) commands(m *mesh) []string {
	return append([]string{
		"watchword envoy --service orders --print-filters   # for own-envoy.yaml",
		"envoy -c own-envoy.yaml"}, a.ask.commands(m)...)
}

func (a startOwnEnvoy) run(ctx context.Context, m *mesh) (string, error) {
	if err := m.startOwnEnvoy(ctx); err != nil {
		return "", err
	}
	if err := m.listening(ctx, "envoy-own", m.ports["own"]); err != nil {
		return "", err
	}
	return a.ask.run(ctx, m)
}

// askToken asks the token endpoint as the caller would.
type askToken struct{ token token }

func (a askToken) commands(m *mesh) []string {
	return []string{
		fmt.Sprintf("curl --cacert ca.pem -d grant_type=client_credentials -d audience=%s -d client_assertion=$ASSERTION ... %s   # signed with the key that %s enrolled",
			a.token.audience, m.tokenURL(), a.token.caller),
	}
}

func (a askToken) run(ctx context.Context, m *mesh) (string, error) {
	g, err := m.tokens.ask(ctx, a.token)
	switch {
	case err != nil:
		return "", err
	case g.Error != "":
		return g.refusal(), nil
	}
	return fmt.Sprintf("%d, a %s token for %d s", g.status, g.TokenType, g.ExpiresIn), nil
}

func (r request) commands(m *mesh) []string {
	words := []string{"curl"}
	if r.method != "" {
		words = append(words, "-X", r.method)
	}
	switch {
	case r.token.byOperator:
		words = append(words, fmt.Sprintf(`-H "Authorization: Bearer $(watchword token --service %s --audience %s)"`, r.token.caller, r.token.audience))
	case r.token != token{}:
		words = append(words, `-H "Authorization: Bearer $TOKEN"`)
	}
	if r.pretend != "" {
		words = append(words, fmt.Sprintf(`-H "%s: %s"`, callerHeader, r.pretend))
	}
	return []string{strings.Join(append(words, m.url(r)), " ")}
}

func (r request) run(ctx context.Context, m *mesh) (string, error) {
	c := newConnection(http1)
	defer c.close()
	return c.outcome(ctx, m, r)
}

// kept sends a request over each of the two connections that stay open.
type kept struct {
	request
	// times on each connection; 0 means once.
	times int
}

func (a kept) commands(m *mesh) []string {
	return []string{a.request.commands(m)[0] + "   # one connection of HTTP/1.1, one of HTTP/2"}
}

func (a kept) run(ctx context.Context, m *mesh) (string, error) {
	var outcomes []string
	for _, c := range m.kept {
		for range max(a.times, 1) {
			got, err := c.outcome(ctx, m, a.request)
			if err != nil {
				return "", fmt.Errorf("%s: %w", c.protocol, err)
			}
			outcomes = append(outcomes, fmt.Sprintf("%s: %s, %s", c.protocol, got, count(c.dialled(), "TCP connection")))
		}
	}
	return inShort(outcomes), nil
}

// inShort says once what both protocols have in common.
func inShort(outcomes []string) string {
	distinct := make(map[string]bool)
	for _, o := range outcomes {
		_, o, _ = strings.Cut(o, ": ")
		distinct[o] = true
	}
	if len(distinct) == 1 {
		for o := range distinct {
			return http1 + " and " + http2 + ": " + o + " each"
		}
	}
	return strings.Join(unique(outcomes), "; ")
}
