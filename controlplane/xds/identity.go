package xds

import (
	"context"
	"errors"
	"strings"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Identity is who a data plane is by its certificate. It can be a key of a map.
type Identity struct {
	// Service alone decides what a stream can get.
	Service string
	// Instance is the enrolled instance.
	Instance string
}

// maxInstanceStreams bounds the open streams of one instance. An Envoy has one,
// or one for each of its three filters if its ADS is another's; twice that while
// it restarts. A stream that its network has lost stays for the 50 s of
// ServerOptions, in which an Envoy that notices after 7 s comes back some 7
// times: 3 filters x 2 processes x (1 + 7).
const maxInstanceStreams = 48

// errRevoked ends the streams of an instance by Disconnect.
var errRevoked = status.Error(codes.PermissionDenied, "this instance was revoked")

// ErrUnknown is what a client learns whose identity is none of an enrolled instance.
var ErrUnknown = status.Error(codes.Unauthenticated,
	"a data plane needs the certificate of an enrolled instance: start it with `watchword envoy`, or enrol it with `watchword enrol`")

// identify asks who is at the other end. A status says what the client may
// know; what any other error says is for the log alone.
func (s *Server) identify(ctx context.Context) (Identity, error) {
	if s.who == nil {
		return Identity{}, ErrUnknown
	}
	who, err := s.who(ctx)
	if err == nil && (who.Service == "" || who.Instance == "") {
		err = errors.New("the identity has no service or no instance")
	}
	if err == nil {
		return who, nil
	}
	s.log.Debug("a stream is refused", "error", err)
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.Unavailable:
		return Identity{}, err
	}
	return Identity{}, ErrUnknown
}

// admit books a stream under its identity, so that Disconnect finds it. Who it
// is was asked before, and is asked again once it is booked: a revocation that
// came first is seen here, and one that comes later finds the stream.
func (s *Server) admit(ctx context.Context, st *stream) error {
	if err := s.enlist(st); err != nil {
		return err
	}
	again, err := s.identify(ctx)
	if err == nil && again != st.identity {
		err = ErrUnknown
	}
	if err != nil {
		s.dismiss(st)
	}
	return err
}

func (s *Server) enlist(st *stream) error {
	s.instancesMu.Lock()
	defer s.instancesMu.Unlock()
	of := s.instances[st.identity]
	if len(of) == maxInstanceStreams {
		return status.Errorf(codes.ResourceExhausted, "this instance has %d streams open, which is as many as it may have; close some, or enrol each data plane by itself", maxInstanceStreams)
	}
	if of == nil {
		of = make(map[*stream]struct{})
		s.instances[st.identity] = of
	}
	of[st] = struct{}{}
	return nil
}

func (s *Server) dismiss(st *stream) {
	s.instancesMu.Lock()
	defer s.instancesMu.Unlock()
	delete(s.instances[st.identity], st)
	if len(s.instances[st.identity]) == 0 {
		delete(s.instances, st.identity)
	}
}

// Disconnect ends all streams of an instance, or of a service if instance is
// empty, with PermissionDenied. Nothing is sent over them from then on. Make
// Config.Identify refuse the instance before: then no stream that is being
// opened meanwhile is left over.
//
// A client that does not read keeps the empty shell of its stream, and its row
// in the ledger, until its connection is closed.
func (s *Server) Disconnect(service, instance string) {
	s.eachStream(service, instance, func(st *stream) { st.end(errRevoked) })
}

// Streams counts the open streams of an instance, or of a service if instance
// is empty.
func (s *Server) Streams(service, instance string) int {
	n := 0
	s.eachStream(service, instance, func(*stream) { n++ })
	return n
}

// eachStream must be given what does not block.
func (s *Server) eachStream(service, instance string, do func(*stream)) {
	s.instancesMu.Lock()
	defer s.instancesMu.Unlock()
	if instance != "" {
		for st := range s.instances[Identity{service, instance}] {
			do(st)
		}
		return
	}
	for who, streams := range s.instances {
		if who.Service != service {
			continue
		}
		for st := range streams {
			do(st)
		}
	}
}

// claimed is the service that a first request speaks of, empty if of none. It
// decides nothing.
func claimed(req *discovery.DeltaDiscoveryRequest) string {
	if v := req.GetNode().GetMetadata().GetFields()["watchword.service"].GetStringValue(); v != "" {
		return v
	}
	for _, name := range req.GetResourceNamesSubscribe() {
		prefix, service, ok := strings.Cut(name, "/")
		if ok && strings.HasPrefix(prefix, "mesh.") && service != "" {
			return service
		}
	}
	return req.GetNode().GetCluster()
}
