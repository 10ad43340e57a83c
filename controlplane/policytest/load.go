package policytest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/watchword-mesh/watchword/controlplane/compile"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/dataplane/ruleset"
	"github.com/watchword-mesh/watchword/internal/jose"
	"github.com/watchword-mesh/watchword/issuer/token"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Load reads a test file with the resources that it is about. read returns the
// documents at a path that the file names, which is relative to the file. The
// error is a *FaultsError with all that is wrong.
func Load(d Document, read func(path string) ([]Document, error)) (*Suite, error) {
	file, faults := readFile(d)
	l := &loader{file: d.Name, faults: faults}
	l.documents(file, read)
	l.resources()
	for _, c := range file.cases {
		l.checkCase(c)
	}
	if len(l.faults) == 0 {
		l.compile(file.cases)
	}
	if len(l.faults) > 0 {
		slices.SortStableFunc(l.faults, func(a, b Fault) int {
			return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
		})
		return nil, &FaultsError{l.faults}
	}
	return &Suite{file: d.Name, now: file.now, cases: file.cases, rulesets: l.rulesets}, nil
}

// loader gathers resources and faults.
type loader struct {
	file   string
	faults []Fault

	docs  []policy.Document
	state policy.State
	in    compile.Input
	// keyless are the issuers, and the consumers with the number of the credential
	// (NAME/0), whose keys a test does not have.
	keyless  map[string]string
	compiled map[string]bool
	rulesets map[string]*ruleset.Ruleset
}

func (l *loader) fault(line int, format string, args ...any) {
	l.faults = append(l.faults, Fault{File: l.file, Line: line, Message: fmt.Sprintf(format, args...)})
}

// documents reads what the file names. What was read twice, by itself and by its
// folder, counts once.
func (l *loader) documents(file *testFile, read func(string) ([]Document, error)) {
	seen := map[string]bool{}
	for _, p := range file.policies {
		docs, err := read(p.text)
		if err != nil {
			l.fault(p.line, "policies: %v", err)
		}
		for _, d := range docs {
			if !seen[d.Name] {
				seen[d.Name] = true
				l.docs = append(l.docs, policy.Document{Source: d.Name, Content: d.Content})
			}
		}
	}
	if file.resources != nil {
		l.docs = append(l.docs, policy.Document{Source: l.file, Nodes: file.resources})
	}
}

// resources parses and checks what was read, as an apply on an empty mesh would.
func (l *loader) resources() {
	objects, faults := policy.Parse(l.docs)
	l.state = policy.State{}
	given, formal := map[policy.Key]*policy.Object{}, map[policy.Key]bool{}
	for _, o := range objects {
		l.state[o.Key], given[o.Key] = o.Resource, o
	}
	for _, f := range faults {
		formal[f.Key] = true
	}
	builtin := policy.Key{Kind: policy.KindIssuer, Name: policy.BuiltinIssuer}
	if l.state[builtin] == nil {
		l.state[builtin] = builtinIssuer()
	}
	for _, f := range policy.Check(l.state) {
		if formal[f.Key] {
			continue // it may follow from what was said already
		}
		if o := given[f.Key]; o != nil {
			f.Source, f.Line = o.Source, o.Line(f.Field)
		}
		faults = append(faults, f)
	}
	for _, f := range faults {
		l.faults = append(l.faults, resourceFault(f))
	}
}

func resourceFault(f policy.Fault) Fault {
	message := f.Message
	for _, part := range []string{f.Field, keyText(f.Key)} {
		if part != "" {
			message = part + ": " + message
		}
	}
	return Fault{File: f.Source, Line: f.Line, Message: message}
}

func keyText(k policy.Key) string {
	if k.Name == "" {
		return ""
	}
	return k.String()
}

// builtinIssuer stands for the one that the first start of a control plane makes.
func builtinIssuer() *policyv1.Resource {
	return &policyv1.Resource{
		Metadata: &policyv1.Metadata{Name: policy.BuiltinIssuer},
		Spec: &policyv1.Resource_Issuer{Issuer: &policyv1.IssuerSpec{
			Issuer: "http://127.0.0.1:7402",
			KeySet: &policyv1.KeySet{Source: &policyv1.KeySet_Builtin{Builtin: &policyv1.BuiltinKeys{TrustDomain: "mesh.local"}}},
		}},
	}
}

// checkCase finds what of a case does not fit the resources.
func (l *loader) checkCase(c *testCase) {
	at := func(line int, format string, args ...any) {
		l.fault(line, "test %q: %s", c.name, fmt.Sprintf(format, args...))
	}
	callee := l.state.Service(c.service.text)
	if c.service.text != "" && callee == nil {
		at(c.service.line, "service: there is no Service %q among the resources%s", c.service.text, l.others())
	}
	as := c.token.as
	if as.text == "" || callee == nil {
		return
	}
	caller := l.state.Service(as.text)
	switch {
	case caller == nil:
		at(as.line, "as: there is no Service %q among the resources%s", as.text, l.others())
	case !slices.ContainsFunc(caller.GetCalls(), func(call *policyv1.Call) bool { return call.GetService() == c.service.text }):
		at(as.line, "as: the built-in issuer gives %s no token for %s, which is not among its spec.calls; give claims to test a token that it would not issue", as.text, c.service.text)
	}
}

// others lists the services that there are, for whoever named none of them.
func (l *loader) others() string {
	names := l.state.Services()
	if len(names) == 0 {
		return "; there is none at all"
	}
	const most = 20
	more := ""
	if len(names) > most {
		names, more = names[:most], " and more"
	}
	return "; there are " + strings.Join(names, ", ") + more
}

// compile makes the rulesets that the cases need, and their tokens.
func (l *loader) compile(cases []*testCase) {
	l.keys()
	l.rulesets, l.compiled = map[string]*ruleset.Ruleset{}, map[string]bool{}
	for _, c := range cases {
		l.ruleset(c)
		l.verifiable(c)
		l.complete(&c.token, c.service.text)
	}
}

func (l *loader) ruleset(c *testCase) {
	name := c.service.text
	if l.compiled[name] {
		return
	}
	l.compiled[name] = true
	rs, err := ruleset.Compile(compile.Ruleset(l.in, name))
	if err != nil {
		l.fault(c.service.line, "test %q: %v", c.name, err)
	}
	l.rulesets[name] = rs
}

// keys are those of the resources, and one that signs nothing where there is none.
func (l *loader) keys() {
	none := placeholder()
	domain := l.state.Issuer(policy.BuiltinIssuer).GetKeySet().GetBuiltin().GetTrustDomain()
	l.in = compile.Input{
		State: l.state, Policies: l.state.Policies(),
		Keys: map[string][]jose.Key{}, ConsumerKeys: map[string][][]jose.Key{},
		Subject: func(service string) string { return token.SubjectOf(domain, service) },
	}
	l.keyless = map[string]string{}
	for k, r := range l.state {
		switch k.Kind {
		case policy.KindIssuer:
			keys, _ := policy.IssuerKeys(r.GetIssuer()) // Check has found the faults
			if len(keys) == 0 {
				keys = none
				l.keyless[k.String()] = whereKeysAre(r.GetIssuer())
			}
			l.in.Keys[k.Name] = keys
		case policy.KindConsumer:
			all, _ := policy.ConsumerKeys(r.GetConsumer())
			for i := range all {
				if len(all[i]) == 0 {
					all[i] = none
					l.keyless[fmt.Sprintf("%s/%d", k, i)] = "made when it is applied"
				}
			}
			l.in.ConsumerKeys[k.Name] = all
		}
	}
}

func whereKeysAre(s *policyv1.IssuerSpec) string {
	if s.GetKeySet().GetBuiltin() != nil {
		return "in the control plane"
	}
	return "at a URI, which a test does not fetch"
}

// placeholder is a key whose private half nobody has.
func placeholder() []jose.Key {
	keys, faults := jose.ParseSet([]byte(`{"keys":[{"kty":"EC","crv":"P-256","kid":"not-known-to-tests","alg":"ES256",
 "x":"P9505FFOjil8oumX2B7h0dctVBPD6je3euppPRzip7k","y":"NmjJBiEnH3x_ff-xKws2HHjaEi3yfNcHObuDUl5ClIs"}]}`), jose.SetOptions{})
	if len(faults) > 0 {
		panic(faults[0]) // a mistake in this file
	}
	return keys
}
