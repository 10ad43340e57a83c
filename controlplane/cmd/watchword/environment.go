package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// variable is the environment variable of a flag.
func variable(flag string) string {
	return "WATCHWORD_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// describeEnvironment adds to the help of each flag that the command declares
// the variable that sets it too.
func describeEnvironment(cmd *cobra.Command) {
	describe := func(f *pflag.Flag) {
		// A command's persistent flags can be among its own flags already.
		if f.Name != "help" && !strings.Contains(f.Usage, "[$"+variable(f.Name)) {
			f.Usage += " [$" + variable(f.Name) + "]"
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
		value := os.Getenv(variable(f.Name))
		if f.Name == "help" || f.Changed || value == "" {
			return
		}
		if err := cmd.Flags().Set(f.Name, value); err != nil {
			faults = append(faults, fmt.Errorf("environment variable %s: %w", variable(f.Name), err))
		}
	})
	return errors.Join(faults...)
}
