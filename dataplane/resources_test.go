package dataplane

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/watchword-mesh/watchword/dataplane/ruleset"
	"github.com/watchword-mesh/watchword/dataplane/xdsclient"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// What can't be enforced is refused whole, and what was in force stays.
func TestRefusedResources(t *testing.T) {
	d := plane(t, nil)
	enforce(t, d, rulesetWith(strict("")))
	for name, r := range map[string]xdsclient.Resource{
		"no protobuf":      {TypeURL: rulesetType, Name: "orders", Version: "v2", Body: []byte("\xff\xff")},
		"another service":  resourceOf(t, "v2", &dataplanev1.Ruleset{Service: "payments"}),
		"no route":         resourceOf(t, "v2", &dataplanev1.Ruleset{Service: "orders"}),
		"another type":     {TypeURL: typePrefix + "Other", Name: "orders", Version: "v2"},
		"another outbound": resourceOf(t, "v2", &dataplanev1.Outbound{Service: "payments"}),
		"no time":          {TypeURL: leaseType, Name: leaseName, Version: "v2", Body: []byte{0x0a, 0x06, 0x10, 0xff, 0xff, 0xff, 0xff, 0x0f}},
	} {
		if err := d.resources.Accept(r); err == nil {
			t.Errorf("%s was accepted", name)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v shows a secret", name, err)
		}
	}
	if got := d.resources.Held(rulesetType); got["orders"] != "v1" || !d.Serving() {
		t.Errorf("Held = %v, serving %v; want what was in force before", got, d.Serving())
	}
}

// started is a data plane that finds a file, and no control plane.
func started(t *testing.T, file string, change func(*Config)) (*DataPlane, string) {
	t.Helper()
	var log strings.Builder
	d := plane(t, func(c *Config) {
		c.File = file
		c.Logger = hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Debug})
		if change != nil {
			change(c)
		}
	})
	return d, log.String()
}

func ask(t *testing.T, d *DataPlane, want int) {
	t.Helper()
	if res, body, _ := send(t, serve(t, d), get("/", "Authorization: Bearer "+jwt())); res.StatusCode != want {
		t.Errorf("status %d %s, want %d", res.StatusCode, body, want)
	}
}

// A start without control plane goes by what was accepted last. Shared secrets are in
// the file only if that was asked for; without, their tokens are refused, and the
// ruleset is asked for anew.
func TestFile(t *testing.T) {
	for _, secrets := range []bool{false, true} {
		file := filepath.Join(t.TempDir(), "last")
		with := func(c *Config) { c.FileSecrets = secrets }
		first, _ := started(t, file, with)
		enforce(t, first, rulesetWith(strict("")))
		if err := first.resources.Accept(resourceOf(t, "o1", &dataplanev1.Outbound{Service: "orders"})); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, want 0600", info.Mode())
		}
		second, log := started(t, file, with)
		if !second.Serving() || !strings.Contains(log, "started with the last configuration") {
			t.Errorf("not serving after a start; log:\n%s", log)
		}
		if err := second.Ready(t.Context()); err != nil {
			t.Error(err)
		}
		want, version := 401, ""
		if secrets {
			want, version = 200, "v1"
		}
		ask(t, second, want)
		if got := second.resources.Held(rulesetType)["orders"]; got != version {
			t.Errorf("with secrets %v: version %q is claimed, want %q", secrets, got, version)
		}
		if got := second.resources.Held(outboundType)["orders"]; got != "o1" {
			t.Errorf("version %q of the outbound is claimed, want o1", got)
		}
		// A deleted service is deleted after a start, too.
		if err := second.resources.Remove(rulesetType, "orders"); err != nil {
			t.Fatal(err)
		}
		third, _ := started(t, file, with)
		ask(t, third, 503)
	}
}

// A file that is damaged, or can't be written, is said to be, and nothing is let in
// by it.
func TestFileFaults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "last")
	first, _ := started(t, file, nil)
	enforce(t, first, rulesetWith(strict("")))
	content, _ := os.ReadFile(file)
	content[len(content)/2] ^= 1
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	second, log := started(t, file, nil)
	if ask(t, second, 503); !strings.Contains(log, "the last configuration can't be used: refusing all requests until the control plane is there") {
		t.Errorf("log:\n%s", log)
	}
	// It is made anew.
	enforce(t, second, rulesetWith(strict("")))
	if third, _ := started(t, file, nil); !third.Serving() {
		t.Error("not serving by the file that was made anew")
	}
}

// A lease in the file holds until its own end.
func TestFileLease(t *testing.T) {
	file := filepath.Join(t.TempDir(), "last")
	now := time.Now()
	first, _ := started(t, file, func(c *Config) { c.FileSecrets = true })
	enforce(t, first, strings.Replace(rulesetWith(strict("")), "{", `{"leased":true,`, 1))
	lease(t, first, now.Add(time.Minute))
	second, _ := started(t, file, nil)
	if !second.Serving() {
		t.Error("not serving under the lease of the file")
	}
	late, _ := started(t, file, func(c *Config) { c.Now = func() time.Time { return now.Add(time.Minute) } })
	if late.Serving() {
		t.Error("serving beyond the lease of the file")
	}
}

// FuzzRuleset holds that whatever bytes come as a ruleset are refused, or are in force
// and decide; and that what is refused changes nothing.
func FuzzRuleset(f *testing.F) {
	for _, text := range []string{rulesetWith(strict("")), rulesetWith(strict(`,"endStreams":true`)), `{"service":"orders"}`} {
		f.Add(resourceOf(f, "v", parse(f, text)).Body)
	}
	f.Add([]byte("\xff"))
	f.Fuzz(func(t *testing.T, body []byte) {
		d := plane(t, nil)
		revoke(t, d, &dataplanev1.Revocations{Service: "orders"})
		err := d.resources.Accept(xdsclient.Resource{TypeURL: rulesetType, Name: "orders", Version: "1", Body: body})
		if (err == nil) != d.Serving() && !d.guard.inForce.Load().Leased() {
			t.Fatalf("Accept: %v, serving: %v", err, d.Serving())
		}
		if rs := d.guard.inForce.Load(); rs != nil {
			rs.Evaluate(ruleset.Request{Method: "GET", Authority: "orders", Path: "/", Header: []ruleset.Field{{Name: "Authorization", Value: "Bearer " + jwt()}}}, time.Now())
		}
	})
}
