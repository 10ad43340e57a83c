package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// newGroup is a command that only has others below it.
func newGroup(use, short string, commands ...*cobra.Command) *cobra.Command {
	var names []string
	for _, c := range commands {
		names = append(names, c.Name())
	}
	there := strings.Join(names, ", ")
	cmd := &cobra.Command{
		Use:   use,
		Short: short,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q; there is %s", args[0], there)
			}
			return usagef("name what to do: %s", there)
		},
	}
	cmd.AddCommand(commands...)
	return cmd
}

// pairArguments reads SERVICE ID... or SERVICE/ID..., as -o name prints them: the
// service, and what is named of it.
func pairArguments(args []string, noun string) (service string, ids []string, err error) {
	if len(args) == 0 {
		return "", nil, usagef("name the service, and the %s: SERVICE ID or SERVICE/ID", noun)
	}
	if !strings.Contains(args[0], "/") {
		service, ids = args[0], args[1:]
	} else {
		for _, arg := range args {
			of, id, ok := strings.Cut(arg, "/")
			if !ok || service != "" && of != service {
				return "", nil, usagef("%q: want SERVICE/ID of one service, as in %q", arg, args[0])
			}
			service, ids = of, append(ids, id)
		}
	}
	for _, id := range append([]string{service}, ids...) {
		if id == "" || strings.Contains(id, "/") {
			return "", nil, usagef("%q: want SERVICE ID or SERVICE/ID", strings.Join(args, " "))
		}
	}
	return service, ids, nil
}
