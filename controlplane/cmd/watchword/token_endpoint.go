package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// requestToken gets a token from the token endpoint with client_credentials
// (RFC 6749 section 4.4), authenticated with client_secret_basic.
func (o *options) requestToken(ctx context.Context, flags *tokenFlags) (*tokenView, error) {
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
	client, err := o.endpointClient()
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	token, err := config.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
	if err != nil {
		return nil, endpointError(flags.tokenURL, err)
	}
	scope, _ := token.Extra("scope").(string)
	return &tokenView{token.AccessToken, token.Type(), token.ExpiresIn, scope}, nil
}

// endpointClient trusts whom the connection to the admin API does: the CA of
// --ca-file, or that of the data folder. The CAs of the system do beside the
// latter, since a proxy may stand before the token endpoint.
func (o *options) endpointClient() (*http.Client, error) {
	pool := x509.NewCertPool()
	if system, err := x509.SystemCertPool(); err == nil && o.caFile == "" {
		pool = system
	}
	roots, err := o.rootsIn(pool)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	return &http.Client{
		Timeout:   o.timeout,
		Transport: transport,
		// A redirect would take the secret elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
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
				hint: endpointHint(transport.Err)}
		}
		return fmt.Errorf("token endpoint %s: %w", endpoint, err)
	}
	if refused.ErrorCode == "" {
		return fmt.Errorf("token endpoint %s answered with status %d and no OAuth error; is that the right URL? with TLS it begins with https://", endpoint, refused.Response.StatusCode)
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

// endpointHint is the way out of a connection that failed.
func endpointHint(err error) string {
	if strings.Contains(err.Error(), "HTTP response to HTTPS client") {
		return "it has no TLS there: on its own machine, use http://"
	}
	if hint := handshakeHint(err.Error()); hint != "" {
		return hint
	}
	return "is `watchword serve` running? its first lines name the token endpoint"
}
