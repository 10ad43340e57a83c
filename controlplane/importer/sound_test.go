package importer

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// What is printed reads back as what was meant, in every golden file. (That
// apply takes it is among what the imports say themselves.)
func TestGoldenReadsBack(t *testing.T) {
	for _, file := range goldenFiles(t) {
		r := parseCommand(t, parseGolden(t, file))
		if result, err := importers[r.importer](r.files, r.options); err == nil {
			readsBack(t, file, result)
		}
	}
}

func readsBack(t *testing.T, input string, r Result) {
	t.Helper()
	text := yamlOf(t, r)
	objects, faults := policy.Parse([]policy.Document{{Source: "import", Content: string(text)}})
	var got []*policyv1.Resource
	for _, o := range objects {
		got = append(got, o.Resource)
	}
	if diff := cmp.Diff(r.Resources, got, protocmp.Transform()); diff != "" || len(faults) > 0 {
		t.Errorf("of %s the resources\n%s\nhave the faults %v, and differ -want +got:\n%s", input, text, faults, diff)
	}
}
