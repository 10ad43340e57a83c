package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// Two operators who rotate the key-encryption key at the same moment lose nothing:
// one does it, the other is told to wait, and after a restart everything is read.
func TestTwoRotationsAtOnce(t *testing.T) {
	t.Parallel()
	p := newProcess(t, meshtest.ShortDir(t))
	admin := p.serving(t)
	var sealed []string
	for i := range 150 { // for more than one transaction
		sealed = append(sealed, resource("Issuer", fmt.Sprintf("shared-%d", i), fmt.Sprintf(
			`{issuer: "https://i%d.example", keySet: {jwks: '{"keys":[{"kty":"oct","alg":"HS256","k":"%s"}]}'}}`, i, strings.Repeat("A", 43))))
	}
	if _, err := admin.Apply(t.Context(), meshtest.Documents(strings.Join(sealed, ""))); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		var all sync.WaitGroup
		texts, errs := make([]string, 2), make([]error, 2)
		for i := range errs {
			all.Go(func() {
				cmd := exec.CommandContext(t.Context(), binary, "kek", "rotate")
				cmd.Env = append(os.Environ(), "WATCHWORD_SERVER=unix:"+filepath.Join(p.dir, "admin.sock"))
				out, err := cmd.CombinedOutput()
				texts[i], errs[i] = string(out), err
			})
		}
		all.Wait()
		if errs[0] != nil && errs[1] != nil {
			t.Errorf("none has rotated: %s\n%s", texts[0], texts[1])
		}
		for i, err := range errs {
			if err != nil && !strings.Contains(texts[i], "rotated already") {
				t.Errorf("kek rotate: %v, %s; want that another runs", err, texts[i])
			}
		}
	}
	p.stop(t)
	admin = p.serving(t)
	got, err := admin.List(t.Context(), &adminv1.ListRequest{Kind: "Issuer"})
	if err != nil || len(got.GetItems()) < len(sealed) {
		t.Errorf("after a restart: %d Issuers, %v; want %d at least", len(got.GetItems()), err, len(sealed))
	}
	p.stop(t)
	kek, err := os.ReadFile(filepath.Join(p.dir, "kek"))
	if lines := strings.Count(string(kek), "\n"); err != nil || lines != 1 {
		t.Errorf("the file has %d keys, %v; want one", lines, err)
	}
}
