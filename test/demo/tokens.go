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
	"time"

	"github.com/watchword-mesh/watchword/dataplane/enrolment"
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

	mu        sync.Mutex
	held      map[token]string
	instances map[string]*enrolment.Identity // by the service that has enrolled
}

func newTokens(m *mesh) *tokens {
	return &tokens{m: m, held: make(map[token]string), instances: make(map[string]*enrolment.Identity)}
}

func (m *mesh) tokenURL() string { return "https://" + m.ports.address("sts") + "/token" }

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

// ask asks the token endpoint as the caller, which proves that it has the key that
// it enrolled (private_key_jwt, RFC 7523 section 2.2).
func (t *tokens) ask(ctx context.Context, which token) (*grant, error) {
	instance, err := t.instance(ctx, which.caller)
	if err != nil {
		return nil, err
	}
	assertion, err := instance.Assertion(time.Now())
	if err != nil {
		return nil, err
	}
	form := url.Values{"grant_type": {"client_credentials"}, "audience": {which.audience},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.m.tokenURL(), strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	client, err := t.m.https()
	if err != nil {
		return nil, err
	}
	response, err := client.Do(req)
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

// forget lets a service enrol anew, with another key.
func (t *tokens) forget(service string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.instances, service)
}

// instance is what a service became when it enrolled, which it does when it needs
// it for the first time.
func (t *tokens) instance(ctx context.Context, service string) (*enrolment.Identity, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if i := t.instances[service]; i != nil {
		return i, nil
	}
	joinToken, err := t.m.joinToken(ctx, service)
	if err != nil {
		return nil, err
	}
	i, err := t.m.enrol(ctx, service, joinToken)
	if err == nil {
		t.instances[service] = i
	}
	return i, err
}
