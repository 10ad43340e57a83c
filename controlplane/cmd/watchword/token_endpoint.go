package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// requestToken gets a token from the token endpoint with client_credentials
// (RFC 6749 section 4.4), authenticated with client_secret_basic.
func requestToken(ctx context.Context, timeout time.Duration, flags *tokenFlags) (*tokenView, error) {
	if err := checkTokenURL(flags.tokenURL); err != nil {
		return nil, err
	}
	secret, err := readClientSecret(flags.secretFile, flags.service)
	if err != nil {
		return nil, err
	}
	config := clientcredentials.Config{
		ClientID:       secret.ClientID,
		ClientSecret:   secret.ClientSecret,
		TokenURL:       flags.tokenURL,
		Scopes:         strings.Fields(flags.scope),
		EndpointParams: url.Values{"audience": {flags.audience}},
		AuthStyle:      oauth2.AuthStyleInHeader,
	}
	// A redirect would take the secret elsewhere.
	client := &http.Client{Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	token, err := config.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
	if err != nil {
		return nil, endpointError(flags.tokenURL, err)
	}
	scope, _ := token.Extra("scope").(string)
	return &tokenView{token.AccessToken, token.Type(), token.ExpiresIn, scope}, nil
}

// checkTokenURL lets the secret travel over TLS, or within this machine.
func checkTokenURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil {
		return usagef("--token-url: want http://HOST:PORT/PATH or https://HOST/PATH")
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if u.Scheme == "http" && u.Hostname() != "localhost" && (err != nil || !ip.IsLoopback()) {
		return usagef("--token-url %s would send the client secret in clear; use https, or run this where the token endpoint is", u.Redacted())
	}
	return nil
}

func readClientSecret(path, service string) (*clientSecret, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the client secret: %w", err)
	}
	text = bytes.TrimSpace(text)
	secret := &clientSecret{ClientSecret: string(text)}
	if bytes.HasPrefix(text, []byte("{")) {
		secret = &clientSecret{}
		// The error of encoding/json may quote the secret.
		if json.Unmarshal(text, secret) != nil {
			return nil, fmt.Errorf("%s: want the JSON that `watchword client-secret create -o json` prints", path)
		}
	}
	if secret.ClientSecret == "" {
		return nil, fmt.Errorf("%s holds no client secret", path)
	}
	if secret.ClientID == "" {
		secret.ClientID = service
	}
	if secret.ClientID != service {
		return nil, usagef("%s is the secret of client %q, not of --service %s", path, secret.ClientID, service)
	}
	return secret, nil
}

// endpointError says what the token endpoint answered (RFC 6749 section 5.2),
// without the body, which is whatever listens there.
func endpointError(endpoint string, err error) error {
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) {
		var transport *url.Error
		if errors.As(err, &transport) {
			return &failure{code: exitUnreachable, err: fmt.Errorf("token endpoint not reachable at %s: %w", endpoint, transport.Err),
				hint: "is `watchword serve` running? its first lines name the token endpoint"}
		}
		return fmt.Errorf("token endpoint %s: %w", endpoint, err)
	}
	if refused.ErrorCode == "" {
		return fmt.Errorf("token endpoint %s answered with status %d and no OAuth error; is that the right URL?", endpoint, refused.Response.StatusCode)
	}
	f := &failure{code: exitRefused, err: fmt.Errorf("the token endpoint refused: %s", refused.ErrorCode)}
	if refused.ErrorDescription != "" {
		f.err = fmt.Errorf("%w: %s", f.err, oneLine(refused.ErrorDescription))
	}
	if refused.ErrorCode == "invalid_client" {
		f.code = exitUnreachable
		f.hint = "make a new secret with `watchword client-secret create`"
	}
	return f
}
