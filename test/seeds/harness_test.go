// Package seeds proves what the documents that this project serves say: each
// one's own configuration is imported, its own tokens go through a real Envoy
// that the control plane manages, and what comes out is what it says, to the
// byte; the Go data plane's reference has to decide the same. Where a document
// can't be taken at its word, a comment says why.
package seeds

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/watchword-mesh/watchword/controlplane/importer"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// mesh is a control plane, and an Envoy for each service that was deployed.
type mesh struct {
	meshtest.ControlPlane
	echo    meshtest.Echo
	inbound map[string]string
	envoys  map[string]*meshtest.Envoy
	// reference decides on each request that is checked, too.
	reference reference
}

func startMesh(t *testing.T) *mesh {
	t.Helper()
	m := &mesh{inbound: map[string]string{}, envoys: map[string]*meshtest.Envoy{}}
	m.echo.Start(t)
	m.ControlPlane.Start(t)
	return m
}

type importFunc func([]importer.File, importer.Options) (importer.Result, error)

// imported is what an importer makes of a configuration, of which nothing may
// be left over.
func imported(t *testing.T, from importFunc, config string, o importer.Options) importer.Result {
	t.Helper()
	r, err := from([]importer.File{{Name: "document", Content: []byte(config)}}, o)
	if err != nil {
		t.Fatalf("importing: %v\nconfiguration:\n%s", err, config)
	}
	if len(r.Left) > 0 {
		t.Fatalf("importing has left over %v\nconfiguration:\n%s", r.Left, config)
	}
	return r
}

// deploy puts what was imported, with more documents, in place of all that was
// there before, and returns when every Envoy enforces it. Services get an Envoy
// in front of Echo.
func (m *mesh) deploy(t *testing.T, r importer.Result, more ...string) *adminv1.ApplyResponse {
	t.Helper()
	var services []string
	for _, res := range r.Resources {
		if s := res.GetService(); s != nil {
			name := res.GetMetadata().GetName()
			services = append(services, name)
			s.Inbound = &policyv1.Inbound{Port: m.port(t, name), LocalAddress: m.echo.Address}
		}
	}
	yaml, err := r.YAML()
	if err != nil {
		t.Fatal(err)
	}
	return m.apply(t, strings.Join(append([]string{string(yaml)}, more...), "---\n"), services...)
}

// apply is deploy of YAML, in which the services have their inbound.
func (m *mesh) apply(t *testing.T, yaml string, services ...string) *adminv1.ApplyResponse {
	t.Helper()
	req := meshtest.Documents(yaml)
	req.Prune = true
	resp, err := m.Admin.Apply(t.Context(), req)
	if err != nil {
		t.Fatalf("apply: %s\ndocuments:\n%s", meshtest.Explain(err), yaml)
	}
	for _, name := range services {
		if m.envoys[name] == nil {
			m.envoys[name] = &meshtest.Envoy{Service: name, ADS: m.Config.XDSListen, Join: func() string { return m.JoinToken(t, name) }, Concurrency: 1}
			m.envoys[name].Start(t)
			m.WaitConnected(t, name, 1)
		}
	}
	m.waitFor(t, resp)
	m.reference.load(t, m, yaml, resp)
	return resp
}

func (m *mesh) waitFor(t *testing.T, resp *adminv1.ApplyResponse) {
	t.Helper()
	stream, err := m.Admin.WaitInSync(t.Context(), &adminv1.WaitInSyncRequest{
		Revision: resp.GetRevision(), Services: resp.GetServices(), Timeout: durationpb.New(meshtest.Patience),
	})
	if err != nil {
		t.Fatal(err)
	}
	for {
		progress, err := stream.Recv()
		if err != nil {
			t.Fatalf("waiting for revision %d: %v", resp.GetRevision(), err)
		}
		if progress.GetDone() {
			return
		}
	}
}

// port is where the Envoy of a service listens.
func (m *mesh) port(t *testing.T, service string) uint32 {
	t.Helper()
	if m.inbound[service] == "" {
		m.inbound[service] = meshtest.FreeAddress(t)
	}
	_, port, err := net.SplitHostPort(m.inbound[service])
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(n)
}

// inboundOf is the inbound of a Service that is written by hand.
func (m *mesh) inboundOf(t *testing.T, service string) string {
	t.Helper()
	return fmt.Sprintf("inbound: {port: %d, localAddress: %q}", m.port(t, service), m.echo.Address)
}

// faults are what apply has to say against YAML, one a line.
func (m *mesh) faults(t *testing.T, yaml string) string {
	t.Helper()
	_, err := m.Admin.Apply(t.Context(), meshtest.Documents(yaml))
	if err == nil {
		t.Fatalf("applied, want it refused:\n%s", yaml)
	}
	return meshtest.Explain(err)
}

// wantFault checks that YAML is refused, and why.
func (m *mesh) wantFault(t *testing.T, what, yaml, fault string) {
	t.Helper()
	if got := m.faults(t, yaml); !strings.Contains(got, fault) {
		t.Errorf("%s: refused with:\n%s\nwant a fault with %q; documents:\n%s", what, got, fault, yaml)
	}
}

// row is a request and what becomes of it.
type row struct {
	what string
	call meshtest.Call
	want want
}

// want is what becomes of a request: it is refused with a status, or reaches the
// service as it was sent but for what the rest says.
type want struct {
	status       int
	reason, body string

	// header has what the service sees in other words; "" is what it must not see.
	header map[string]string
	query  *string
	form   *string
}

func refused(status int, reason, body string) want {
	return want{status: status, reason: reason, body: body}
}

func allowed(headers ...map[string]string) want {
	w := want{header: map[string]string{}}
	for _, h := range headers {
		maps.Copy(w.header, h)
	}
	return w
}

// withQuery is want, with another query.
func (w want) withQuery(query string) want { w.query = &query; return w }

// withForm is want, with another body.
func (w want) withForm(form string) want { w.form = &form; return w }

// caller are the headers in which Watchword names who calls.
func caller(sub, iss, consumer string) map[string]string {
	return map[string]string{"X-Watchword-Caller": sub, "X-Watchword-Issuer": iss, "X-Watchword-Consumer": consumer}
}

// check sends the requests to the Envoy of a service.
func (m *mesh) check(t *testing.T, service string, rows ...row) {
	t.Helper()
	for _, r := range rows {
		m.checkAnswer(t, service, r, meshtest.Send(t, m.inbound[service], r.call))
	}
}

func (m *mesh) checkAnswer(t *testing.T, service string, r row, got meshtest.Answer) {
	t.Helper()
	m.reference.check(t, service, r)
	if r.want.status != 0 {
		if diff := gocmp.Diff(refusal(service, r.want), answered(got)); diff != "" {
			t.Errorf("%s: %s: -want +got:\n%s", r.what, r.call, diff)
		}
		return
	}
	if got.Seen == nil {
		t.Errorf("%s: %s: got %d %q (%s), want it to reach the service", r.what, r.call, got.Status, got.Body, got.Header.Get("X-Watchword-Reason"))
		return
	}
	if diff := gocmp.Diff(forwarded(r), seen(*got.Seen)); diff != "" {
		t.Errorf("%s: %s: the service saw -want +got:\n%s", r.what, r.call, diff)
	}
}

// told is all that a refusal says.
type told struct {
	Status                                     int
	Body, Reason, ContentType, WWWAuthenticate string
}

func answered(a meshtest.Answer) told {
	return told{a.Status, a.Body, a.Header.Get("X-Watchword-Reason"), a.Header.Get("Content-Type"), a.Header.Get("WWW-Authenticate")}
}

// refusal is what RFC 6750 section 3 asks for beside the document's own words.
func refusal(service string, w want) told {
	out := told{Status: w.status, Body: w.body, Reason: w.reason, ContentType: "text/plain"}
	if out.Body == "" {
		out.Body = `{"reason":"` + w.reason + `"}`
	}
	if strings.HasPrefix(out.Body, "{") {
		out.ContentType = "application/json"
	}
	if w.status == http.StatusUnauthorized {
		out.WWWAuthenticate = `Bearer realm="` + service + `"`
		if w.reason != "token_missing" {
			out.WWWAuthenticate += `, error="invalid_token", error_description="` + w.reason + `"`
		}
	}
	return out
}

// request is what a service sees of one.
type request struct {
	Method, Path, Query, Body string
	Header                    map[string]string
}

// transport are headers that say nothing about who calls.
var transport = []string{"User-Agent", "X-Forwarded-Proto", "X-Request-Id", "X-Envoy-Expected-Rq-Timeout-Ms", "X-Envoy-External-Address", "X-Forwarded-For", "Content-Length"}

func seen(s meshtest.Seen) request {
	out := request{s.Method, s.Path, s.Query, s.Body, map[string]string{}}
	for name, values := range s.Header {
		if !slices.Contains(transport, name) {
			out.Header[name] = strings.Join(values, ",")
		}
	}
	return out
}

// forwarded is the request as it was sent, changed as the row says.
func forwarded(r row) request {
	path, query, _ := strings.Cut(r.call.Path, "?")
	out := request{cmp.Or(r.call.Method, http.MethodGet), cmp.Or(path, "/"), query, r.call.Body, map[string]string{}}
	for name, values := range r.call.Header {
		out.Header[http.CanonicalHeaderKey(name)] = strings.Join(values, ",")
	}
	if r.call.Token != "" {
		out.Header["Authorization"] = "Bearer " + r.call.Token
	}
	for name, value := range r.want.header {
		out.Header[http.CanonicalHeaderKey(name)] = value
	}
	maps.DeleteFunc(out.Header, func(_, value string) bool { return value == "" })
	if r.want.query != nil {
		out.Query = *r.want.query
	}
	if r.want.form != nil {
		out.Body = *r.want.form
	}
	return out
}

// keysOfAll makes a key for each algorithm; those of RSA share one pair.
func keysOfAll(t *testing.T, newSigner func(*testing.T, string) *meshtest.Signer) map[string]*meshtest.Signer {
	t.Helper()
	out, pair := map[string]*meshtest.Signer{}, newSigner(t, "RS256")
	for _, alg := range meshtest.Algorithms {
		if strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS") {
			out[alg] = pair.Use(alg)
		} else {
			out[alg] = newSigner(t, alg)
		}
	}
	return out
}

// header is one request header.
func header(name, value string) http.Header { return http.Header{name: {value}} }

// flip changes a signature, at its beginning: the last character may hold
// nothing but padding.
func flip(token string) string {
	i := strings.LastIndex(token, ".") + 1
	first := byte('A')
	if token[i] == first {
		first = 'B'
	}
	return token[:i] + string(first) + token[i+1:]
}

// resource is one YAML document with the lines of its spec.
func resource(kind, name string, spec ...string) string {
	return fmt.Sprintf("---\napiVersion: watchword.dev/v1\nkind: %s\nmetadata: {name: %s}\nspec:\n  %s\n", kind, name, strings.Join(spec, "\n  "))
}
