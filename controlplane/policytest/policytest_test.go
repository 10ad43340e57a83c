package policytest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var now = time.Unix(1_800_000_000, 0)

const secret = "0123456789abcdef0123456789abcdef"

// mesh is what the tests of this package are about.
const mesh = `
{apiVersion: watchword.dev/v1, kind: Service, metadata: {name: web}, spec: {calls: [{service: orders, scopes: [read, write]}]}}
---
{apiVersion: watchword.dev/v1, kind: Service, metadata: {name: batch}, spec: {calls: [{service: orders}]}}
---
apiVersion: watchword.dev/v1
kind: Service
metadata: {name: orders}
spec:
  routes: [{name: admin, paths: ["/admin/*"]}, {name: open, paths: ["/health"]}, {name: partner, paths: ["/partner/*"]}]
---
{apiVersion: watchword.dev/v1, kind: Issuer, metadata: {name: idp}, spec: {issuer: "https://idp.example", keySet: {jwksUri: {uri: "https://idp.example/keys"}}}}
---
{apiVersion: watchword.dev/v1, kind: Issuer, metadata: {name: corp}, spec: {issuer: "https://corp.example", keySet: {secret: {keys: [{kid: k1, secret: ` + secret + `}]}}}}
---
{apiVersion: watchword.dev/v1, kind: Consumer, metadata: {name: bob}, spec: {username: bob, credentials: [{key: key-bob}]}}
---
{apiVersion: watchword.dev/v1, kind: Consumer, metadata: {name: eve}, spec: {username: eve, credentials: [{key: key-eve, keySet: {secret: {keys: [{secret: ` + secret + `}]}}}]}}
---
apiVersion: watchword.dev/v1
kind: AuthenticationPolicy
metadata: {name: orders}
spec:
  target: {services: [orders]}
  jwtRules:
  - {issuer: watchword}
  - {issuer: idp, audiences: [orders], outputClaims: [{claimPath: [email], header: x-user}]}
  - {issuer: corp, audiences: [orders], forwardOriginalToken: true}
  responses: [{reasons: [token_missing], status: 418, body: "no token"}]
---
apiVersion: watchword.dev/v1
kind: AuthenticationPolicy
metadata: {name: partner}
spec:
  target: {services: [orders], routes: [partner]}
  jwtRules: [{consumers: {names: [bob, eve]}, audienceCheck: UNCHECKED, expiration: IF_PRESENT}]
---
{apiVersion: watchword.dev/v1, kind: AuthenticationPolicy, metadata: {name: open}, spec: {target: {services: [orders], routes: [open]}, mode: "OFF"}}
---
apiVersion: watchword.dev/v1
kind: AuthorizationPolicy
metadata: {name: admin}
spec: {target: {services: [orders], routes: [admin]}, action: ALLOW, rules: [{from: {services: [web]}, when: [{claimPath: [scope], values: [write]}]}]}
---
apiVersion: watchword.dev/v1
kind: AuthorizationPolicy
metadata: {name: watched}
spec: {target: {services: [orders]}, enforcement: OBSERVE, action: DENY, rules: [{from: {services: [batch]}}]}
`

func readMesh(path string) ([]Document, error) {
	if path != "mesh.yaml" {
		return nil, fmt.Errorf("%s is not there", path)
	}
	return []Document{{Name: "mesh.yaml", Content: mesh}}, nil
}

func load(t *testing.T, tests string) *Suite {
	t.Helper()
	s, err := Load(Document{"tests.yaml", "policies: [mesh.yaml]\nnow: 2027-01-15T08:00:00Z\ntests:\n" + tests}, readMesh)
	if err != nil {
		t.Fatalf("Load: %v\n%s", err, tests)
	}
	return s
}

func faultsOf(t *testing.T, text string) []string {
	t.Helper()
	_, err := Load(Document{"tests.yaml", text}, readMesh)
	var f *FaultsError
	if err != nil && !errors.As(err, &f) {
		t.Fatalf("Load: %v is no *FaultsError", err)
	}
	if f == nil {
		return nil
	}
	return each(f.Faults, Fault.String)
}

// sign makes a token of the issuer corp, or of the consumer eve.
func sign(header, claims string) string {
	b64 := base64.RawURLEncoding.EncodeToString
	input := b64([]byte(header)) + "." + b64([]byte(claims))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(input))
	return input + "." + b64(mac.Sum(nil))
}

func corpToken(exp int64) string {
	return sign(`{"alg":"HS256","kid":"k1"}`, fmt.Sprintf(`{"iss":"https://corp.example","aud":"orders","sub":"carol","exp":%d}`, exp))
}

// What is expected and comes so.
func TestPass(t *testing.T) {
	for name, text := range map[string]string{
		"as":            `{as: web, expect: {decision: allow, caller: "spiffe://mesh.local/web", issuer: "http://127.0.0.1:7402", consumer: "", service: "", observed: "", route: "", path: /}}`,
		"scopes":        `{as: web, request: {path: /admin/x}, expect: {decision: allow, route: admin, path: /admin/x}}`,
		"no scope":      `{as: batch, request: {path: /x}, expect: {decision: allow, observed: consumer_denied}}`,
		"denied":        `{as: batch, request: {path: /admin/x}, expect: {decision: deny, reason: consumer_denied, status: 403, rule: "", caller: "spiffe://mesh.local/batch"}}`,
		"as, changed":   `{as: web, claims: {scope: read}, request: {path: /admin/x}, expect: {reason: consumer_denied}}`,
		"as, expired":   `{as: web, now: 2027-01-15T08:00:00Z, claims: {exp: 1, nbf: null}, expect: {reason: token_expired}}`,
		"as, other typ": `{as: web, header: {typ: JWT}, expect: {reason: type_not_allowed}}`,
		"claims, URI":   `{claims: {iss: "https://idp.example", aud: orders, sub: alice, email: a@b, exp: 1800000300}, expect: {decision: allow, headers: {x-user: a@b, X-Watchword-Caller: alice, authorization: null}}}`,
		"claims, types": `{claims: {iss: "https://idp.example", aud: [orders, x], email: 2026-01-02, exp: 1.8000003e9}, expect: {decision: allow, headers: {x-user: "2026-01-02"}}}`,
		"sub a number":  `{claims: {sub: 7}, expect: {reason: token_malformed}}`,
		"no claims":     `{claims: {}, expect: {reason: issuer_unknown}}`,
		"token":         `{token: ` + corpToken(1_800_000_300) + `, expect: {decision: allow, caller: carol}}`,
		"token, later":  `{token: ` + corpToken(1_800_000_300) + `, now: 2027-01-15T09:00:00Z, expect: {reason: token_expired}}`,
		"token, forged": `{token: ` + corpToken(1_800_000_300) + `x, expect: {reason: signature_invalid}}`,
		"in a header":   `{request: {headers: {authorization: Bearer ` + corpToken(1_800_000_300) + `}}, expect: {decision: allow, caller: carol}}`,
		"two headers":   `{as: web, request: {headers: {x-a: [b, c], X-Watchword-Caller: spoofed}}, expect: {decision: allow, headers: {X-A: [b, c], x-b: null, x-watchword-caller: "spiffe://mesh.local/web"}}}`,
		"own response":  `{expect: {reason: token_missing, status: 418, body: no token, headers: {content-type: text/plain, x-watchword-reason: token_missing, www-authenticate: null}}}`,
		"gRPC":          `{request: {headers: {content-type: application/grpc}}, expect: {reason: token_missing, status: 200, headers: {grpc-status: "7", grpc-message: no token}}}`,
		"off":           `{request: {path: /health, host: "orders:80", method: HEAD}, expect: {decision: allow, caller: ""}}`,
		"form":          `{request: {path: /health, form: {a: "b &", c: [d, e]}}, expect: {decision: allow, form: {a: "b &", c: [d, e], f: null}, headers: {content-type: application/x-www-form-urlencoded}}}`,
		"ambiguous":     `{request: {path: /admin/%2e%2e/x}, expect: {reason: path_ambiguous}}`,
		"consumer":      `{claims: {iss: key-bob}, request: {path: /partner/x}, expect: {decision: allow, consumer: bob, headers: {x-watchword-consumer: bob}}}`,
		"credential":    `{token: ` + sign(`{"alg":"HS256"}`, `{"iss":"key-eve"}`) + `, request: {path: /partner/x}, expect: {decision: allow, consumer: eve}}`,
	} {
		t.Run(name, func(t *testing.T) {
			for r := range load(t, `- {name: it, service: orders, `+text[1:]).Results(time.Unix(1, 0)) {
				if !r.Passed {
					t.Errorf("%s\ngot %s: %+v\nsteps: %+v", text, r.Got, r.Differences, r.Steps)
				}
			}
		})
	}
}

// What comes otherwise is told, field by field, and no token is.
func TestFail(t *testing.T) {
	token := corpToken(1_800_000_300)
	s := load(t, `
- {name: decision, service: orders, as: web, expect: {reason: token_missing, status: 401, headers: {x-a: b}}}
- {name: reason, service: orders, expect: {decision: deny, reason: token_expired, rule: a/0, status: 401, body: "{}", observed: token_expired, route: x, caller: c, issuer: i, service: s, consumer: k, headers: {content-type: [a, b], x-b: null}}}
- {name: forwarded, service: orders, token: `+token+`, expect: {decision: allow, path: /x, headers: {authorization: x, x-watchword-caller: null}, form: {a: b}}}
- {name: in the request, service: orders, request: {path: /health, headers: {authorization: Bearer `+token+`}}, expect: {decision: allow, headers: {authorization: null, x-a: Bearer `+token+`}}}
`)
	want := map[string][]Difference{
		"decision": {{"decision", "allow", "deny"}, {"reason", "none", "token_missing"}, {"status", "0", "401"}},
		"reason": {{"reason", "token_missing", "token_expired"}, {"rule", "none", "a/0"}, {"status", "418", "401"}, {"body", "no token", "{}"},
			{"observed", "none", "token_expired"}, {"route", "none", "x"}, {"caller", "none", "c"}, {"issuer", "none", "i"}, {"service", "none", "s"}, {"consumer", "none", "k"},
			{"headers.content-type", "text/plain", `"a", "b"`}},
		"forwarded":      {{"path", "/", "/x"}, {"headers.authorization", "none", "x"}, {"headers.x-watchword-caller", "carol", "none"}, {"form.a", "none", "b"}},
		"in the request": {{"headers.authorization", "Bearer (token)", "none"}, {"headers.x-a", "none", "Bearer (token)"}},
	}
	for r := range s.Results(now) {
		if diff := cmp.Diff(want[r.Name], r.Differences); diff != "" || r.Passed {
			t.Errorf("%s: passed %v, got %s (-want +got):\n%s", r.Name, r.Passed, r.Got, diff)
		}
		if len(r.Steps) == 0 || r.File != "tests.yaml" || r.Line == 0 || r.Service != "orders" {
			t.Errorf("%s: incomplete: %+v", r.Name, r)
		}
		if text := fmt.Sprintf("%+v", r); strings.Contains(text, token) || strings.Contains(text, secret) {
			t.Errorf("%s: a token or a secret is shown: %s", r.Name, text)
		}
	}
}

// Every fault comes at once, with its line and the way out.
func TestFaults(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want []string
	}{
		"empty":     {"", []string{`tests.yaml:1: is empty; a test file has policies and tests`}},
		"no YAML":   {"tests:\n\t- a", []string{`tests.yaml:2: not YAML: found character that cannot start any token`}},
		"anchor":    {"tests: *hunter2", []string{`tests.yaml: not YAML: unknown anchor '...' referenced`}},
		"a list":    {"- a", []string{`tests.yaml:1: wants an object, not a list`}},
		"nothing":   {"policies: [mesh.yaml]", []string{`tests.yaml:1: tests: is missing; it lists what is to be tested`}},
		"no tests":  {"policies: [mesh.yaml]\ntests: []", []string{`tests.yaml:2: tests: is an empty list: give entries, or leave the field out`}},
		"no value":  {"policies:\ntests:", []string{`tests.yaml:1: policies: has no value: give one, or leave the field out`, `tests.yaml:2: tests: has no value: give one, or leave the field out`}},
		"two":       {"policies: [mesh.yaml]\ntests: [{name: a, service: orders, expect: {decision: deny}}]\n---\na: b", []string{`tests.yaml:4: a test file is one document; resources of its own stand in a list under resources`}},
		"unknown":   {"policy: [mesh.yaml]", []string{`tests.yaml:1: policy: unknown field; the fields here are now, policies, resources, tests`}},
		"twice":     {"policies: [mesh.yaml]\npolicies: [mesh.yaml]\n", []string{`tests.yaml:2: policies: is given twice`}},
		"no file":   {"policies: [a.yaml]\ntests: [{name: a, service: orders, expect: {decision: deny}}]", []string{`tests.yaml:1: policies: a.yaml is not there`, `tests.yaml:2: test "a": service: there is no Service "orders" among the resources; there is none at all`}},
		"time":      {"policies: [mesh.yaml]\nnow: yesterday", []string{`tests.yaml:2: now: wants a time such as 2026-11-25T12:00:00Z, not the string "yesterday"`}},
		"merge":     {"policies: [mesh.yaml]\ntests:\n- &a {name: a, service: orders, expect: {decision: deny}}\n- {<<: *a, name: b}", []string{`tests.yaml:4: test "b": merge keys (<<) are not read: write the fields out`}},
		"resources": {"resources:\n- apiVersion: watchword.dev/v1\n  kind: Service\n  metadata: {name: a}\n  spec: {calls: [{service: b}], foo: 1}\ntests: [{name: a, service: a, expect: {decision: deny}}]", []string{`tests.yaml:5: Service/a: spec.foo: unknown field; the fields here are audiences, routes, inbound, calls, dataPlanes, selfIssued, bootstrap, hosts, endpoints, outbound, lease`}},
		"given twice": {"policies: [mesh.yaml]\nresources: [{apiVersion: watchword.dev/v1, kind: Service, metadata: {name: web}, spec: {}}]\ntests: [{name: a, service: web, expect: {decision: deny}}]",
			[]string{`tests.yaml:2: Service/web: given twice; the first is at mesh.yaml:2`}},
		"meaning": {"resources: [{apiVersion: watchword.dev/v1, kind: Service, metadata: {name: web}, spec: {calls: [{service: none}]}}]\ntests: [{name: a, service: web, expect: {decision: deny}}]",
			[]string{`tests.yaml:1: Service/web: spec.calls[0].service: there is no Service "none"`}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, faultsOf(t, tt.text)); diff != "" {
				t.Errorf("faults of\n%s\n(-want +got):\n%s", tt.text, diff)
			}
		})
	}
}

// Names of fields count for each alias, and full faults end reading.
func TestReadingIsBounded(t *testing.T) {
	var keys strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&keys, "k%d: a,", i)
	}
	aliases := strings.Repeat(",*o", 1000)
	for name, tt := range map[string]struct{ text, want string }{
		"names": {"tests: [{name: a, claims: {a: [&o {" + keys.String() + "}" + aliases + "]}}]", "is too large: over 1000000 values"},
		"twice": {"tests: [{name: a, claims: {a: [&o {" + strings.Repeat("a,", 20_000) + "}" + aliases + "]}}]", "is given twice"},
		"tests": {"tests: [&o {" + keys.String() + "}" + aliases + "]", "unknown field"},
	} {
		r := &reader{budget: maxValues}
		if root := r.root(tt.text); root != nil {
			r.testFile(&testFile{}, root)
		}
		if visits := maxValues - r.budget; visits > maxValues+3000 || len(r.faults) == 0 || len(r.faults) > maxFaults {
			t.Errorf("%s: %d values visited, %d faults", name, visits, len(r.faults))
		}
		if !slices.ContainsFunc(r.faults, func(f Fault) bool { return strings.Contains(f.Message, tt.want) }) {
			t.Errorf("%s: no fault with %q", name, tt.want)
		}
	}
}

// What can be wrong with one test.
func TestCaseFaults(t *testing.T) {
	jwt := func(claims string) string { return sign(`{"alg":"HS256"}`, claims) }
	words := "the reasons are algorithm_not_allowed, audience_mismatch, claim_malformed, claim_missing, consumer_denied, credential_unknown, host_ambiguous, issuer_unknown, key_unknown, lifetime_exceeded, path_ambiguous, revoked, signature_invalid, subject_forged, subject_malformed, token_expired, token_malformed, token_missing, token_not_yet_valid, type_not_allowed"
	const ok = "expect: {decision: deny}"
	for text, want := range map[string]string{
		`{service: orders, ` + ok + `}`:                                                                 `tests[0]: name: is missing; say what is tested, such as "web may read orders"`,
		`{name: a, ` + ok + `}`:                                                                         `test "a": service: is missing; it names the Service that is called`,
		`{name: a, service: orders}`:                                                                    `test "a": expect: is missing; a test without it tests nothing: say decision: allow, or decision: deny with a reason`,
		`{name: a, service: none, ` + ok + `}`:                                                          `test "a": service: there is no Service "none" among the resources; there are batch, orders, web`,
		`{name: "", service: orders, ` + ok + `}`:                                                       `tests[0]: name: is empty: give it, or leave the field out`,
		`{name: a, service: orders, foo: 1, ` + ok + `}`:                                                `test "a": foo: unknown field; the fields here are as, claims, expect, header, name, now, request, service, token`,
		`{name: a, service: orders, as: orders, ` + ok + `}`:                                            `test "a": as: the built-in issuer gives orders no token for orders, which is not among its spec.calls; give claims to test a token that it would not issue`,
		`{name: a, service: orders, as: none, ` + ok + `}`:                                              `test "a": as: there is no Service "none" among the resources; there are batch, orders, web`,
		`{name: a, service: orders, as: web, token: x, ` + ok + `}`:                                     `test "a": token: stands for itself: leave out as and claims, or leave out token`,
		`{name: a, service: orders, header: {typ: x}, ` + ok + `}`:                                      `test "a": header: is the header of a token that is given by its claims: give claims or as; headers of the request are request.headers`,
		`{name: a, service: orders, claims: [a], ` + ok + `}`:                                           `test "a": claims: wants an object, not a list`,
		`{name: a, service: orders, claims: {a: .inf}, ` + ok + `}`:                                     `test "a": claims.a: the number ".inf" can't be in JSON`,
		`{name: a, service: orders, claims: ` + jwt(`{}`) + `, ` + ok + `}`:                             `test "a": claims: wants an object, not a text of 68 bytes`,
		`{name: a, service: orders, request: {headers: {host: x}}, ` + ok + `}`:                         `test "a": request.headers.host: is no field of its own: give request.host`,
		`{name: a, service: orders, request: {headers: {"a b": x}}, ` + ok + `}`:                        `test "a": request.headers.a b: is not the name of a header (RFC 9110 section 5.1)`,
		`{name: a, service: orders, request: {headers: {a: "x\r\ny"}}, ` + ok + `}`:                     `test "a": request.headers.a: has a line break or a NUL, which no header can hold`,
		`{name: a, service: orders, request: {path: 7}, ` + ok + `}`:                                    `test "a": request.path: wants a string, not the number "7"; quote it`,
		`{name: a, service: orders, expect: {}}`:                                                        `test "a": expect: says neither decision nor reason: give decision: allow, decision: deny, or the reason of a refusal`,
		`{name: a, service: orders, expect: {decision: maybe}}`:                                         `test "a": expect.decision: wants allow or deny, not "maybe"`,
		`{name: a, service: orders, expect: {decision: allow, reason: token_missing}}`:                  `test "a": expect: decision allow has no reason, rule, status or body: they are those of a refusal`,
		`{name: a, service: orders, expect: {decision: deny, path: /x}}`:                                `test "a": expect: path and form are those that the service gets, and a refusal does not reach it`,
		`{name: a, service: orders, expect: {reason: Token-Missing}}`:                                   `test "a": expect.reason: "Token-Missing" is not a reason (did you mean token_missing?); ` + words,
		`{name: a, service: orders, expect: {decision: allow, observed: x}}`:                            `test "a": expect.observed: "x" is not a reason; ` + words,
		`{name: a, service: orders, expect: {reason: ""}}`:                                              `test "a": expect.reason: "" is not a reason; ` + words,
		`{name: a, service: orders, expect: {decision: deny, status: 42}}`:                              `test "a": expect.status: wants an HTTP status such as 401, not the number "42"`,
		`{name: a, service: orders, token: ` + jwt(`{"iss":"https://idp.example"}`) + `, ` + ok + `}`:   `test "a": token: it is one of Issuer/idp, whose keys are at a URI, which a test does not fetch, so that its signature can't be verified here; give its claims instead`,
		`{name: a, service: orders, token: ` + jwt(`{"iss":"http://127.0.0.1:7402"}`) + `, ` + ok + `}`: `test "a": token: it is one of Issuer/watchword, whose keys are in the control plane, so that its signature can't be verified here; give its claims instead, or as: SERVICE`,
		`{name: a, service: orders, token: ` + jwt(`{"iss":"key-bob"}`) + `, ` + ok + `}`:               `test "a": token: it is one of the credential 0 of Consumer/bob, whose keys are made when it is applied, so that its signature can't be verified here; give its claims instead`,
	} {
		got := faultsOf(t, "policies: [mesh.yaml]\ntests:\n- "+text)
		if diff := cmp.Diff([]string{"tests.yaml:3: " + want}, got); diff != "" {
			t.Errorf("faults of %s\n(-want +got):\n%s", text, diff)
		}
	}
	again := "policies: [mesh.yaml]\ntests:\n- {name: a, service: web, " + ok + "}\n- {name: a, service: web, " + ok + "}"
	if diff := cmp.Diff([]string{`tests.yaml:4: name: "a" is the name of the test in line 3 already`}, faultsOf(t, again)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The resources may bring the built-in issuer of the real mesh, and a folder and
// a file in it are read once.
func TestBuiltinOfTheMesh(t *testing.T) {
	own := `{apiVersion: watchword.dev/v1, kind: Issuer, metadata: {name: watchword}, spec: {issuer: "https://sts.corp", keySet: {builtin: {trustDomain: corp, tokenLifetime: 10m}}}}`
	s, err := Load(Document{"t.yaml", `
policies: [mesh.yaml, mesh.yaml]
resources: [` + own + `]
now: 2027-01-15T08:00:00Z
tests: [{name: a, service: orders, as: web, expect: {decision: allow, issuer: "https://sts.corp", caller: "spiffe://corp/web"}}]`}, readMesh)
	if err != nil {
		t.Fatal(err)
	}
	for r := range s.Results(time.Time{}) {
		if text := fmt.Sprint(r.Steps); !r.Passed || !strings.Contains(text, "exp 1800000600") {
			t.Errorf("got %s: %+v\n%s", r.Got, r.Differences, text)
		}
	}
}

// Whatever a test file holds, it is read in time and gives faults or results,
// and each fault says what is wrong.
func FuzzLoad(f *testing.F) {
	f.Add("policies: [mesh.yaml]\ntests: [{name: a, service: orders, as: web, expect: {decision: allow}}]")
	f.Add("policies: [mesh.yaml]\ntests: [{name: a, service: orders, claims: {a: [1, {b: .5}]}, header: {typ: x}, expect: {reason: token_missing, headers: {a: null}}}]")
	f.Add("resources: [{apiVersion: watchword.dev/v1, kind: Service, metadata: {name: a}, spec: {}}]\nnow: 2027-01-15T08:00:00Z\ntests: [{name: a, service: a, request: {form: {a: [b]}}, expect: {decision: deny}}]")
	f.Add("a: &a [*a]\n? [b]\n: c\n<<: {}\n")
	f.Add("tests: &a [{name: *a}, {claims: {a: &b {c: *b}}}]")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Load(Document{"t.yaml", text}, readMesh)
		var faults *FaultsError
		switch {
		case errors.As(err, &faults):
			for _, fault := range faults.Faults {
				if fault.Message == "" {
					t.Fatalf("a fault without words in %q: %+v", text, faults.Faults)
				}
			}
			return
		case err != nil:
			t.Fatalf("Load(%q): %v", text, err)
		}
		n := 0
		for r := range s.Results(now) {
			if n++; r.Name == "" || r.Got == "" || r.Passed != (len(r.Differences) == 0) {
				t.Fatalf("Load(%q): result %+v", text, r)
			}
		}
		if n == 0 || n != s.Len() {
			t.Fatalf("Load(%q): %d results of %d tests", text, n, s.Len())
		}
	})
}
