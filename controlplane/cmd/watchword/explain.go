package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

type explainFlags struct {
	service, tokenFile string
	method, host, path string
	headers, form      []string
}

func newExplainCommand(o *options) *cobra.Command {
	var flags explainFlags
	cmd := &cobra.Command{
		Use:   "explain --service SERVICE [--token-file FILE|-]",
		Short: "Show step by step why a service lets a request in or refuses it",
		Long: `Decides on a request as the data planes of a service do, with the policies and
keys that the control plane has published, and shows what each step compared and
why it ended as it did. Nothing is sent to the service.

The token is taken to be where each rule of the service looks first. Without
--token-file the request has none but those in its headers, path and form. The
token goes to the control plane only, which neither keeps nor shows it.

The exit code is 0 whatever the verdict is. On this command --token-file is the
token to explain; one for the admin API is named by --admin-token-file.`,
		Example: `  watchword explain --service orders --token-file token.txt --path /orders/1
  watchword token --service web --audience orders | watchword explain --service orders --token-file -
  watchword explain --service orders --method POST --header "x-request-id: 1" --form a=b`,
		Args: noArguments("; see --service and --token-file"),
		RunE: func(cmd *cobra.Command, _ []string) error { return runExplain(cmd, o, &flags) },
	}
	o.addServiceFlag(cmd, &flags.service, "`SERVICE` that gets the request")
	f := cmd.Flags()
	f.StringVar(&flags.tokenFile, "token-file", "", "`FILE` with the token to explain, or - for standard input (default no token)")
	// The variable of the name is that of the admin API's token, which must not be sent
	// as a token to explain.
	must(f.SetAnnotation("token-file", ownVariable, []string{""}))
	f.StringVar(&o.tokenFile, "admin-token-file", "", "`FILE` with a token for the admin API, which is --token-file of other commands")
	must(f.SetAnnotation("admin-token-file", ownVariable, []string{"WATCHWORD_TOKEN_FILE"}))
	f.StringVar(&flags.method, "method", "", "`METHOD` of the request (default GET, or POST with --form)")
	f.StringVar(&flags.host, "host", "", "`HOST` of the request (default SERVICE)")
	f.StringVar(&flags.path, "path", "", "`PATH` of the request, with its query (default /)")
	f.StringArrayVar(&flags.headers, "header", nil, "a header of the request, as `NAME:VALUE`; may be repeated")
	f.StringArrayVar(&flags.form, "form", nil, "a field of a form in the body, as `NAME=VALUE`; may be repeated")
	must(cmd.MarkFlagFilename("token-file"))
	must(cmd.MarkFlagFilename("admin-token-file"))
	return cmd
}

func runExplain(cmd *cobra.Command, o *options, flags *explainFlags) error {
	con := o.console(cmd)
	if con.format == formatName {
		return usagef("an explanation has no name; leave out -o, or use json or yaml")
	}
	request, err := flags.request(cmd.InOrStdin())
	if err != nil {
		return err
	}
	return o.withClient(cmd, func(ctx context.Context, c *client) error {
		response, err := c.Explain(ctx, request)
		if err != nil {
			return err
		}
		return con.printExplanation(explanationOf(response))
	})
}

func (f *explainFlags) request(stdin io.Reader) (*adminv1.ExplainRequest, error) {
	request := &adminv1.ExplainRequest{Service: f.service, Method: f.method, Host: f.host, Path: f.path}
	var err error
	// No error has the text: it may be a token that stands in the wrong place.
	if request.Headers, err = fields("--header", ":", "NAME:VALUE", f.headers); err != nil {
		return nil, err
	}
	if request.Form, err = fields("--form", "=", "NAME=VALUE", f.form); err != nil {
		return nil, err
	}
	if f.tokenFile != "" {
		request.Token, err = readToken(stdin, f.tokenFile)
	}
	return request, err
}

func fields(flag, separator, form string, list []string) ([]*adminv1.ExplainField, error) {
	var out []*adminv1.ExplainField
	for i, text := range list {
		name, value, ok := strings.Cut(text, separator)
		if name = strings.TrimSpace(name); !ok || name == "" {
			return nil, usagef("%s number %d: want %s", flag, i+1, form)
		}
		if separator == ":" {
			value = strings.TrimSpace(value)
		}
		out = append(out, &adminv1.ExplainField{Name: name, Value: value})
	}
	return out, nil
}

// beforeToken is what stands before a token that was copied with its header.
var beforeToken = regexp.MustCompile(`(?i)^\s*(authorization:)?\s*bearer\s`)

// largestTokenFile is more than any header can hold.
const largestTokenFile = 1 << 20

// readToken reads a token, also one that is still in the form of a header.
func readToken(stdin io.Reader, path string) (string, error) {
	r, name := stdin, "standard input"
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", fmt.Errorf("reading the token: %w", err)
		}
		defer f.Close()
		r, name = f, path
	}
	text, err := io.ReadAll(io.LimitReader(r, largestTokenFile+1))
	if err != nil {
		return "", fmt.Errorf("reading the token: %w", err)
	}
	token := strings.TrimSpace(beforeToken.ReplaceAllString(string(text), ""))
	switch {
	case token == "":
		return "", &failure{code: exitRefused, err: fmt.Errorf("%s holds no token", name), hint: "leave out --token-file to explain a request without one"}
	case len(text) > largestTokenFile:
		return "", &failure{code: exitRefused, err: errors.New(name + " is too large to be a token")}
	case !isText(token):
		return "", &failure{code: exitRefused, err: errors.New(name + " is not text, and no token")}
	}
	return token, nil
}

func isText(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f || r == '\ufffd' })
}
