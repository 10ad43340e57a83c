// Package test holds what is true of the repository as a whole. Its folders
// are end-to-end tests, the demo and the benchmarks.
package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/watchword-mesh/watchword"

// layout says for each package which packages of ours it may import. Imports
// point down: a package is listed above what it imports. "x/..." is x and all
// below it; where two rows fit, the longer path counts. Tests may import more.
var layout = []struct {
	pkg string
	may []string
}{
	{"test/...", []string{"..."}},
	{"deployments/...", []string{"..."}},

	{"controlplane/cmd/watchword", []string{"controlplane", "controlplane/envoy", "controlplane/importer", "controlplane/policytest", "controlplane/transport", "dataplane/enrolment", "dataplane/reason", "dataplane/ruleset", "dataplane/sds", "internal/identity", "proto/..."}},
	{"controlplane", []string{"controlplane/...", "dataplane/ruleset", "issuer/...", "internal/failures", "internal/quota", "internal/identity", "internal/jointoken", "internal/jose", "proto/..."}},
	{"controlplane/policytest", []string{"controlplane/policy", "controlplane/compile", "dataplane/ruleset", "dataplane/reason", "issuer/sts", "issuer/token", "internal/jose", "proto/..."}},
	{"controlplane/api", []string{"controlplane/access", "controlplane/audit", "controlplane/policy", "controlplane/envoy", "internal/failures", "internal/identity", "internal/quota", "proto/..."}},
	{"controlplane/kong", []string{"controlplane/policy", "internal/identity", "internal/jose", "proto/..."}},
	{"controlplane/accesslog", []string{"controlplane/envoy", "dataplane/reason"}},
	{"controlplane/access", []string{"controlplane/policy", "proto/..."}},
	{"controlplane/audit", nil},
	{"controlplane/rotation", []string{"controlplane/ledger", "issuer/keyset"}},
	{"controlplane/ledger", nil},
	{"controlplane/bearer", []string{"internal/jose"}},
	{"controlplane/enrolment", []string{"controlplane/audit", "controlplane/bearer", "controlplane/store", "internal/failures", "internal/identity", "internal/jointoken", "internal/quota", "issuer/ca", "proto/..."}},
	{"controlplane/transport", []string{"internal/failures", "internal/quota"}},
	{"controlplane/xds", []string{"controlplane/ledger", "internal/quota"}},
	{"controlplane/envoy", []string{"dataplane/reason", "internal/identity", "proto/..."}},
	{"controlplane/compile", []string{"controlplane/policy", "internal/jose", "proto/..."}},
	{"controlplane/revocation", []string{"internal/identity", "proto/watchword/dataplane/v1"}},
	{"controlplane/store", []string{"controlplane/audit", "controlplane/ledger", "controlplane/policy", "controlplane/revocation", "controlplane/bundle", "issuer/ca", "issuer/keyset", "issuer/clientauth", "proto/..."}},
	{"controlplane/bundle", []string{"internal/jose", "proto/..."}},
	{"controlplane/importer", []string{"controlplane/policy", "internal/jose", "proto/..."}},
	{"controlplane/policy", []string{"dataplane/reason", "internal/identity", "internal/jose", "proto/..."}},

	{"issuer/sts", []string{"issuer/token", "issuer/clientauth", "issuer/keyset", "internal/failures", "internal/quota", "internal/jointoken", "internal/jose"}},
	{"issuer/token", []string{"issuer/keyset", "internal/jose"}},
	{"issuer/clientauth", []string{"internal/jose"}},
	{"issuer/ca", []string{"internal/identity", "internal/jointoken", "internal/jose"}},
	{"issuer/keyset", []string{"internal/jose"}},

	{"dataplane/cmd/watchword-sidecar", []string{"dataplane", "dataplane/enrolment", "dataplane/proxy", "dataplane/tokens"}},
	{"dataplane/proxy", nil},
	{"dataplane", []string{"dataplane/enrolment", "dataplane/lastgood", "dataplane/reason", "dataplane/ruleset", "dataplane/tokens", "dataplane/xdsclient", "proto/watchword/dataplane/v1"}},
	{"dataplane/ruleset", []string{"dataplane/reason", "internal/jose", "proto/watchword/dataplane/v1"}},
	{"dataplane/tokens", []string{"dataplane/reason", "internal/jose"}},
	{"dataplane/xdsclient", nil},
	{"dataplane/lastgood", []string{"internal/atomicfile"}},
	{"dataplane/enrolment", []string{"internal/atomicfile", "internal/identity", "internal/jointoken", "internal/jose", "proto/watchword/enrolment/v1"}},
	{"dataplane/sds", nil},
	{"dataplane/reason", nil},
	{"internal/jose", nil},
	{"internal/atomicfile", nil},
	{"internal/failures", nil},
	{"internal/identity", nil},
	{"internal/quota", nil},
	{"internal/jointoken", nil},
	{"proto/...", []string{"proto/..."}},
}

// owners are libraries that one package alone may import, so that replacing
// them stays a change of one package.
var owners = []struct {
	library, owner string
	tests          bool // also tests must go through the owner
	why            string
}{
	{"github.com/lestrrat-go/jwx", "internal/jose", true,
		"it accepts what we must refuse; whoever touches a key or a token goes through internal/jose"},
	{"go.etcd.io", "controlplane/store", false,
		"transactions, compaction and leases are handled in one place; ask the store"},
}

// walls keep out of a folder's programs what they must not link, by whatever way.
var walls = []struct{ folder, mustNotLink, why string }{
	{"dataplane", module + "/controlplane", "a data plane is linked into other people's programs and works without the control plane"},
	{"dataplane", module + "/issuer", "a data plane verifies tokens, it never signs them"},
	{"dataplane", "go.etcd.io", "a data plane is linked into other people's programs, and etcd triples their size"},
	{"issuer", module + "/controlplane", "the issuer declares what it needs as interfaces, the control plane implements them"},
}

// purePackages turn equal input into equal bytes.
var purePackages = []string{"controlplane/access", "controlplane/bearer", "controlplane/compile", "controlplane/envoy", "controlplane/importer", "controlplane/ledger", "controlplane/policy", "controlplane/policytest", "controlplane/revocation", "controlplane/rotation", "dataplane/reason", "dataplane/ruleset"}

const (
	noIO     = "does I/O; let the caller pass in the bytes"
	noClock  = "reads the clock, so equal input gives different bytes; let the caller pass in the time"
	noChance = "is random, so equal input gives different bytes; derive it from the input"
	noLog    = "is a side effect; return what there is to say"
)

// impureImports are packages that a pure one has no use for.
var impureImports = map[string]string{
	"net/http": noIO, "os": noIO, "os/exec": noIO, "os/signal": noIO, "syscall": noIO, "io/ioutil": noIO,
	"math/rand": noChance, "math/rand/v2": noChance, "crypto/rand": noChance,
	"log": noLog, "log/slog": noLog, "github.com/hashicorp/go-hclog": noLog,
}

// mixedImports are packages that are pure in part: what a pure one may use of them.
var mixedImports = map[string]struct {
	why string
	may func(name string) bool
}{
	"time": {noClock, func(name string) bool {
		return !slices.Contains([]string{"After", "AfterFunc", "Local", "NewTicker", "NewTimer", "Now", "Since", "Sleep", "Tick", "Until"}, name)
	}},
	"net": {noIO, func(name string) bool {
		return slices.Contains([]string{"JoinHostPort", "SplitHostPort"}, name)
	}},
}

// pkg is what `go list` says of a package.
type pkg struct {
	ImportPath, Dir                    string
	GoFiles                            []string
	Imports, TestImports, XTestImports []string
	Deps                               []string
}

// TestLayout proves that the packages of the repository import each other, and
// the libraries that have an owner, only as the tables above say.
func TestLayout(t *testing.T) {
	pkgs := list(t)
	report(t, importFaults(pkgs))
	report(t, ownerFaults(pkgs))
	report(t, wallFaults(pkgs))
}

// TestPurePackages proves that nothing in a pure package reads a clock, does
// I/O, logs, or is random.
func TestPurePackages(t *testing.T) {
	for _, p := range list(t) {
		if !slices.Contains(purePackages, ours(p.ImportPath)) {
			continue
		}
		for _, name := range p.GoFiles {
			report(t, impurities(t, filepath.Join(p.Dir, name), nil))
		}
	}
}

// TestLayoutBites proves that each rule finds what it is there for.
func TestLayoutBites(t *testing.T) {
	pkgs := []pkg{
		{ImportPath: module + "/controlplane/common"},
		{ImportPath: module + "/issuer/token",
			Imports:     []string{"fmt", module + "/issuer/sts", module + "/issuer/keyset", "go.etcd.io/etcd/client/v3"},
			TestImports: []string{"github.com/lestrrat-go/jwx/v2/jwk", "go.etcd.io/etcd/server/v3/embed"},
			Deps:        []string{module + "/controlplane/store"}},
		{ImportPath: module + "/dataplane/reason", Deps: []string{"fmt", "go.etcd.io/bbolt"}},
		{ImportPath: module + "/internal/jose", Imports: []string{"github.com/lestrrat-go/jwx/v2/jwk"}},
	}
	src := `package p
import (
	"net"
	clock "time"
	"os"
)
var _, _ = clock.Now, clock.Second
var _, _ = net.Dial, net.SplitHostPort
var _ = os.Args
`
	got := slices.Concat(importFaults(pkgs), ownerFaults(pkgs), wallFaults(pkgs), impurities(t, "p.go", []byte(src)))
	want := []string{
		"package controlplane/common has no row in the table `layout` of test/layout_test.go: add it, with what it may import; if the name is the fault, give it one that says what it owns",
		"issuer/token imports issuer/sts, but may import of ours only: issuer/keyset, internal/jose",
		"issuer/token imports github.com/lestrrat-go/jwx/v2/jwk, which is for internal/jose alone: " + owners[0].why,
		"issuer/token imports go.etcd.io/etcd/client/v3, which is for controlplane/store alone: " + owners[1].why,
		"dataplane/reason links go.etcd.io/bbolt: " + walls[2].why,
		"issuer/token links " + module + "/controlplane/store: " + walls[3].why,
		"p.go:5: a pure package imports os, which " + noIO,
		"p.go:7: a pure package uses time.Now, which " + noClock,
		"p.go:8: a pure package uses net.Dial, which " + noIO,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("faults of %+v and of\n%s\n(-want +got):\n%s", pkgs, src, diff)
	}
}

// list asks the go command for all packages of the module.
func list(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports,TestImports,XTestImports,Deps", "./...")
	cmd.Dir = ".."
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, &stderr)
	}
	var pkgs []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatalf("%s: %v", cmd, err)
		}
		pkgs = append(pkgs, p)
	}
}

func report(t *testing.T, faults []string) {
	t.Helper()
	for _, f := range faults {
		t.Error(f)
	}
}

func importFaults(pkgs []pkg) []string {
	var faults []string
	for _, p := range pkgs {
		name := ours(p.ImportPath)
		may, ok := allowed(name)
		if !ok {
			faults = append(faults, fmt.Sprintf("package %s has no row in the table `layout` of test/layout_test.go: add it, with what it may import; if the name is the fault, give it one that says what it owns", name))
			continue
		}
		for _, imp := range p.Imports {
			if within(imp, module) && !slices.ContainsFunc(may, func(pattern string) bool { return fits(ours(imp), pattern) }) {
				faults = append(faults, fmt.Sprintf("%s imports %s, but may import of ours only: %s", name, ours(imp), orNothing(may)))
			}
		}
	}
	return faults
}

func ownerFaults(pkgs []pkg) []string {
	var faults []string
	for _, o := range owners {
		for _, p := range pkgs {
			name := ours(p.ImportPath)
			imports := slices.Clone(p.Imports)
			if o.tests {
				imports = slices.Concat(imports, p.TestImports, p.XTestImports)
			} else if within(name, "test") {
				continue
			}
			for _, imp := range imports {
				if within(imp, o.library) && name != o.owner {
					faults = append(faults, fmt.Sprintf("%s imports %s, which is for %s alone: %s", name, imp, o.owner, o.why))
				}
			}
		}
	}
	return faults
}

func wallFaults(pkgs []pkg) []string {
	var faults []string
	for _, w := range walls {
		for _, p := range pkgs {
			name := ours(p.ImportPath)
			if !within(name, w.folder) {
				continue
			}
			if i := slices.IndexFunc(p.Deps, func(dep string) bool { return within(dep, w.mustNotLink) }); i >= 0 {
				faults = append(faults, fmt.Sprintf("%s links %s: %s", name, p.Deps[i], w.why))
			}
		}
	}
	return faults
}

// impurities reads one Go file (src, or the file's content if src is nil).
func impurities(t *testing.T, file string, src []byte) []string {
	t.Helper()
	fset := token.NewFileSet()
	var input any // a nil []byte in it would not be nil
	if src != nil {
		input = src
	}
	f, err := parser.ParseFile(fset, file, input, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	var faults []string
	add := func(pos token.Pos, verb, what, why string) {
		faults = append(faults, fmt.Sprintf("%s:%d: a pure package %s %s, which %s", file, fset.Position(pos).Line, verb, what, why))
	}
	mixed := map[string]string{} // the name that the file uses -> import path
	for _, imp := range f.Imports {
		importPath, err := strconv.Unquote(imp.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		if why, ok := impureImports[importPath]; ok {
			add(imp.Pos(), "imports", importPath, why)
		}
		if _, ok := mixedImports[importPath]; ok {
			name := path.Base(importPath)
			if imp.Name != nil {
				name = imp.Name.Name
			}
			mixed[name] = importPath
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := sel.X.(*ast.Ident); ok && mixed[x.Name] != "" {
			if rule := mixedImports[mixed[x.Name]]; !rule.may(sel.Sel.Name) {
				add(sel.Pos(), "uses", mixed[x.Name]+"."+sel.Sel.Name, rule.why)
			}
		}
		return true
	})
	return faults
}

// allowed returns what the most specific row of the layout lets a package import.
func allowed(name string) (may []string, ok bool) {
	best := -1
	for _, row := range layout {
		if fits(name, row.pkg) && len(row.pkg) > best {
			best, may = len(row.pkg), row.may
		}
	}
	return may, best >= 0
}

// fits tells whether a package is one that a pattern names.
func fits(name, pattern string) bool {
	if pattern == "..." {
		return true
	}
	if folder, ok := strings.CutSuffix(pattern, "/..."); ok {
		return within(name, folder)
	}
	return name == pattern
}

// within tells whether a package is folder or below it.
func within(name, folder string) bool {
	return name == folder || strings.HasPrefix(name, folder+"/")
}

// ours shortens an import path to the one inside the module.
func ours(importPath string) string {
	return strings.TrimPrefix(strings.TrimPrefix(importPath, module), "/")
}

func orNothing(may []string) string {
	if len(may) == 0 {
		return "nothing"
	}
	return strings.Join(may, ", ")
}
