package controlplane

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// Who waits for its own services alone is not told of others, nor how many there are;
// a service that is named twice counts once.
func TestProgressOfOnly(t *testing.T) {
	r := begin(t)
	names := r.state.Config.Services()
	if len(names) < 2 {
		t.Fatalf("the mesh has the services %v; want two", names)
	}
	r.connect(names[0], names[1])
	d := dataPlanes{xds: r.xds}
	own := []string{names[0], names[0]}
	for revision, done := range map[int64]bool{1: true, 2: false} {
		all, _ := d.Progress(revision, own, false)
		only, changed := d.Progress(revision, own, true)
		if diff := cmp.Diff(&adminv1.WaitInSyncResponse{Total: 1, InSync: 1, Done: done}, only, protocmp.Transform()); diff != "" || changed == nil {
			t.Errorf("only %s at revision %d: -want +got:\n%s", names[0], revision, diff)
		}
		if revision == 1 && all.GetTotal() != 2 {
			t.Errorf("all that revision 1 touched are %d; want 2", all.GetTotal())
		}
	}
	for revision, want := range map[int64]string{1: names[0] + names[1], 2: names[0]} {
		for _, only := range []bool{false, true} {
			if only {
				want = names[0]
			}
			got := ""
			confirmed, unknown := d.Receipt(revision, own, only)
			for _, c := range confirmed {
				got += c.GetService()
				if c.GetNode() == "" || c.GetInstance() == "" || c.GetTime().AsTime().IsZero() {
					t.Errorf("confirmed: %v; want a node, an instance and a time", c)
				}
			}
			if got != want || len(unknown) > 0 {
				t.Errorf("receipt of revision %d for %v, only these: %t: %q, unknown %v; want %q", revision, own, only, got, unknown, want)
			}
		}
	}
	none, _ := d.Progress(1, []string{"nobody"}, true)
	if none.GetTotal() != 0 || !none.GetDone() {
		t.Errorf("a service without data planes: %v; want none, and done", none)
	}
}
