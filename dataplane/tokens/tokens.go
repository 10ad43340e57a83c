// Package tokens gives a data plane the tokens for the services that it calls,
// and attaches them.
//
// A [Source] asks the token service (STS) and keeps one token per audience. A call
// takes it from memory; it is renewed in the background from half of its life on,
// so that the STS may be away for the other half and nobody notices. [SelfSigned]
// is for a service that signs for itself. Both are [Tokens].
//
// [Transport] attaches tokens to requests over HTTP, [GRPC] to calls over gRPC.
// They attach none to what others could read or get: plain text that leaves the
// host, and what a redirect leads to elsewhere.
//
// A token that was dropped, as its key or the instance was revoked, is given to
// nobody from then on, also if it was on its way at that moment.
package tokens

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// Tokens gives tokens: a Source, or a SelfSigned. It is safe for concurrent use.
type Tokens interface {
	// Token gives one for an audience (`aud`) that is valid for a while yet. It
	// waits until there is one or ctx ends. The error is an *Error unless ctx ended.
	Token(ctx context.Context, audience string) (Token, error)
	// Refused says that a callee has not accepted a token of that audience. The
	// token is dropped if it is still the one that is given out. It returns
	// whether another could help: false if one was refused a moment ago as well.
	Refused(audience string, refused Token) (again bool)
}

// Token is an access token. Printing it doesn't show its value.
type Token struct {
	// Value is what follows "Bearer ".
	Value string
	// Expires is when it is accepted no longer.
	Expires time.Time
}

// String says until when it is valid.
func (t Token) String() string {
	if t.Value == "" {
		return "tokens.Token(none)"
	}
	return "tokens.Token(until " + t.Expires.UTC().Format(time.RFC3339) + ")"
}

// GoString is String.
func (t Token) GoString() string { return t.String() }

// Format prints String for every verb.
func (t Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// MarshalJSON gives String.
func (t Token) MarshalJSON() ([]byte, error) { return json.Marshal(t.String()) }

func (t Token) authorization() string { return "Bearer " + t.Value }

func (t Token) same(other Token) bool {
	return subtle.ConstantTimeCompare([]byte(t.Value), []byte(other.Value)) == 1
}
