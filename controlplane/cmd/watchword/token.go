package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

type tokenFlags struct {
	service, audience, scope string
	secretFile, tokenURL     string
	decode                   bool
}

func newTokenCommand(o *options) *cobra.Command {
	var flags tokenFlags
	cmd := &cobra.Command{
		Use:   "token --service SERVICE --audience AUDIENCE",
		Short: "Print a token as the service would get it",
		Long: `Prints an access token of the service for the audience, and nothing else. The
admin API issues it, to security officers and to the owners of the service; with
--client-secret-file and --token-url it comes from the token endpoint, by the way
that the service itself takes (client_credentials).

A token URL with https:// is trusted by --ca-file, else by the CA of the data folder
and those of the system.

The client secret file holds what ` + "`watchword client-secret create -o json`" + ` printed,
or the secret alone; the client ID is then the name of the service.`,
		Example: `  watchword token --service shop --audience orders
  watchword token --service shop --audience orders --decode
  curl -H "Authorization: Bearer $(watchword token --service shop --audience orders)" http://127.0.0.1:8080/
  watchword token --service shop --audience orders \
    --client-secret-file shop.json --token-url https://127.0.0.1:7402/token`,
		Args: noArguments("; see --service and --audience"),
		RunE: func(cmd *cobra.Command, _ []string) error { return runToken(cmd, o, &flags) },
	}
	o.addServiceFlag(cmd, &flags.service, "`SERVICE` that calls")
	cmd.Flags().StringVar(&flags.audience, "audience", "", "`AUDIENCE` of the service that is called, its name as a rule")
	cmd.Flags().StringVar(&flags.scope, "scope", "", "`SCOPES` with blanks between them (default all that the service may have)")
	cmd.Flags().StringVar(&flags.secretFile, "client-secret-file", "", "`FILE` with the client secret, for the token endpoint")
	cmd.Flags().StringVar(&flags.tokenURL, "token-url", "", "`URL` of the token endpoint")
	cmd.Flags().BoolVar(&flags.decode, "decode", false, "print header and claims as JSON instead of the token; does not verify it")
	cmd.MarkFlagsRequiredTogether("client-secret-file", "token-url")
	must(cmd.MarkFlagRequired("audience"))
	must(cmd.RegisterFlagCompletionFunc("audience", o.completeServices))
	must(cmd.MarkFlagFilename("client-secret-file"))
	return cmd
}

// tokenView is the JSON and YAML form of a token, with the names of RFC 6749
// section 5.1.
type tokenView struct {
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int64  `json:"expires_in"`
	Scope       string `json:"scope,omitempty"`
}

func runToken(cmd *cobra.Command, o *options, flags *tokenFlags) error {
	con := o.console(cmd)
	if con.format == formatName {
		return usagef("a token has no name; leave out -o, or use json or yaml")
	}
	if flags.secretFile != "" {
		token, err := o.requestToken(cmd.Context(), flags)
		if err != nil {
			return err
		}
		return con.printToken(token, flags.decode)
	}
	return o.withClient(cmd, func(ctx context.Context, c *client) error {
		response, err := c.IssueToken(ctx, &adminv1.IssueTokenRequest{Service: flags.service, Audience: flags.audience, Scope: flags.scope})
		switch status.Code(err) {
		case codes.OK:
		case codes.FailedPrecondition:
			// The code that the token endpoint's refusal has too.
			return &failure{code: exitRefused, err: errors.New(oneLine(status.Convert(err).Message())),
				hint: "`watchword get service " + flags.service + "` shows whether it is there, and in spec.calls which services and scopes it may ask for"}
		default:
			return err
		}
		return con.printToken(&tokenView{response.GetAccessToken(), "Bearer",
			int64(response.GetExpiresIn().AsDuration() / time.Second), response.GetScope()}, flags.decode)
	})
}

func (c *console) printToken(t *tokenView, decode bool) error {
	if decode {
		parts, err := decodeToken(t.AccessToken)
		if err != nil {
			return err
		}
		if c.format == formatYAML {
			return printYAML(c.out, parts)
		}
		return printJSON(c.out, parts)
	}
	if ok, err := c.structured(t); ok {
		return err
	}
	_, err := fmt.Fprintln(c.out, t.AccessToken)
	return err
}

// tokenParts are the readable parts of a token, as its issuer wrote them.
type tokenParts struct {
	Header json.RawMessage `json:"header"`
	Claims json.RawMessage `json:"claims"`
}

// decodeToken splits a JWT (RFC 7515 section 3.1). It only shows: whether the
// token is any good is for who verifies it to say.
func decodeToken(token string) (*tokenParts, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, errors.New("the control plane sent something that is not a signed JWT")
	}
	header, err := decodePart(parts[0])
	if err != nil {
		return nil, fmt.Errorf("header of the token: %w", err)
	}
	claims, err := decodePart(parts[1])
	if err != nil {
		return nil, fmt.Errorf("claims of the token: %w", err)
	}
	return &tokenParts{header, claims}, nil
}

func decodePart(part string) (json.RawMessage, error) {
	// Errors must not quote the input, which is a token.
	text, err := base64.RawURLEncoding.DecodeString(part)
	if err != nil {
		return nil, errors.New("not base64url")
	}
	if !json.Valid(text) || !bytes.HasPrefix(bytes.TrimSpace(text), []byte("{")) {
		return nil, errors.New("not a JSON object")
	}
	return text, nil
}
