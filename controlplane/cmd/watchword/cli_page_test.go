package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// The page about the command line has every command, every flag that all commands
// share, every exit code and every call of the admin API.
func TestCommandLinePage(t *testing.T) {
	text, err := os.ReadFile("../../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	page, p := string(text), newProgram()
	has := func(what string) {
		if !strings.Contains(page, what) {
			t.Errorf("docs/cli.md does not have %s", what)
		}
	}
	for _, name := range leaves(p.root) {
		has("`" + name)
	}
	p.root.PersistentFlags().VisitAll(func(f *pflag.Flag) {
		if f.Name == "output" {
			has("`-o FORMAT`")
		} else {
			has("`--" + f.Name)
		}
	})
	for _, c := range exitCodes {
		has(fmt.Sprintf("\n| %d | ", c.code))
	}
	for _, m := range adminv1.AdminService_ServiceDesc.Methods {
		has("\n| " + m.MethodName + " | ")
	}
	for _, s := range adminv1.AdminService_ServiceDesc.Streams {
		has("\n| " + s.StreamName + " | ")
	}
}

// leaves are the commands that do something, without those of cobra and the
// products that import names as arguments.
func leaves(cmd *cobra.Command) []string {
	var names []string
	for _, c := range cmd.Commands() {
		switch {
		case c.Name() == "completion" || c.Name() == "import":
			names = append(names, c.Name())
		case c.HasSubCommands():
			for _, name := range leaves(c) {
				names = append(names, c.Name()+" "+name)
			}
		case c.Runnable():
			names = append(names, c.Name())
		}
	}
	return names
}
