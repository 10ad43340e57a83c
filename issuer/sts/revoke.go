package sts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/watchword-mesh/watchword/internal/failures"
	"github.com/watchword-mesh/watchword/internal/jose"
	"github.com/watchword-mesh/watchword/issuer/clientauth"
	"github.com/watchword-mesh/watchword/issuer/token"
)

// Revoker writes down that a token is good no more, so that all who accept it learn of
// it. It is called concurrently.
type Revoker interface {
	// RevokeToken returns when it is stored. An error is that it is not: the client tries
	// again.
	RevokeToken(ctx context.Context, t RevokedToken) error
}

// RevokedToken is a token of ours that its own client gives up.
type RevokedToken struct {
	// Service is whose token it is, and Source the address that the request came from.
	Service, Source string
	// ID is the `jti`.
	ID      string
	Expires time.Time
}

// revokeRetry is when a client may try again.
const revokeRetry = 2 * time.Second

// CodeUnauthorizedClient is of RFC 6749 section 5.2: the client is known, and may not.
const CodeUnauthorizedClient = "unauthorized_client"

// handleRevoke is the revocation endpoint (RFC 7009 section 2). It authenticates as the
// token endpoint does, and shares its quotas. The hint about the type is not needed:
// there is one (section 2.1).
func (s *Server) handleRevoke(w http.ResponseWriter, r *http.Request, v *view) *Error {
	leave, err := s.receive(w, r)
	if err != nil {
		return err
	}
	defer leave()
	entry := Entry{Source: failures.SourceOf(r.RemoteAddr)}
	form, err := readForm(r)
	if err != nil {
		return s.refuseStranger(entry, err)
	}
	client, err := s.authenticate(r, v, form, &entry)
	if err != nil && err.Status == http.StatusServiceUnavailable {
		return s.refused(entry, err)
	}
	if err != nil {
		return s.refuseStranger(entry, err)
	}
	entry.Service, entry.Credential = client.Service, client.SecretID
	if client.Instance != "" {
		entry.Credential = "instance/" + client.Instance
	}
	done, err := s.serveClient(entry)
	if err != nil {
		return err
	}
	defer done()
	if err := s.revoke(r.Context(), v, client, form, &entry); err != nil {
		return s.refused(entry, err)
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	return nil
}

// ownToken is what counts of a token.
type ownToken struct {
	Issuer   string  `json:"iss"`
	Subject  string  `json:"sub"`
	ClientID string  `json:"client_id"`
	ID       string  `json:"jti"`
	Expiry   float64 `json:"exp"`
}

// revoke does nothing, and succeeds, for what nobody accepts anyway (section 2.2): a
// token of others, of a key that is gone, or one that has expired.
func (s *Server) revoke(ctx context.Context, v *view, client clientauth.Identity, form url.Values, entry *Entry) *Error {
	text := form.Get("token")
	if text == "" {
		return refuse(CodeInvalidRequest, "token is missing", nil)
	}
	if s.revoker == nil {
		return unavailable("tokens can't be revoked here", errors.New("there is no revoker"))
	}
	leave, err := s.verifyTurn(ctx, entry.Source)
	if err != nil {
		return unavailable("the issuer is overloaded; try again", err)
	}
	t, ours := readOwn(text, v)
	leave()
	expires := time.Unix(int64(t.Expiry), 0)
	if !ours || t.ID == "" || !s.now().Before(expires.Add(expiredFor)) {
		return nil
	}
	if t.ClientID != client.Service || t.Subject != token.SubjectOf(v.TrustDomain, client.Service) {
		return refuse(CodeUnauthorizedClient, "the token was issued to another client", fmt.Errorf("service %s would revoke a token of %s", client.Service, shown(t.ClientID)))
	}
	entry.ID = t.ID
	if err := s.revoker.RevokeToken(ctx, RevokedToken{Service: client.Service, Source: entry.Source, ID: t.ID, Expires: expires}); err != nil {
		e := unavailable("the revocation can't be stored now; try again", err)
		e.RetryAfter = revokeRetry
		return e
	}
	return nil
}

// expiredFor is how long after its end a token may still be accepted by somebody, whose
// clock skew is a policy's.
const expiredFor = 5 * time.Minute

// readOwn verifies a token with the keys that are published now.
func readOwn(text string, v *view) (ownToken, bool) {
	var t ownToken
	read, err := jose.ParseUnverified(text)
	if err != nil || json.Unmarshal(read.Claims(), &t) != nil || t.Issuer != v.Issuer {
		return ownToken{}, false
	}
	if _, err := read.Verify(v.Keys.Keys(), jose.VerifyOptions{}); err != nil {
		return ownToken{}, false
	}
	return t, true
}
