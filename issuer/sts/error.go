package sts

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"time"
)

// The codes of RFC 6749 section 5.2, RFC 8707 section 2, and, for what the
// client may try again, RFC 6749 section 4.1.2.1.
const (
	CodeInvalidRequest       = "invalid_request"
	CodeInvalidClient        = "invalid_client"
	CodeUnsupportedGrantType = "unsupported_grant_type"
	CodeInvalidTarget        = "invalid_target"
	CodeInvalidScope         = "invalid_scope"
	CodeServerError          = "server_error"
	CodeUnavailable          = "temporarily_unavailable"
)

// Error is a refusal. Code and Description go to the client; they never repeat
// what it sent, and don't say what it has no right to know. Err, for the
// operator, is logged and audited, never sent.
type Error struct {
	Code        string
	Description string
	// Status of the HTTP answer.
	Status int
	// RetryAfter, if not 0, is when the client may try again.
	RetryAfter time.Duration
	Err        error
}

// Error is the text for the operator.
func (e *Error) Error() string { return e.Code + ": " + e.reason() }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// reason is the one that audit and logs give.
func (e *Error) reason() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	return e.Description
}

// refuse makes an Error with the status that RFC 6749 section 5.2 asks for.
func refuse(code, description string, err error) *Error {
	return &Error{Code: code, Description: description, Status: http.StatusBadRequest, Err: err}
}

// write answers with an error (RFC 6749 section 5.2). Each 401 says how to
// authenticate, as RFC 9110 section 15.5.2 wants, whichever way the client
// tried.
func write(w http.ResponseWriter, e *Error) {
	body, err := json.Marshal(struct {
		Error       string `json:"error"`
		Description string `json:"error_description,omitempty"`
	}{e.Code, e.Description})
	if err != nil { // two strings always encode
		body = []byte(`{"error":"` + CodeServerError + `"}`)
	}
	h := w.Header()
	if e.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Basic realm="watchword", charset="UTF-8"`)
	}
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	writeJSON(w, e.Status, body)
}

// writeJSON answers with what nobody may keep (RFC 6749 section 5.1).
func writeJSON(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache")
	w.WriteHeader(status)
	// A client that is gone needs no answer.
	_, _ = w.Write(body)
}
