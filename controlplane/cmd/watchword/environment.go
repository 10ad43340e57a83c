package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// ownVariable annotates a flag whose variable is not that of its name.
const ownVariable = "watchword_variable"

// variableOf is the environment variable of a flag; empty if it has none.
func variableOf(f *pflag.Flag) string {
	switch own := f.Annotations[ownVariable]; {
	case f.Name == "help":
		return ""
	case len(own) > 0:
		return own[0]
	}
	return "WATCHWORD_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
}

// describeEnvironment adds to the help of each flag that the command declares
// the variable that sets it too.
func describeEnvironment(cmd *cobra.Command) {
	describe := func(f *pflag.Flag) {
		// A command's persistent flags can be among its own flags already.
		if v := variableOf(f); v != "" && !strings.Contains(f.Usage, "[$"+v) {
			f.Usage += " [$" + v + "]"
		}
	}
	cmd.Flags().VisitAll(describe)
	cmd.PersistentFlags().VisitAll(describe)
}

// readEnvironment sets the flags that the command line did not. An empty
// variable counts as not set.
func readEnvironment(cmd *cobra.Command) error {
	var faults []error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		v := variableOf(f)
		if v == "" || f.Changed || os.Getenv(v) == "" {
			return
		}
		if err := cmd.Flags().Set(f.Name, os.Getenv(v)); err != nil {
			faults = append(faults, fmt.Errorf("environment variable %s: %w", v, err))
		}
	})
	return errors.Join(faults...)
}
