package tokens

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// ErrClosed is what a Source gives after Close.
var ErrClosed = errors.New("the token source is closed")

// Error is why there is no token. It never shows what was sent.
type Error struct {
	Audience string
	// Code is what the STS has refused it with (RFC 6749 section 5.2, RFC 8707
	// section 2), such as invalid_target. Empty: there was no such answer.
	Code string
	// Err is the cause, if there is no Code.
	Err error
	// after, if not 0, is when the STS wants to be asked again.
	after time.Duration
}

// Error says what there is to do.
func (e *Error) Error() string {
	why := ""
	switch {
	case e.Code == codeInvalidTarget:
		why = "the STS refuses it (" + e.Code + "): the service may not call that audience; add it to the calls of the Service"
	case e.Code == codeInvalidClient:
		why = "the STS refuses it (" + e.Code + "): it does not know this instance, or no more; if it was revoked, enrol anew"
	case e.Code != "":
		why = "the STS refuses it (" + e.Code + ")"
	default:
		why = e.Err.Error()
	}
	return fmt.Sprintf("token for %q: %s", e.Audience, why)
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

const (
	codeInvalidTarget = "invalid_target"
	codeInvalidClient = "invalid_client"
	codeUnavailable   = "temporarily_unavailable"
	codeServerError   = "server_error"
)

// final tells whether the STS has decided, so that the same question gets the
// same answer until somebody changes something.
func (e *Error) final() bool {
	return e.Code != "" && e.Code != codeUnavailable && e.Code != codeServerError
}

// isCode tells whether a stranger's `error` is one that may stand in a log: RFC
// 6749 section 5.2 lets it be any text.
func isCode(s string) bool {
	const most = 64
	return s != "" && len(s) <= most && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz_") == ""
}
