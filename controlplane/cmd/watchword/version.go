package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker: -ldflags "-X main.version=v1.2.3".
var version string

// versionView is the JSON and YAML form of version.
type versionView struct {
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Built    string `json:"commitTime,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// buildVersion is what the linker and the go command know of this binary.
func buildVersion() versionView {
	v := versionView{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	if v.Version == "" {
		v.Version = info.Main.Version
	}
	if v.Version == "" {
		v.Version = "(devel)"
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.time":
			v.Built = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
}

func newVersionCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  noArguments(""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			con, v := o.console(cmd), buildVersion()
			if ok, err := con.structured(v); ok {
				return err
			}
			if con.format == formatName {
				fmt.Fprintln(con.out, v.Version)
				return nil
			}
			fmt.Fprintf(con.out, "watchword %s\n", v.Version)
			if v.Commit != "" {
				fmt.Fprintf(con.out, "commit %s of %s%s\n", v.Commit, v.Built, modifiedMark(v.Modified))
			}
			fmt.Fprintf(con.out, "%s %s\n", v.Go, v.Platform)
			return nil
		},
	}
}

func modifiedMark(modified bool) string {
	if modified {
		return ", with changes"
	}
	return ""
}
