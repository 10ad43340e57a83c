package sts

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/watchword-mesh/watchword/issuer/token"
)

// turnWait is how long a request waits for its turn to be verified, and to be
// signed. A service that gets no answer for longer tries again anyway.
const turnWait = time.Second

// Request is what a service asks for.
type Request struct {
	Service  string
	Audience string
	// Scope is space-delimited; empty asks for all that the service may have.
	Scope string
	// Instance that asks, if it has proved which one it is; it is in the token.
	Instance string
}

// Response is what it gets.
type Response struct {
	// AccessToken is a bearer token: it belongs into no log.
	AccessToken string
	// Scope is space-delimited.
	Scope     string
	ExpiresIn time.Duration
	// ID is the `jti` of the token.
	ID string
	// KeyID is the `kid` of the key that has signed it.
	KeyID string
}

// Issue gives a service what the token endpoint would give it. Who calls Issue
// has made sure that its own caller may act for the service; the entry in the
// audit has no source address.
func (s *Server) Issue(ctx context.Context, req Request) (Response, *Error) {
	v := s.view.Load()
	entry := Entry{Service: shown(req.Service), Audience: shown(req.Audience), Scope: shown(req.Scope)}
	if req.Instance != "" {
		entry.Credential = "instance/" + req.Instance
	}
	if v == nil {
		return Response{}, s.refused(entry, notReady())
	}
	return s.issue(ctx, v, req, &entry)
}

// issue is the way to every token: check, sign, audit.
func (s *Server) issue(ctx context.Context, v *view, req Request, entry *Entry) (Response, *Error) {
	entry.Audience, entry.Scope = shown(req.Audience), shown(req.Scope)
	scope, err := v.check(req)
	if err != nil {
		return Response{}, s.refused(*entry, err)
	}
	answer, err := s.sign(ctx, v, req, scope)
	if err != nil {
		return Response{}, s.refused(*entry, err)
	}
	entry.Scope, entry.ID = scope, answer.ID
	s.issued(*entry)
	return answer, nil
}

// check gives the scope of the token that the request may have.
func (v *view) check(req Request) (string, *Error) {
	if _, ok := v.Services[req.Service]; !ok {
		return "", refuse(CodeInvalidRequest, "there is no such service", nil)
	}
	allowed, err := v.allowed(req.Service, req.Audience)
	if err != nil {
		return "", err
	}
	return grantScope(req.Scope, allowed)
}

// sign makes the token, when it is this request's turn.
func (s *Server) sign(ctx context.Context, v *view, req Request, scope string) (Response, *Error) {
	if err := turn(ctx, s.signing); err != nil {
		return Response{}, unavailable("the issuer is overloaded; try again", err)
	}
	defer func() { <-s.signing }()

	if s.maySign != nil && !s.maySign() {
		return Response{}, unavailable("this replica has heard of no change for too long to sign; ask another", nil)
	}
	lifetime := v.Lifetime
	if lifetime == 0 {
		lifetime = DefaultLifetime
	}
	signer := v.Keys.SignerFor(req.Audience)
	answer := Response{Scope: scope, ExpiresIn: lifetime, ID: token.NewID(), KeyID: signer.KeyID()}
	now := s.now()
	signed, err := token.Mint(signer, token.Claims{
		Issuer:   v.Issuer,
		Subject:  token.SubjectOf(v.TrustDomain, req.Service),
		Audience: req.Audience,
		ClientID: req.Service,
		Scope:    scope,
		Instance: req.Instance,
		ID:       answer.ID,
		IssuedAt: now,
		Expiry:   now.Add(lifetime),
	})
	if err != nil {
		return Response{}, serverError(fmt.Errorf("issuing a token to service %q: %w", req.Service, err))
	}
	answer.AccessToken = signed
	return answer, nil
}

func unavailable(description string, err error) *Error {
	return &Error{Code: CodeUnavailable, Description: description, Status: http.StatusServiceUnavailable, RetryAfter: time.Second, Err: err}
}

func notReady() *Error {
	return unavailable("the issuer has no configuration yet; try again", nil)
}

func serverError(err error) *Error {
	return &Error{Code: CodeServerError, Description: "the issuer failed; its log says why", Status: http.StatusInternalServerError, Err: err}
}
