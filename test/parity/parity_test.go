package parity

import (
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"pgregory.net/rapid"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	"github.com/watchword-mesh/watchword/dataplane/ruleset"
)

var (
	cases  = flag.Int("parity.cases", 20_000, "requests that TestParity sends")
	random = flag.Bool("parity.random", false, "other requests at each run")
)

// draw says how often to draw. Without -parity.random, or a seed of -rapid.seed,
// all runs are alike, so that a change is judged by what it changes.
func draw(t *testing.T, checks int) {
	t.Helper()
	if err := flag.Set("rapid.checks", fmt.Sprint(checks)); err != nil {
		t.Fatal(err)
	}
	if seed := flag.Lookup("rapid.seed"); !*random && seed.Value.String() == "0" {
		if err := seed.Value.Set("1"); err != nil {
			t.Fatal(err)
		}
	}
}

// requestsPerRuleset is how many requests one ruleset gets.
const requestsPerRuleset = 100

// TestParity makes up rulesets and requests: the reference, the real Envoy, the
// library and the sidecar agree on each.
func TestParity(t *testing.T) {
	draw(t, max(1, *cases/requestsPerRuleset))
	p, signers := startPlanes(t), newPool()
	sent, listed, gone, told := 0, 0, 0, time.Now()
	rapid.Check(t, func(rt *rapid.T) {
		w := signers.world(rt)
		revoked := w.revocations(rt, time.Now().Unix())
		reference, err := p.loadRevoking(t, w.rs, revoked)
		if err != nil {
			rt.Fatalf("%v\n%s", err, protojson.Format(w.rs))
		}
		for range requestsPerRuleset {
			req := w.request(rt, time.Now())
			all := p.ask(t, reference, req.Request)
			sent++
			if all[0].want.Reason == reason.Revoked {
				gone++
			}
			if envoy := all[0]; !envoy.same() && len(req.lax) > 0 {
				listed++
				all = all[1:]
			}
			if d := disagreements(all); d != "" {
				rt.Fatalf("%srequest:\n%s\nruleset:\n%s\nrevocations:\n%s", d, show(req.Request), protojson.Format(w.rs), protojson.Format(revoked))
			}
		}
		if time.Since(told) > 10*time.Second {
			t.Logf("%d of %d", sent, *cases)
			told = time.Now()
		}
	})
	t.Logf("parity: %d cases: reference, Envoy, library and sidecar agree; 0 unlisted disagreements (%d of a listed kind), %d refused as revoked", sent, listed, gone)
}

// normal leaves out what means nothing: the order of query parameters of
// different names and how they are escaped, and how several values of a header
// are spread over lines.
func normal(o outcome) outcome {
	if o.Forward == nil {
		return o
	}
	f := *o.Forward
	path, query, _ := strings.Cut(f.Path, "?")
	if values, err := url.ParseQuery(query); err == nil {
		f.Path = path + "?" + values.Encode()
	}
	header := http.Header{}
	for name, values := range f.Header {
		if name == "Cookie" {
			if c := crumbs(strings.Join(values, ";")); c != "" {
				header[name] = []string{c}
			}
			continue
		}
		header[name] = []string{strings.Trim(strings.Join(values, ","), " ")}
	}
	f.Header = header
	o.Forward = &f
	return o
}

// crumbs are cookies without what is between them.
func crumbs(cookies string) string {
	var out []string
	for c := range strings.SplitSeq(cookies, ";") {
		if c = strings.Trim(c, " \t"); c != "" {
			out = append(out, c)
		}
	}
	return strings.Join(out, "; ")
}

func show(r ruleset.Request) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\nhost: %s\n", r.Method, r.Path, r.Authority)
	for _, f := range r.Header {
		fmt.Fprintf(&b, "%s: %s\n", f.Name, f.Value)
	}
	fmt.Fprintf(&b, "\n%s", r.Body)
	return b.String()
}
