package xds

import (
	"cmp"
	"slices"
	"time"
)

// DataPlane is one running data plane: all streams of one node of an instance.
type DataPlane struct {
	// Node is node.id, a label that the client chose; the instance if it sent none.
	Node string
	// Service and Instance are those of its certificate.
	Service, Instance string
	// Kind is node.user_agent_name: "envoy", or how a program calls itself.
	Kind    string
	Address string
	// Revision is the last published one at which the data plane had everything.
	// It rises with each publication that changes nothing for it.
	Revision int64
	// InSync: it confirmed today's content of all that it asked for, and asked
	// for all that it must enforce.
	InSync bool
	// Reason says why it is not in sync. If it is, it is empty, except for a
	// service that has no resources, which refuses all requests.
	Reason string
	// Since is when InSync last changed, Connected when its oldest stream came.
	Since, Connected time.Time
}

// SentResource is what the ledger holds about one resource of a data plane.
type SentResource struct {
	TypeURL, Name string
	// Version was last sent, or is held since before this stream began. It is
	// empty if there is nothing, or the resource was removed.
	Version string
	// AckedVersion is what the data plane holds by its own word.
	AckedVersion string
	// Refusal is why it refused what was sent, empty if it did not.
	Refusal string
	// Body is that of Version; nil for a token. It is shared: do not change it.
	Body []byte
}

// Progress says how far a revision has come.
type Progress struct {
	// Published is the last revision that was published here.
	Published int64
	// Total counts the connected data planes of the services whose content
	// changed at or after the revision, InSync those with nothing outstanding.
	Total, InSync int
	// Waiting are those that are not in sync, at most 100 of them.
	Waiting []DataPlane
}

const maxWaiting = 100

// DataPlanes returns the connected data planes of a service, or of all services
// if it is empty, sorted by service, node and
// instance.
func (s *Server) DataPlanes(service string) []DataPlane {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []DataPlane
	for name, svc := range s.services {
		if service != "" && service != name {
			continue
		}
		svc.mu.Lock()
		for _, r := range svc.rows {
			all = append(all, svc.dataPlane(r))
		}
		svc.mu.Unlock()
	}
	sortDataPlanes(all)
	return all
}

func sortDataPlanes(all []DataPlane) {
	slices.SortFunc(all, func(a, b DataPlane) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Instance, b.Instance))
	})
}

// Sent returns what a data plane was sent, sorted by type and name; false if
// none of that name is connected. The name is that of an instance, or else of a
// node, which anybody may have chosen: of several the first by service, node and
// instance.
func (s *Server) Sent(name string) (DataPlane, []SentResource, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	r := s.find(name)
	if r == nil {
		return DataPlane{}, nil, false
	}
	in := r.service
	in.mu.Lock()
	defer in.mu.Unlock() // rows leave only under s.mu
	var sent []SentResource
	for _, it := range r.items() {
		sent = append(sent, it.sentResource())
	}
	return in.dataPlane(r), sent, true
}

// find returns the row that Sent is asked for, nil if there is none.
func (s *Server) find(name string) *row {
	var found *row
	for _, svc := range s.services {
		svc.mu.Lock()
		for key, r := range svc.rows {
			if (key.instance == name || key.node == name) && (found == nil || compareFound(name, r, found) < 0) {
				found = r
			}
		}
		svc.mu.Unlock()
	}
	return found
}

func compareFound(name string, a, b *row) int {
	if a.instance != b.instance {
		switch name {
		case a.instance:
			return -1
		case b.instance:
			return 1
		}
	}
	return cmp.Or(cmp.Compare(a.service.name, b.service.name), cmp.Compare(a.node, b.node), cmp.Compare(a.instance, b.instance))
}

func (it ledgerItem) sentResource() SentResource {
	out := SentResource{TypeURL: it.typeURL, Name: it.name, Refusal: it.refusal}
	if it.sent != nil {
		out.Version = it.sent.version
		if !it.sent.secret {
			out.Body = it.sent.wire.GetResource().GetValue()
		}
	}
	if it.acked != absent {
		out.AckedVersion = it.acked
	}
	return out
}

// Progress says how far the data planes of the services that changed at or after
// a revision, and of the services named, have come. The channel is closed when the answer may have changed
// (within 10 ms): call again then. Who calls late sees the newest state and misses nothing.
func (s *Server) Progress(revision int64, services ...string) (Progress, <-chan struct{}) {
	s.notify.Lock()
	if s.watch == nil {
		s.watch = make(chan struct{})
	}
	watch := s.watch // taken before the state is read, so no change falls between
	s.notify.Unlock()

	p := Progress{Published: s.Published()}
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, svc := range s.services {
		svc.progress(revision, slices.Contains(services, svc.name), &p)
	}
	sortDataPlanes(p.Waiting)
	return p, watch
}

// Touched are the services that a revision changed something for, or a later one, and
// those named.
func (s *Server) Touched(revision int64, services ...string) []string {
	out := slices.Clone(services)
	s.mu.RLock()
	defer s.mu.RUnlock()
	for name, svc := range s.services {
		svc.mu.Lock()
		touched := svc.changed >= revision
		svc.mu.Unlock()
		if touched && !slices.Contains(services, name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func (svc *service) progress(revision int64, named bool, p *Progress) {
	svc.mu.Lock()
	defer svc.mu.Unlock()
	if svc.changed < revision && !named {
		return
	}
	p.Total += len(svc.rows)
	p.InSync += len(svc.rows) - len(svc.waiting)
	for r := range svc.waiting {
		if len(p.Waiting) == maxWaiting {
			return
		}
		p.Waiting = append(p.Waiting, svc.dataPlane(r))
	}
}

// Confirmed are the data planes that Progress counts as in sync, sorted by service,
// node and instance; with only, those of the services named and no others.
func (s *Server) Confirmed(revision int64, only bool, services ...string) []DataPlane {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []DataPlane
	for _, svc := range s.services {
		if named := slices.Contains(services, svc.name); named || !only {
			all = svc.inSync(all, revision, named)
		}
	}
	sortDataPlanes(all)
	return all
}

func (svc *service) inSync(all []DataPlane, revision int64, named bool) []DataPlane {
	svc.mu.Lock()
	defer svc.mu.Unlock()
	if svc.changed < revision && !named {
		return all
	}
	for _, r := range svc.rows {
		if r.inSync {
			all = append(all, svc.dataPlane(r))
		}
	}
	return all
}

// wakeEvery is how often those who wait on Progress are woken while a push is
// under way: each ACK is a change, and to look at all of them costs as much as
// to send them.
const wakeEvery = 10 * time.Millisecond

// changed wakes those who wait on Progress: at once if nobody is behind now, or
// if the last time is a while ago, else as soon as it is.
func (s *Server) changed() {
	s.notify.Lock()
	defer s.notify.Unlock()
	if s.watch == nil || s.wake != nil && s.lagging.Load() > 0 {
		return
	}
	left := wakeEvery - time.Since(s.woken)
	if left <= 0 || s.lagging.Load() == 0 {
		s.wakeNow()
		return
	}
	s.wake = time.AfterFunc(left, func() {
		s.notify.Lock()
		defer s.notify.Unlock()
		s.wakeNow()
	})
}

// wakeNow closes the channel, under the lock.
func (s *Server) wakeNow() {
	if s.wake != nil {
		s.wake.Stop()
		s.wake = nil
	}
	if s.watch != nil {
		close(s.watch)
		s.watch = nil
		s.woken = time.Now()
	}
}
