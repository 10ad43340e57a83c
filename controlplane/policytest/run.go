package policytest

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	"github.com/watchword-mesh/watchword/dataplane/ruleset"
)

func (s *Suite) run(c *testCase, now time.Time) Result {
	out := Result{File: s.file, Line: c.line, Name: c.name, Service: c.service.text}
	d, steps, err := s.decide(c, now)
	if err != nil { // what is YAML and can't be JSON was refused before
		out.Differences = []Difference{{Field: "claims", Got: err.Error()}}
		return out
	}
	v := &comparison{hidden: c.token.token}
	v.compare(c.expect, &d)
	out.Got, out.Steps, out.Differences = verdict(&d), steps, v.differences
	out.Passed = len(out.Differences) == 0
	return out
}

func (s *Suite) decide(c *testCase, now time.Time) (ruleset.Decision, []ruleset.Step, error) {
	rs, req := s.rulesets[c.service.text], c.rulesetRequest()
	switch t := &c.token; {
	case t.token != nil:
		d, steps := rs.ExplainToken(req, *t.token, now)
		return d, steps, nil
	case t.unsigned():
		claims, err := t.payload(now)
		if err != nil {
			return ruleset.Decision{}, nil, err
		}
		d, steps := rs.ExplainClaims(req, claims, t.header, now)
		return d, steps, nil
	}
	d, steps := rs.Explain(req, now)
	return d, steps, nil
}

// verdict is a decision in a few words.
func verdict(d *ruleset.Decision) string {
	s := decisionText(d.Allowed)
	if !d.Allowed {
		s += fmt.Sprintf(" %s %d", of(d.Reason, d.Rule), d.Status)
	}
	if d.Observed != "" {
		s += ", observed " + of(d.Observed, d.ObservedRule)
	}
	return s
}

// of is a word, with the rule that it comes from.
func of(w reason.Word, rule string) string {
	if rule == "" {
		return string(w)
	}
	return w.Of(rule)
}

func decisionText(allowed bool) string {
	if allowed {
		return "allow"
	}
	return "deny"
}

// comparison gathers how a decision differs from what was expected.
type comparison struct {
	hidden      *string // a token that must not be shown
	differences []Difference
}

func (v *comparison) compare(e *expectation, d *ruleset.Decision) {
	v.text("decision", ptr(decisionText(*e.allowed)), decisionText(d.Allowed))
	v.text("reason", str(e.reason), string(d.Reason))
	v.text("rule", e.rule, d.Rule)
	if e.status != 0 {
		v.text("status", ptr(strconv.Itoa(e.status)), strconv.Itoa(d.Status))
	}
	v.text("body", e.body, d.Body)
	v.text("observed", str(e.observed), string(d.Observed))
	v.text("route", e.route, d.Route)
	v.text("caller", e.caller, d.Caller.Subject)
	v.text("issuer", e.issuer, d.Caller.Iss)
	v.text("service", e.service, d.Caller.Service)
	v.text("consumer", e.consumer, d.Caller.Consumer)
	if d.Allowed != *e.allowed {
		return // what the service gets is not what the caller is told
	}
	v.text("path", e.path, d.Forward.Path)
	for _, w := range e.headers {
		v.values("headers."+w.name, w.values, headerValues(d, w.name))
	}
	if len(e.form) > 0 {
		form, _ := url.ParseQuery(string(d.Forward.Body)) // what can't be read is not there
		for _, w := range e.form {
			v.values("form."+w.name, w.values, form[w.name])
		}
	}
}

// text compares, if anything is expected. Nothing shows as none.
func (v *comparison) text(field string, want *string, got string) {
	if want != nil && *want != got {
		v.differences = append(v.differences, Difference{field, v.shown(orNone(got)), v.shown(orNone(*want))})
	}
}

func (v *comparison) values(field string, want, got []string) {
	if !slices.Equal(want, got) {
		v.differences = append(v.differences, Difference{field, v.shown(list(got)), v.shown(list(want))})
	}
}

// jws is what looks like a token (RFC 7515 section 7.1): its header begins with
// `{"`.
var jws = regexp.MustCompile(`eyJ[\w-]*\.[\w-]*\.[\w-]*`)

// shown hides tokens: reports are kept, and read by many.
func (v *comparison) shown(s string) string {
	if v.hidden != nil {
		s = strings.ReplaceAll(s, *v.hidden, "(token)")
	}
	return jws.ReplaceAllString(s, "(token)")
}

func list(values []string) string {
	if len(values) == 1 {
		return orNone(values[0])
	}
	return orNone(strings.Join(each(values, strconv.Quote), ", "))
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// headerValues are those of a request that goes on, or of a refusal.
func headerValues(d *ruleset.Decision, name string) []string {
	fields := d.Forward.Header
	if !d.Allowed {
		fields = d.RefusalHeader()
	}
	var out []string
	for _, f := range fields {
		if strings.EqualFold(f.Name, name) {
			out = append(out, f.Value)
		}
	}
	return out
}

func ptr(s string) *string { return &s }

func str(w *reason.Word) *string {
	if w == nil {
		return nil
	}
	return ptr(string(*w))
}
