package meshtest

import (
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/watchword-mesh/watchword/dataplane"
	"github.com/watchword-mesh/watchword/dataplane/enrolment"
)

// OpenDataPlane makes the test's process an instance of a service, until the test
// ends, and returns when its first ruleset is in force. more changes its config.
func (c *ControlPlane) OpenDataPlane(t testing.TB, service string, more ...func(*dataplane.Config)) *dataplane.DataPlane {
	t.Helper()
	log := new(Log)
	log.showLater(t, "the data plane of "+service)
	config := dataplane.Config{
		Addresses: []string{c.Config.XDSListen}, Service: service, Credential: enrolment.JoinToken(c.JoinToken(t, service)),
		Logger: hclog.New(&hclog.LoggerOptions{Name: service, Level: hclog.Debug, Output: log}),
	}
	for _, change := range more {
		change(&config)
	}
	d, err := dataplane.Open(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	if err := d.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return d
}
