package compile

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/internal/jose"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Each file of testdata is a mesh, and under ruleset/NAME what the data planes
// of each service must enforce. The file "unusable", if there is one, names
// issuers whose keys can't be used. Under outbound/NAME is what the instances of
// each service call others with, in the meshes that are about that.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := slices.IndexFunc(ar.Files, isOutput)
			if want < 0 {
				want = len(ar.Files)
			}
			in := inputOf(t, ar.Files[:want])
			var got []txtar.File
			for _, name := range in.State.Services() {
				got = append(got, txtar.File{Name: "ruleset/" + name, Data: shown(t, Ruleset(in, name))})
				if strings.HasPrefix(filepath.Base(file), "outbound") {
					got = append(got, txtar.File{Name: "outbound/" + name, Data: shown(t, Outbound(in, name))})
				}
			}
			if *update {
				ar.Files = append(ar.Files[:want:want], got...)
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(lines(ar.Files[want:]), lines(got)); diff != "" {
				t.Errorf("rulesets -want +got (rewrite with -update):\n%s", diff)
			}
		})
	}
}

func isOutput(f txtar.File) bool {
	return strings.HasPrefix(f.Name, "ruleset/") || strings.HasPrefix(f.Name, "outbound/")
}

func lines(files []txtar.File) []string {
	return strings.Split(string(txtar.Format(&txtar.Archive{Files: files})), "\n")
}

const builtinKeys = `{"keys":[
{"kty":"EC","crv":"P-256","alg":"ES256","kid":"w2","x":"-RrilcRJ-QOs7ZKtb3MRfxCpNAC3PzcE0sb0It_eFM4","y":"BKLQ598BrvWWsDe6FPZYV5XsI3UckY9f3PHGaOsmAvk"},
{"kty":"EC","crv":"P-256","alg":"ES256","kid":"w1","x":"P9505FFOjil8oumX2B7h0dctVBPD6je3euppPRzip7k","y":"NmjJBiEnH3x_ff-xKws2HHjaEi3yfNcHObuDUl5ClIs"}]}`

// inputOf reads a mesh, which must be without faults.
func inputOf(t testing.TB, files []txtar.File) Input {
	t.Helper()
	var docs []policy.Document
	var unusable []string
	for _, f := range files {
		if f.Name == "unusable" {
			unusable = strings.Fields(string(f.Data))
			continue
		}
		docs = append(docs, policy.Document{Source: f.Name, Content: string(f.Data)})
	}
	objects, faults := policy.Parse(docs)
	state := policy.State{}
	for _, o := range objects {
		state[o.Key] = o.Resource
	}
	if faults = append(faults, policy.Check(state)...); len(faults) > 0 {
		t.Fatalf("faults: %+v", faults)
	}
	in := Input{State: state, Keys: keysOf(t, state), Subject: subject}
	for _, name := range unusable {
		delete(in.Keys, name)
	}
	return in
}

func subject(service string) string { return "spiffe://mesh.test/" + service }

func keysOf(t testing.TB, state policy.State) map[string][]jose.Key {
	t.Helper()
	builtin, faults := jose.ParseSet([]byte(builtinKeys), jose.SetOptions{})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	keys := map[string][]jose.Key{policy.BuiltinIssuer: builtin}
	for _, k := range state.Keys() {
		if k.Kind == policy.KindIssuer && k.Name != policy.BuiltinIssuer {
			found, faults := policy.IssuerKeys(state.Issuer(k.Name))
			if len(faults) > 0 {
				t.Fatal(faults)
			}
			if state.Issuer(k.Name).GetKeySet().GetJwksUri() != nil {
				found = slices.Clone(builtin[:1]) // as if it had been fetched
			}
			keys[k.Name] = found
		}
	}
	return keys
}

// shown is JSON with the same blanks each time, unlike protojson's.
func shown(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	if b, err = json.MarshalIndent(v, "", "  "); err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

// Equal input gives equal bytes, in whatever order maps and key sets come.
func TestDeterministic(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.txtar")
	for _, file := range files {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		mesh := slices.DeleteFunc(ar.Files, isOutput)
		first := inputOf(t, mesh)
		for _, name := range first.State.Services() {
			want, wantOutbound := encoded(t, Ruleset(first, name)), encoded(t, Outbound(first, name))
			for range 20 {
				in := inputOf(t, mesh)
				for _, keys := range in.Keys {
					rand.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
				}
				if got := encoded(t, Ruleset(in, name)); !bytes.Equal(got, want) {
					t.Fatalf("%s: two rulesets of %s differ: %s and %s", file, name, shown(t, Ruleset(first, name)), shown(t, Ruleset(in, name)))
				}
				if got := encoded(t, Outbound(in, name)); !bytes.Equal(got, wantOutbound) {
					t.Fatalf("%s: two outbound sides of %s differ: %s and %s", file, name, shown(t, Outbound(first, name)), shown(t, Outbound(in, name)))
				}
			}
		}
	}
}

func encoded(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Compiling reads its input and no more: it is shared with everybody else.
func TestInputIsNotChanged(t *testing.T) {
	ar, err := txtar.ParseFile("testdata/authentication.txtar")
	if err != nil {
		t.Fatal(err)
	}
	in := inputOf(t, slices.DeleteFunc(ar.Files, isOutput))
	before := fmt.Sprint(in)
	for _, name := range in.State.Services() {
		Ruleset(in, name)
		Outbound(in, name)
	}
	if diff := cmp.Diff(before, fmt.Sprint(in)); diff != "" {
		t.Errorf("the input was changed:\n%s", diff)
	}
}

// What is not there has no ruleset.
func TestNoService(t *testing.T) {
	if rs := Ruleset(Input{State: policy.State{}, Subject: subject}, "a"); rs != nil {
		t.Errorf("Ruleset of a service that isn't there = %v", rs)
	}
	if out := Outbound(Input{State: policy.State{}, Subject: subject}, "a"); out != nil {
		t.Errorf("Outbound of a service that isn't there = %v", out)
	}
}
