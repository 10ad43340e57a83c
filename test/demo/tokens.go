package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// token says which token: of whom, for whom.
type token struct {
	caller, audience string
	// byOperator takes it from `watchword token`; else the caller itself asks
	// the token endpoint.
	byOperator bool
}

// tokens gets tokens and keeps those that services asked for themselves: they
// are valid for five minutes, also while the control plane is away. Safe for
// concurrent use.
type tokens struct {
	m *mesh

	mu      sync.Mutex
	held    map[token]string
	secrets map[string]string // client secret of each service
}

func newTokens(m *mesh) *tokens {
	return &tokens{m: m, held: make(map[token]string), secrets: make(map[string]string)}
}

func (m *mesh) tokenURL() string { return "http://" + m.ports.address("sts") + "/token" }

// get returns the text of a token.
func (t *tokens) get(ctx context.Context, which token) (string, error) {
	if which.byOperator {
		return t.m.lastLine(ctx, "token", "--service", which.caller, "--audience", which.audience)
	}
	t.mu.Lock()
	text := t.held[which]
	t.mu.Unlock()
	if text != "" {
		return text, nil
	}
	g, err := t.ask(ctx, which)
	if err == nil && g.Error != "" {
		err = errors.New("the token endpoint answered " + g.refusal())
	}
	if err != nil {
		return "", fmt.Errorf("a token of %s for %s: %w", which.caller, which.audience, err)
	}
	return g.AccessToken, nil
}

// grant is an answer of the token endpoint (RFC 6749 sections 5.1 and 5.2).
type grant struct {
	status      int
	AccessToken string `json:"access_token"`
	TokenType   string `json:"token_type"`
	ExpiresIn   int    `json:"expires_in"`
	Error       string `json:"error"`
	Description string `json:"error_description"`
}

func (g *grant) refusal() string { return fmt.Sprintf("%d %s: %s", g.status, g.Error, g.Description) }

// ask asks the token endpoint as the caller (client_credentials, RFC 6749
// section 4.4).
func (t *tokens) ask(ctx context.Context, which token) (*grant, error) {
	secret, err := t.secret(ctx, which.caller)
	if err != nil {
		return nil, err
	}
	form := url.Values{"grant_type": {"client_credentials"}, "audience": {which.audience}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.m.tokenURL(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(url.QueryEscape(which.caller), url.QueryEscape(secret))
	response, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	g := &grant{status: response.StatusCode}
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(g); err != nil {
		return nil, fmt.Errorf("reading the answer of the token endpoint: %w", err)
	}
	if g.AccessToken != "" {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.held[which] = g.AccessToken
	}
	return g, nil
}

// secret is created when a service needs it for the first time.
func (t *tokens) secret(ctx context.Context, service string) (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := t.secrets[service]; s != "" {
		return s, nil
	}
	text, err := t.m.cli(ctx, "client-secret", "create", "--service", service, "-o", "json")
	if err != nil {
		return "", err
	}
	var created struct {
		Secret string `json:"client_secret"`
	}
	if err := json.Unmarshal([]byte(text), &created); err != nil {
		return "", fmt.Errorf("reading the client secret of %s: %w", service, err)
	}
	if created.Secret == "" {
		return "", errors.New("client-secret create printed no client_secret")
	}
	t.secrets[service] = created.Secret
	return created.Secret, nil
}
