package sts

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"time"

	"github.com/watchword-mesh/watchword/internal/failures"
	"github.com/watchword-mesh/watchword/issuer/clientauth"
)

// handleToken is the token endpoint (RFC 6749 section 3.2).
func (s *Server) handleToken(w http.ResponseWriter, r *http.Request, v *view) *Error {
	began := time.Now()
	defer func() { s.metrics.seconds.Observe(time.Since(began).Seconds()) }()

	leave, err := s.receive(w, r)
	if err != nil {
		return err
	}
	defer leave()
	entry := Entry{Source: failures.SourceOf(r.RemoteAddr)}
	answer, err := s.token(r, v, &entry)
	if err != nil {
		return err
	}
	body, encodeErr := json.Marshal(struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		ExpiresIn   int64  `json:"expires_in"`
		Scope       string `json:"scope,omitempty"`
	}{answer.AccessToken, "Bearer", int64(answer.ExpiresIn / time.Second), answer.Scope})
	if encodeErr != nil {
		return serverError(fmt.Errorf("encoding the answer: %w", encodeErr))
	}
	writeJSON(w, http.StatusOK, body)
	return nil
}

// token is the steps that every grant takes. What it learns on the way it
// writes into the entry.
func (s *Server) token(r *http.Request, v *view, entry *Entry) (Response, *Error) {
	form, err := readForm(r)
	if err != nil {
		return Response{}, s.refuseStranger(*entry, err)
	}
	client, err := s.authenticate(r, v, form, entry)
	if err != nil && err.Status == http.StatusServiceUnavailable {
		return Response{}, s.refused(*entry, err)
	}
	if err != nil {
		return Response{}, s.refuseStranger(*entry, err)
	}
	entry.Service, entry.Credential = client.Service, client.SecretID
	if client.Instance != "" {
		entry.Credential = "instance/" + client.Instance
	}
	leave, err := s.serveClient(*entry)
	if err != nil {
		return Response{}, err
	}
	defer leave()
	req, err := requested(v, client, form)
	if err != nil {
		return Response{}, s.refused(*entry, err)
	}
	return s.issue(r.Context(), v, req, entry)
}

// authenticate learns who has sent the form, when it is this request's turn.
func (s *Server) authenticate(r *http.Request, v *view, form url.Values, entry *Entry) (clientauth.Identity, *Error) {
	leave, err := s.verifyTurn(r.Context(), entry.Source)
	if err != nil {
		return clientauth.Identity{}, unavailable("the issuer is overloaded; try again", err)
	}
	authorization := r.Header.Values("Authorization")
	client, err := v.auth.Authenticate(authorization, form)
	leave()
	var refusal *Error
	switch {
	case err == nil:
		return client, nil
	case errors.Is(err, clientauth.ErrRequest):
		refusal = refuse(CodeInvalidRequest, "client credentials must be sent once, by one method", err)
	default:
		refusal = refuse(CodeInvalidClient, "client authentication failed; send client_id and client_secret by HTTP Basic or in the body, or a client_assertion", err)
		refusal.Status = http.StatusUnauthorized
	}
	entry.Service = shownName(clientauth.Claimed(authorization, form))
	return clientauth.Identity{}, refusal
}

// requested is what an authenticated client asks for.
func requested(v *view, client clientauth.Identity, form url.Values) (Request, *Error) {
	name := form.Get("grant_type")
	if name == "" {
		return Request{}, refuse(CodeInvalidRequest, "grant_type is missing", nil)
	}
	g, ok := grants[name]
	if !ok {
		return Request{}, refuse(CodeUnsupportedGrantType, "grant_type must be client_credentials", nil)
	}
	subject, err := g.subject(v, client, form)
	if err != nil {
		return Request{}, err
	}
	audience, err := target(form)
	if err != nil {
		return Request{}, err
	}
	return Request{Service: subject, Audience: audience, Scope: form.Get("scope"), Instance: client.Instance}, nil
}

// readForm reads the parameters, which come in the body alone and once each
// (RFC 6749 section 3.2). Errors of the decoder are not passed on: they quote
// the body, and with it maybe a secret.
func readForm(r *http.Request) (url.Values, *Error) {
	if r.URL.RawQuery != "" {
		return nil, refuse(CodeInvalidRequest, "parameters must be in the body, not in the URL", nil)
	}
	mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/x-www-form-urlencoded" {
		return nil, refuse(CodeInvalidRequest, "Content-Type must be application/x-www-form-urlencoded", nil)
	}
	body, err := io.ReadAll(r.Body)
	if tooLarge(err) {
		e := refuse(CodeInvalidRequest, "the body is larger than 64 KiB", nil)
		e.Status = http.StatusRequestEntityTooLarge
		return nil, e
	}
	if err != nil {
		return nil, refuse(CodeInvalidRequest, "the body ended early", err)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return nil, refuse(CodeInvalidRequest, "the body is not form-encoded", nil)
	}
	for name, values := range form {
		if len(values) > 1 && !repeats(name) {
			return nil, refuse(CodeInvalidRequest, "a parameter is there more than once", nil)
		}
	}
	return form, nil
}
