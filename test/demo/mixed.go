package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// mixed are the three services of the mixed mesh, and what is in front of each.
var mixed = []string{"web", "ledger", "mailer"}

// startMixed starts the programs of the mixed mesh, with what protects them.
type startMixed struct{ dataPlanes int }

func (startMixed) commands(m *mesh) []string {
	join := "WATCHWORD_JOIN_TOKEN=$(watchword join-token create --service "
	return []string{
		join + "web) watchword envoy --service web",
		"http_proxy=http://" + m.ports.address("web-out") + " plain web " + m.ports.address("web-program"),
		join + "ledger) linked ledger ...   # with the Go library",
		join + "mailer) watchword-sidecar --service mailer",
		"http_proxy=http://" + m.ports.address("mailer-out") + " plain mailer " + m.ports.address("mailer-program"),
	}
}

func (a startMixed) run(ctx context.Context, m *mesh) (string, error) {
	if err := m.startEnvoy(ctx, "web"); err != nil {
		return "", err
	}
	for _, service := range []string{"ledger", "mailer"} {
		if err := m.startGo(ctx, service); err != nil {
			return "", err
		}
	}
	for _, service := range []string{"web", "mailer"} {
		proxy := "http_proxy=http://" + m.ports.address(service+"-out")
		if err := m.start("plain-"+service, []string{proxy, "HTTP_PROXY=", "no_proxy="}, m.program("demo-plain"), service, m.ports.address(service+"-program")); err != nil {
			return "", err
		}
	}
	for process, port := range map[string]string{
		"envoy-web": "web", "go-ledger": "ledger", "go-mailer": "mailer", "plain-web": "web-program", "plain-mailer": "mailer-program",
	} {
		if err := m.listening(ctx, process, m.ports[port]); err != nil {
			return "", err
		}
	}
	return m.inSync(ctx, a.dataPlanes)
}

// startGo starts a Go data plane: the program that links one, or the sidecar.
func (m *mesh) startGo(ctx context.Context, service string) error {
	joinToken, err := m.joinToken(ctx, service)
	if err != nil {
		return err
	}
	variables := []string{"WATCHWORD_JOIN_TOKEN=" + joinToken}
	if service == "ledger" {
		return m.start("go-"+service, variables, m.program("demo-linked"), service, m.ports.address("xds"), m.ports.address("ledger"), m.ports.address("ledger-program"))
	}
	return m.start("go-"+service, variables, m.program("watchword-sidecar"), "--service", service, "--ads", m.ports.address("xds"), "--ops-listen", m.ports.address(service+"-ops"))
}

// callEachOther has each of the three call the two others.
type callEachOther struct{}

func (callEachOther) commands(m *mesh) []string {
	return []string{"curl " + "http://" + m.ports.address("web-program") + "/call/ledger   # and so on: each calls http://SERVICE/"}
}

func (callEachOther) run(ctx context.Context, m *mesh) (string, error) {
	right, all := 0, 0
	var wrong []string
	for _, from := range mixed {
		for _, to := range mixed {
			if from == to {
				continue
			}
			all++
			want := to + " saw spiffe://mesh.local/" + from
			if got := m.callFrom(ctx, from, to); got == want {
				right++
			} else {
				wrong = append(wrong, from+" calls "+to+": "+got)
			}
		}
	}
	return strings.Join(append([]string{fmt.Sprintf("%d of %d: the callee saw who called", right, all)}, wrong...), "; "), nil
}

func (m *mesh) callFrom(ctx context.Context, from, to string) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.ports.address(from+"-program")+"/call/"+to, nil)
	if err != nil {
		return err.Error()
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(body))
}
