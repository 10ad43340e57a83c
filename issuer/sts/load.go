package sts

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/watchword-mesh/watchword/internal/failures"
	"github.com/watchword-mesh/watchword/internal/quota"
)

// How much of the token endpoint anybody may have. Keys and metadata are never
// behind it: they wait for nothing.
const (
	// maxReading is how many requests are in memory, with bodies of up to 64 KiB,
	// in total, and of one source; those of loopback have the total alone.
	maxReading, maxReadingOf = 2048, 256
	// bodyTime is how long a body may take.
	bodyTime = 10 * time.Second
	// maxClient is how many requests of one client are answered at the same time.
	maxClient = 64
	// DefaultRate is how many tokens a client gets a second; ten times that at once.
	DefaultRate = 200
)

// load keeps count of who makes how much work.
type load struct {
	reading, clients *quota.Places
	pace             *quota.Pace
	// verifying has a place for each credential that is being looked at: it is pure
	// computation, as signing is. slow is for those of sources that keep failing, so
	// that the others need not wait behind them.
	verifying, slow chan struct{}
}

func newLoad(perSecond, atOnce int) *load {
	if perSecond == 0 {
		perSecond = DefaultRate
	}
	return &load{
		reading:   quota.NewPlaces(maxReading, maxReadingOf),
		clients:   quota.NewPlaces(maxReading, maxClient),
		pace:      quota.NewPace(float64(perSecond), 10*perSecond),
		verifying: make(chan struct{}, atOnce),
		slow:      make(chan struct{}, 1),
	}
}

// receive takes a place for a request that is to be read, and sets it a time.
func (s *Server) receive(w http.ResponseWriter, r *http.Request) (leave func(), err *Error) {
	leave, ok := s.load.reading.Take(failures.RemoteKey(r.RemoteAddr))
	if !ok {
		e := unavailable("too many requests at the same time; try again", errCrowd)
		s.metrics.refused.WithLabelValues(e.Code).Inc()
		return nil, e
	}
	// A recorder of tests has no deadlines.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
	return leave, nil
}

var errCrowd = errors.New("too many requests are being read")

// verifyTurn waits until a credential may be looked at.
func (s *Server) verifyTurn(ctx context.Context, source string) (leave func(), err error) {
	places := s.load.verifying
	if s.failures.Limited(source, s.now()) {
		places = s.load.slow
	}
	if err := turn(ctx, places); err != nil {
		return nil, err
	}
	return func() { <-places }, nil
}

// serveClient takes a place for a client that has proved who it is, by the
// credential that it used: one that floods can't take the turns of the others.
func (s *Server) serveClient(e Entry) (leave func(), err *Error) {
	client := e.Service + " " + e.Credential
	wait := s.load.pace.Take(client, 1, s.now())
	if wait == 0 {
		var ok bool
		if leave, ok = s.load.clients.Take(client); ok {
			return leave, nil
		}
		wait = time.Second
	}
	limited := &Error{
		Code: CodeUnavailable, Status: http.StatusTooManyRequests, RetryAfter: wait,
		Description: "too many requests of this client; keep tokens until they end",
		Err:         fmt.Errorf("client %s asks for too many tokens", client),
	}
	// The audit has said it when it has said it often enough.
	if wait, first := s.failures.Add(client, s.now()); wait == 0 || first {
		return nil, s.refused(e, limited)
	}
	s.metrics.refused.WithLabelValues(limited.Code).Inc()
	return nil, limited
}

// turn waits for one of the places.
func turn(ctx context.Context, places chan struct{}) error {
	select {
	case places <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(turnWait)
	defer timer.Stop()
	select {
	case places <- struct{}{}:
		return nil
	case <-timer.C:
		return errBusy
	case <-ctx.Done():
		return fmt.Errorf("waiting for a turn: %w", context.Cause(ctx))
	}
}

var errBusy = errors.New("too many requests are being worked on")
