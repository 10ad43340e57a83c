package enrolment

import (
	"context"
	"sync"

	"github.com/watchword-mesh/watchword/internal/jointoken"
	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
)

// queues let the enrolments by one join token through one after the other. Each
// writes anew the record that the next one reads, so that of several at the same
// time one alone gets through, and the others have worked for nothing. Replicas
// don't know each other's queues; what the store compares decides.
type queues struct {
	mu sync.Mutex
	// of has those of join tokens that somebody enrols with right now.
	of map[string]*queue
}

type queue struct {
	// place is taken by who reads and writes the record.
	place chan struct{}
	// users are those in the queue and in its place.
	users int
}

// queue waits for the place of the join token of a request, if it has one.
func (s *Server) queue(ctx context.Context, req *enrolmentv1.EnrolRequest) (leave func(), err error) {
	t, err := jointoken.Parse(req.GetJoinToken())
	if err != nil { // another credential, or one that is refused
		return func() {}, nil
	}
	return s.byToken.enter(ctx, t.ID)
}

// enter waits for the place of a join token, until ctx ends.
func (q *queues) enter(ctx context.Context, id string) (leave func(), err error) {
	in := q.join(id)
	select {
	case in.place <- struct{}{}:
		return func() { <-in.place; q.part(id, in) }, nil
	case <-ctx.Done():
		q.part(id, in)
		return nil, ctx.Err()
	}
}

func (q *queues) join(id string) *queue {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.of == nil {
		q.of = map[string]*queue{}
	}
	in := q.of[id]
	if in == nil {
		in = &queue{place: make(chan struct{}, 1)}
		q.of[id] = in
	}
	in.users++
	return in
}

func (q *queues) part(id string, in *queue) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if in.users--; in.users == 0 {
		delete(q.of, id)
	}
}
