package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
)

// failure is why a request is answered here. Callers get the word and the text,
// which hold nothing of the upstream; err is for the log.
type failure struct {
	status int
	word   string // stable: in the body and in metrics
	text   string // may be empty
	err    error
}

func (f *failure) Error() string {
	if f.err == nil {
		return f.word + ": " + f.text
	}
	return f.word + ": " + f.err.Error()
}

func (f *failure) Unwrap() error { return f.err }

// connectError is a connection that did not open, so that nothing was sent.
type connectError struct {
	to  address
	err error
}

func (e *connectError) Error() string { return fmt.Sprintf("connecting to %s: %v", e.to.name, e.err) }
func (e *connectError) Unwrap() error { return e.err }

// responseError is an answer that is not HTTP as it should be.
type responseError string

func (e responseError) Error() string { return "response of the upstream: " + string(e) }

// uploadError is a body that the caller did not send whole.
type uploadError struct{ err error }

func (e *uploadError) Error() string { return "body of the request: " + e.err.Error() }
func (e *uploadError) Unwrap() error { return e.err }

var (
	errBodyTooLarge = &failure{status: http.StatusRequestEntityTooLarge, word: "body_too_large", text: "the body is larger than this service takes"}
	errBodyTimeout  = &failure{status: http.StatusRequestTimeout, word: "body_timeout", text: "the body came too slowly"}
	errCallerGone   = errors.New("the caller has gone")
)

func malformed(format string, args ...any) *failure {
	return &failure{status: http.StatusBadRequest, word: "request_malformed", text: fmt.Sprintf(format, args...)}
}

// asFailure says what a caller is answered for an error. Connect failures are 503
// and timeouts 504, as in Envoy.
func asFailure(ctx context.Context, err error) *failure {
	var f *failure
	var upload *uploadError
	var connect *connectError
	var response responseError
	var timeout net.Error
	switch {
	case errors.As(err, &f):
		return f
	case ctx.Err() != nil, errors.As(err, &upload):
		return &failure{word: "caller_gone", err: errCallerGone}
	case errors.As(err, &connect):
		return &failure{status: http.StatusServiceUnavailable, word: "upstream_unreachable", err: err}
	case errors.As(err, &response):
		return &failure{status: http.StatusBadGateway, word: "response_malformed", err: err}
	case errors.As(err, &timeout) && timeout.Timeout():
		return &failure{status: http.StatusGatewayTimeout, word: "upstream_timeout", err: err}
	}
	return &failure{status: http.StatusBadGateway, word: "upstream_failed", err: err}
}
