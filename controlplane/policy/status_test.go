package policy

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
)

// What `get` shows beside what was written is taken and left out, whatever it
// is; it is no place to hide anything else.
func TestParseIgnoresStatus(t *testing.T) {
	want, faults := read(service)
	if len(faults) > 0 {
		t.Fatalf("faults: %+v", faults)
	}
	for _, status := range []string{"status: {keys: [{kid: a}], error: x}\n", "status:\n", "status: 7\n", "status: {a: 1}\nstatus: {b: 2}\n"} {
		got, faults := read(service + status)
		if len(faults) > 0 || len(got) != 1 || !proto.Equal(got[0].Resource, want[0].Resource) {
			t.Errorf("with %q: %+v, faults %+v; want the same resource as without", status, got, faults)
		}
	}
	_, faults = read(strings.Replace(service, "spec: {", "state: {}\nspec: {status: {}, ", 1))
	if len(faults) != 2 {
		t.Errorf("an unknown field, and a status in the spec: faults %+v, want two", faults)
	}
}
