package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// confirm asks at the terminal before something that can't be undone. Where nobody
// can be asked, --yes has to say it.
func confirm(cmd *cobra.Command, yes bool, what string) error {
	switch {
	case yes:
		return nil
	case !isTerminal(cmd.InOrStdin()) || !isTerminal(cmd.ErrOrStderr()):
		return usagef("%s; say so with --yes", what)
	}
	return ask(cmd.InOrStdin(), cmd.ErrOrStderr(), what)
}

// ask takes yes and y for a yes, and everything else, also an end, for a no.
func ask(in io.Reader, out io.Writer, what string) error {
	fmt.Fprintf(out, "%s. Go on? [y/N] ", what)
	answer, _ := bufio.NewReader(in).ReadString('\n')
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return &failure{code: exitFailed, err: errors.New("not confirmed; nothing was changed")}
}
