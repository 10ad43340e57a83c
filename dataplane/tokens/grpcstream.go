package tokens

import (
	"context"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// StreamInterceptor attaches a token to each stream. One on which the callee alone
// sends more than a message is made once more if it is refused before the first
// message, as a unary call is. On others messages may have been sent that nobody
// has kept: for them the token is dropped, and the next stream has a new one.
func (g GRPC) StreamInterceptor() grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		if hasCredentials(opts) {
			return open(ctx, desc, cc, method, opts...)
		}
		s := &stream{attempt: &attempt{grpc: g}, clientStreams: desc.ClientStreams}
		s.open = func(a *attempt) (grpc.ClientStream, error) {
			return open(ctx, desc, cc, method, append(slices.Clone(opts), grpc.PerRPCCredentials(a))...)
		}
		var err error
		if s.now, err = s.open(s.attempt); err != nil {
			return nil, err
		}
		return s, nil
	}
}

// stream is a call that may become another one before its first message.
type stream struct {
	attempt       *attempt
	open          func(*attempt) (grpc.ClientStream, error)
	clientStreams bool

	mu  sync.Mutex
	now grpc.ClientStream
	// began: the first message has come, or an error.
	began bool
	// settled: the caller has seen something of now, so it stays.
	settled bool
	request any // what was sent, if the caller sends one message alone
	closed  bool
}

func (s *stream) current() grpc.ClientStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// settle keeps the stream that there is.
func (s *stream) settle() grpc.ClientStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled = true
	return s.now
}

func (s *stream) Context() context.Context     { return s.current().Context() }
func (s *stream) Header() (metadata.MD, error) { return s.settle().Header() }
func (s *stream) Trailer() metadata.MD         { return s.current().Trailer() }

func (s *stream) SendMsg(m any) error {
	s.mu.Lock()
	if !s.clientStreams {
		s.request = m
	}
	now := s.now
	s.mu.Unlock()
	return now.SendMsg(m)
}

func (s *stream) CloseSend() error {
	s.mu.Lock()
	s.closed = true
	now := s.now
	s.mu.Unlock()
	return now.CloseSend()
}

func (s *stream) RecvMsg(m any) error {
	now := s.current()
	err := now.RecvMsg(m)
	if next := s.instead(now, err); next != nil {
		return next.RecvMsg(m)
	}
	return err
}

// instead gives the stream that takes the place of one whose first message, or
// error, has come; nil if it stays.
func (s *stream) instead(now grpc.ClientStream, err error) grpc.ClientStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	began, settled := s.began, s.settled
	s.began, s.settled = true, true
	if err == nil || began {
		return nil
	}
	header, _ := now.Header() // the call has ended, so it doesn't wait
	if !s.attempt.again(err, header, now.Trailer()) || settled || s.request == nil {
		return nil
	}
	next, failed := s.replay()
	if failed != nil {
		return nil
	}
	s.now = next
	return next
}

// replay opens the stream again, and sends what was sent. An error of sending is one
// that receiving tells better.
func (s *stream) replay() (grpc.ClientStream, error) {
	next, err := s.open(&attempt{grpc: s.attempt.grpc})
	if err != nil {
		return nil, err
	}
	_ = next.SendMsg(s.request)
	if s.closed {
		_ = next.CloseSend()
	}
	return next, nil
}
