package policy

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What Kong's API keeps with a consumer and its credentials can be written, and
// is checked, like the rest.
func TestCheckConsumerRecord(t *testing.T) {
	const secret = `keySet: {secret: {keys: [{secret: 0123456789abcdef0123456789abcdef}]}}`
	for spec, want := range map[string][]string{
		`{username: a, createdAt: 1751328000, credentials: [{key: k, tags: [x, y], createdAt: 253402300799, ` + secret + `}]}`: nil,
		`{username: a, createdAt: 253402300800, credentials: [{key: k, tags: [x, "", x], createdAt: "1751328000000", ` + secret + `}]}`: {
			"spec.createdAt: 253402300800 is not a time in seconds since 1970",
			`spec.credentials[0].tags[1]: "" can't stand in a header: one to 256 bytes, no control characters`,
			`spec.credentials[0].tags[2]: "x" is given twice`,
			"spec.credentials[0].createdAt: 1751328000000 is not a time in seconds since 1970",
		},
	} {
		text := "{apiVersion: watchword.dev/v1, kind: Consumer, metadata: {name: a}, spec: " + spec + "}"
		objects, faults := Parse([]Document{{Source: "a.yaml", Content: text}})
		if len(faults) > 0 {
			t.Fatalf("%s: %+v", text, faults)
		}
		var got []string
		for _, f := range Check(State{objects[0].Key: objects[0].Resource}) {
			got = append(got, f.Field+": "+f.Message)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s\nfaults -want +got:\n%s", text, diff)
		}
	}
}
