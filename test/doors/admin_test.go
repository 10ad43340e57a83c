package doors

import (
	"bufio"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// want is what shall come of a call by an actor.
func (d door) want(a *actor) string {
	who := strings.Fields(d.who)
	switch {
	case a.is == "unauthenticated" || a.is == "no TLS":
		return a.is
	case a.is == "all" || slices.Contains(who, a.is):
		return "allowed"
	case slices.Contains(who, a.is+"(404)"):
		return "hidden"
	}
	return "denied"
}

// outcomes of the answers. Other answers are named by their code.
var outcomes = map[codes.Code]string{
	codes.OK: "allowed", codes.Unauthenticated: "unauthenticated", codes.PermissionDenied: "denied", codes.NotFound: "hidden", codes.Unavailable: "no TLS",
}

var httpOutcomes = map[int]string{
	http.StatusOK: "allowed", http.StatusCreated: "allowed", http.StatusNoContent: "allowed",
	http.StatusUnauthorized: "unauthenticated", http.StatusForbidden: "denied", http.StatusNotFound: "hidden",
}

// callGRPC makes the call; detail is for a test that fails.
func (d door) callGRPC(t *testing.T, a *actor, x string) (outcome, detail string) {
	ctx := patient(t)
	if a.token != nil {
		ctx = meshtest.BearerToken(a.token()).Context(ctx)
	}
	err := d.grpc(ctx, adminv1.NewAdminServiceClient(a.conn), x)
	if outcome = outcomes[status.Code(err)]; outcome == "" {
		outcome = status.Code(err).String()
	}
	return outcome, status.Convert(err).Message()
}

func (d door) callHTTP(t *testing.T, m *mesh, a *actor, x string) (outcome, detail string) {
	t.Helper()
	var body io.Reader
	if d.body != "" {
		body = strings.NewReader(strings.ReplaceAll(d.body, "{x}", x))
	}
	req, err := http.NewRequestWithContext(t.Context(), d.verb, "https://"+m.Config.AdminListen+strings.ReplaceAll(d.path, "{x}", x), body)
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if a.token != nil {
		req.Header.Set("Authorization", "Bearer "+a.token())
	}
	res, err := a.http.Do(req)
	if err != nil {
		return "no TLS", err.Error()
	}
	defer res.Body.Close()
	// A watch goes on for as long as somebody reads it.
	reader := bufio.NewReader(res.Body)
	text, err := reader.ReadString('\n')
	if err == nil && !strings.HasSuffix(d.path, "/watch") {
		var rest []byte
		rest, err = io.ReadAll(reader)
		text += string(rest)
	}
	if err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if outcome = httpOutcomes[res.StatusCode]; outcome == "" {
		outcome = res.Status
	}
	return outcome, text
}

// Every call of the admin API by everybody who may come to it.
func TestDoors(t *testing.T) {
	t.Parallel()
	corp := meshtest.NewSigner(t, "ES256")
	m := startMesh(t, cast(corp))
	everybody := actors(t, m, corp)
	node := m.enrol(t, "target")
	openStream(t, m.dial(t, m.Config.XDSListen, certificateOf(node)), "target-node").get(t, "target")
	doors := adminDoors()
	wantRowForEveryMethod(t, doors)
	cells := 0
	for _, d := range doors {
		for _, a := range everybody {
			for _, form := range []string{"gRPC", "JSON"} {
				if form == "gRPC" && d.grpc == nil {
					continue
				}
				cells++
				d.try(t, m, a, form)
			}
		}
	}
	t.Logf("%d cells: %d calls by %d actors", cells, len(doors), len(everybody))
	wantWrittenDown(t, m, doors)
}

func (d door) try(t *testing.T, m *mesh, a *actor, form string) {
	t.Helper()
	want, x := d.want(a), "x"
	if d.fresh != nil && want != "unauthenticated" && want != "no TLS" {
		x = d.fresh(t, m)
	}
	var got, detail string
	if form == "gRPC" {
		got, detail = d.callGRPC(t, a, x)
	} else {
		got, detail = d.callHTTP(t, m, a, x)
	}
	if got != want {
		t.Errorf("%s (%s %s) as %s by %q: got %s, want %s\n%.300s", d.method, d.verb, d.path, form, a.name, got, want, detail)
	}
	if d.after != nil && got == "allowed" {
		d.after(t, m)
	}
}

func wantRowForEveryMethod(t *testing.T, doors []door) {
	t.Helper()
	methods := adminv1.File_watchword_admin_v1_admin_proto.Services().ByName("AdminService").Methods()
	for i := range methods.Len() {
		name := string(methods.Get(i).Name())
		if !slices.ContainsFunc(doors, func(d door) bool { return d.method == name }) {
			t.Errorf("%s has no row in the table", name)
		}
	}
}

// wantWrittenDown wants each kind of change, and of refusal, to be in the audit.
func wantWrittenDown(t *testing.T, m *mesh, doors []door) {
	t.Helper()
	done := map[string]bool{}
	before := ""
	for {
		page, err := m.root.ListAudit(t.Context(), &adminv1.ListAuditRequest{Limit: 1000, Before: before})
		if err != nil {
			t.Fatal(err)
		}
		if len(page.GetEntries()) == 0 {
			break
		}
		for _, e := range page.GetEntries() {
			before = e.GetId()
			done[e.GetMethod()] = done[e.GetMethod()] || e.GetOutcome() == adminv1.AuditEntry_DONE
		}
	}
	for _, d := range doors {
		if d.grpc != nil && d.verb != http.MethodGet && d.method != "Explain" && !done[d.method] {
			t.Errorf("%s was allowed, and the audit has it nowhere; it has %v", d.method, done)
		}
	}
}
