package policytest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/dataplane/reason"
	"github.com/watchword-mesh/watchword/dataplane/ruleset"
)

// testFile is a test file as it is written.
type testFile struct {
	policies  []named
	resources []*yaml.Node
	now       time.Time
	cases     []*testCase
}

// named is a text and where it stands.
type named struct {
	text string
	line int
}

// testCase is one entry of tests.
type testCase struct {
	name    string
	line    int
	service named
	now     time.Time
	request request
	token   tokenSource
	expect  *expectation
}

type request struct {
	method, host, path string
	headers            []ruleset.Field
	form               []ruleset.Field
}

// tokenSource is where the token of a request comes from: one of token, and
// claims or as or both; or it has none.
type tokenSource struct {
	line   int
	token  *string
	as     named
	claims map[string]any
	header map[string]any

	// What the built-in issuer would write for as, and for how long.
	issued   map[string]any
	lifetime time.Duration
}

func (t tokenSource) unsigned() bool { return t.claims != nil || t.as.text != "" }

// expectation is what should come of a case. What is nil is not compared.
type expectation struct {
	line    int
	allowed *bool
	reason  *reason.Word
	rule    *string
	status  int
	body    *string

	observed                *reason.Word
	route                   *string
	caller, issuer, service *string
	consumer, path          *string

	headers, form []wanted
}

// wanted are the values that a field must have; none if it must not be there.
type wanted struct {
	name   string
	values []string
}

// readFile reads a test file, as far as it can be read.
func readFile(d Document) (*testFile, []Fault) {
	r := &reader{file: d.Name, budget: maxValues}
	f := &testFile{}
	if root := r.root(d.Content); root != nil {
		r.testFile(f, root)
	}
	return f, r.faults
}

// root is the one document of a test file.
func (r *reader) root(content string) *yaml.Node {
	dec := yaml.NewDecoder(bytes.NewReader([]byte(content)))
	var docs []*yaml.Node
	for {
		n := new(yaml.Node)
		err := dec.Decode(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			line, text := policy.SyntaxError(err)
			r.faultAt(line, "", "not YAML: %s", text)
			return nil
		}
		if n.Kind == yaml.DocumentNode && len(n.Content) > 0 && !isNull(n.Content[0]) {
			docs = append(docs, n.Content[0])
		}
	}
	switch {
	case len(docs) == 0:
		r.faultAt(1, "", "is empty; a test file has policies and tests")
		return nil
	case len(docs) > 1:
		r.fault(docs[1], "", "a test file is one document; resources of its own stand in a list under resources")
	}
	return docs[0]
}

func (r *reader) testFile(f *testFile, root *yaml.Node) {
	before, given := len(r.faults), false
	r.object(root, "", map[string]func(*yaml.Node, string){
		"policies": func(n *yaml.Node, field string) {
			for i, c := range r.list(n, field) {
				if s := r.filled(c, index(field, i)); s != "" {
					f.policies = append(f.policies, named{s, c.Line})
				}
			}
		},
		"resources": func(n *yaml.Node, field string) { f.resources = r.list(n, field) },
		"now":       func(n *yaml.Node, field string) { f.now = r.time(n, field) },
		"tests": func(n *yaml.Node, field string) {
			given = true
			for i, c := range r.list(n, field) {
				if t := r.testCase(c, index(field, i)); t != nil {
					f.cases = append(f.cases, t)
				}
			}
		},
	})
	if len(r.faults) > before {
		return
	}
	if !given {
		r.fault(root, "tests", "is missing; it lists what is to be tested")
	}
	if len(f.policies)+len(f.resources) == 0 {
		r.fault(root, "policies", "is missing; it lists the files and folders with the resources to test, relative to this file (or give resources)")
	}
	r.once(f.cases)
}

// once wants each name once, so that a report tells which case it means.
func (r *reader) once(cases []*testCase) {
	first := map[string]int{}
	for _, c := range cases {
		if line := first[c.name]; line != 0 {
			r.faultAt(c.line, "name", "%q is the name of the test in line %d already", c.name, line)
			continue
		}
		first[c.name] = c.line
	}
}

func (r *reader) testCase(n *yaml.Node, field string) *testCase {
	c := &testCase{line: n.Line}
	r.within = field
	if name := nameOf(n); name != "" {
		r.within = fmt.Sprintf("test %q", name)
	}
	defer func() { r.within = "" }()
	before := len(r.faults)
	r.object(n, "", map[string]func(*yaml.Node, string){
		"name":    func(n *yaml.Node, f string) { c.name = r.filled(n, f) },
		"service": func(n *yaml.Node, f string) { c.service = named{r.filled(n, f), n.Line} },
		"now":     func(n *yaml.Node, f string) { c.now = r.time(n, f) },
		"request": func(n *yaml.Node, f string) { r.request(&c.request, n, f) },
		"token": func(n *yaml.Node, f string) {
			if s := r.filled(n, f); s != "" {
				c.token.token, c.token.line = &s, n.Line
			}
		},
		"as":     func(n *yaml.Node, f string) { c.token.as, c.token.line = named{r.filled(n, f), n.Line}, n.Line },
		"claims": func(n *yaml.Node, f string) { c.token.claims, c.token.line = r.members(n, f), n.Line },
		"header": func(n *yaml.Node, f string) { c.token.header = r.members(n, f) },
		"expect": func(n *yaml.Node, f string) { c.expect = r.expectation(n, f) },
	})
	if len(r.faults) > before || r.budget <= 0 {
		return c // what is missing may be what was misspelt, or not read
	}
	r.complete(c)
	return c
}

// nameOf is the name of a case before it is read, for faults.
func nameOf(n *yaml.Node) string {
	if n.Kind == yaml.MappingNode {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == "name" && n.Content[i+1].Kind == yaml.ScalarNode {
				return n.Content[i+1].Value
			}
		}
	}
	return ""
}

// complete finds what a case lacks, and what contradicts itself.
func (r *reader) complete(c *testCase) {
	if c.name == "" {
		r.faultAt(c.line, "name", "is missing; say what is tested, such as \"web may read orders\"")
	}
	if c.service.text == "" {
		r.faultAt(c.line, "service", "is missing; it names the Service that is called")
	}
	if c.expect == nil {
		r.faultAt(c.line, "expect", "is missing; a test without it tests nothing: say decision: allow, or decision: deny with a reason")
	}
	switch t := c.token; {
	case t.token != nil && t.unsigned():
		r.faultAt(t.line, "token", "stands for itself: leave out as and claims, or leave out token")
	case t.header != nil && !t.unsigned():
		r.faultAt(c.line, "header", "is the header of a token that is given by its claims: give claims or as; headers of the request are request.headers")
	}
}

// members reads an object as JSON.
func (r *reader) members(n *yaml.Node, field string) map[string]any {
	if n = r.value(n, field); n == nil {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		r.fault(n, field, "wants an object, not %s", describe(n))
		return nil
	}
	m, _ := r.json(n, field, 0).(map[string]any)
	return m
}

// headerName is RFC 9110 section 5.1.
var headerName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")

func (r *reader) request(out *request, n *yaml.Node, field string) {
	r.object(n, field, map[string]func(*yaml.Node, string){
		"method": func(n *yaml.Node, f string) { out.method = r.filled(n, f) },
		"host":   func(n *yaml.Node, f string) { out.host = r.filled(n, f) },
		"path":   func(n *yaml.Node, f string) { out.path = r.filled(n, f) },
		"headers": func(n *yaml.Node, f string) {
			for _, e := range r.entries(n, f) {
				r.headerName(e, join(f, e.name))
				for _, v := range r.texts(e.value, join(f, e.name)) {
					if strings.ContainsAny(v, "\r\n\x00") {
						r.faultAt(e.line, join(f, e.name), "has a line break or a NUL, which no header can hold")
					}
					out.headers = append(out.headers, ruleset.Field{Name: e.name, Value: v})
				}
			}
		},
		"form": func(n *yaml.Node, f string) {
			for _, e := range r.entries(n, f) {
				for _, v := range r.texts(e.value, join(f, e.name)) {
					out.form = append(out.form, ruleset.Field{Name: e.name, Value: v})
				}
			}
		},
	})
}

func (r *reader) headerName(e entry, field string) {
	switch {
	case strings.EqualFold(e.name, "host"):
		r.faultAt(e.line, field, "is no field of its own: give request.host")
	case !headerName.MatchString(e.name):
		r.faultAt(e.line, field, "is not the name of a header (RFC 9110 section 5.1)")
	}
}

func (r *reader) expectation(n *yaml.Node, field string) *expectation {
	e := &expectation{line: n.Line}
	text := func(into **string) func(*yaml.Node, string) {
		return func(n *yaml.Node, f string) {
			if s, ok := r.text(n, f); ok {
				*into = &s
			}
		}
	}
	before := len(r.faults)
	r.object(n, field, map[string]func(*yaml.Node, string){
		"decision": func(n *yaml.Node, f string) { e.allowed = r.decision(n, f) },
		"reason":   func(n *yaml.Node, f string) { e.reason = r.word(n, f, false) },
		"observed": func(n *yaml.Node, f string) { e.observed = r.word(n, f, true) },
		"status":   func(n *yaml.Node, f string) { e.status = r.status(n, f) },
		"rule":     text(&e.rule), "body": text(&e.body), "route": text(&e.route),
		"caller": text(&e.caller), "issuer": text(&e.issuer), "service": text(&e.service), "consumer": text(&e.consumer),
		"path":    text(&e.path),
		"headers": func(n *yaml.Node, f string) { e.headers = r.wanted(n, f) },
		"form":    func(n *yaml.Node, f string) { e.form = r.wanted(n, f) },
	})
	if len(r.faults) == before {
		r.consistent(e, field)
	}
	return e
}

// consistent finds what can't be expected at once: it would only be seen as a
// test that fails.
func (r *reader) consistent(e *expectation, field string) {
	denied := e.reason != nil || e.rule != nil || e.status != 0 || e.body != nil
	passed := e.path != nil || e.form != nil
	switch {
	case e.allowed == nil && e.reason == nil:
		r.faultAt(e.line, field, "says neither decision nor reason: give decision: allow, decision: deny, or the reason of a refusal")
	case e.allowed != nil && *e.allowed && denied:
		r.faultAt(e.line, field, "decision allow has no reason, rule, status or body: they are those of a refusal")
	case (e.allowed == nil || !*e.allowed) && passed:
		r.faultAt(e.line, field, "path and form are those that the service gets, and a refusal does not reach it")
	}
	if e.allowed == nil {
		deny := false
		e.allowed = &deny
	}
}

func (r *reader) decision(n *yaml.Node, field string) *bool {
	s, ok := r.text(n, field)
	if ok && s != "allow" && s != "deny" {
		r.fault(n, field, "wants allow or deny, not %q", s)
	}
	allow := s == "allow"
	return &allow
}

// word reads a reason; where it may be none, it may be empty.
func (r *reader) word(n *yaml.Node, field string, none bool) *reason.Word {
	s, ok := r.text(n, field)
	w := reason.Word(s)
	if ok && !reason.Known(w) && !(none && s == "") {
		words := each(reason.All(), func(w reason.Word) string { return string(w) })
		slices.Sort(words)
		r.fault(n, field, "%q is not a reason%s; the reasons are %s", s, similar(s, words), strings.Join(words, ", "))
	}
	return &w
}

// similar proposes the word that was meant.
func similar(s string, words []string) string {
	fold := strings.NewReplacer("-", "_", " ", "_")
	for _, w := range words {
		if strings.EqualFold(fold.Replace(s), w) {
			return fmt.Sprintf(" (did you mean %s?)", w)
		}
	}
	return ""
}

func (r *reader) status(n *yaml.Node, field string) int {
	if n = r.value(n, field); n == nil {
		return 0
	}
	status, err := strconv.Atoi(n.Value)
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || err != nil || status < 100 || status > 599 {
		r.fault(n, field, "wants an HTTP status such as 401, not %s", describe(n))
		return 0
	}
	return status
}

// wanted reads fields with the values that they must have; null is none.
func (r *reader) wanted(n *yaml.Node, field string) []wanted {
	var out []wanted
	for _, e := range r.entries(n, field) {
		w := wanted{name: e.name}
		if v := r.resolved(e.value, field); v != nil && !isNull(v) {
			w.values = r.texts(v, join(field, e.name))
		}
		out = append(out, w)
	}
	return out
}

// rulesetRequest is the request as a data plane gets it.
func (c *testCase) rulesetRequest() ruleset.Request {
	q := c.request
	r := ruleset.Request{Method: q.method, Authority: q.host, Path: q.path, Header: slices.Clone(q.headers)}
	return r.Completed(c.service.text, q.form)
}
