package controlplane

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
)

// cluster is what this replica knows of all. Every replica watches, so that who leads
// next knows since when others are gone.
type cluster struct {
	log hclog.Logger
	now func() time.Time

	mu       sync.Mutex
	observer *ledger.Observer
	clocks   *clocks
	moved    chan struct{}
}

func newCluster(b ledger.Bounds, log hclog.Logger) *cluster {
	return &cluster{log: log, now: time.Now, observer: ledger.NewObserver(b), clocks: newClocks(b.ClockError), moved: make(chan struct{})}
}

// see takes what is stored now.
func (c *cluster) see(now ledger.Cluster) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range c.clocks.see(now, c.now()) {
		c.log.Warn("the clock of a replica differs from the one here by more than is allowed for; set both by NTP",
			"host", now.Members[id].Host, "difference", c.clocks.off[id].Round(time.Millisecond), "allowed", c.clocks.allowed)
	}
	c.observer.See(now, c.now())
	close(c.moved)
	c.moved = make(chan struct{})
}

// observe asks the Observer, which is nobody else's meanwhile.
func (c *cluster) observe(ask func(*ledger.Observer)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	ask(c.observer)
}

// change is closed when something else is stored.
func (c *cluster) change() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.moved
}

// clocksOff are the replicas whose clocks differ too much, by ID.
func (c *cluster) clocksOff() map[string]time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.clocks.off)
}

// clocks compares what records say of their writers' clocks with the one here. A record
// is seen later than it was written, so one that lags behind must do so twice; one from
// the future is wrong at once.
type clocks struct {
	allowed time.Duration
	last    map[string]time.Time
	late    map[string]int
	// off has the difference of those that are wrong.
	off map[string]time.Duration
}

func newClocks(allowed time.Duration) *clocks {
	return &clocks{allowed: allowed, last: map[string]time.Time{}, late: map[string]int{}, off: map[string]time.Duration{}}
}

// see returns those that have turned out to be wrong, in order.
func (k *clocks) see(c ledger.Cluster, now time.Time) (news []string) {
	maps.DeleteFunc(k.last, func(id string, _ time.Time) bool { return !c.Alive[id] })
	maps.DeleteFunc(k.off, func(id string, _ time.Duration) bool { return !c.Alive[id] })
	maps.DeleteFunc(k.late, func(id string, _ int) bool { return !c.Alive[id] })
	for id := range c.Alive {
		r, wrote := c.Records[id]
		last, seen := k.last[id]
		if !wrote || r.Clock.Equal(last) {
			continue
		}
		k.last[id] = r.Clock
		ahead := r.Clock.Sub(now)
		switch {
		case ahead < -k.allowed && seen: // the first that is seen may be of long ago
			k.late[id]++
		case ahead >= -k.allowed:
			k.late[id] = 0
		}
		_, known := k.off[id]
		if ahead <= k.allowed && k.late[id] < 2 {
			delete(k.off, id)
			continue
		}
		if k.off[id] = ahead; !known {
			news = append(news, id)
		}
	}
	slices.Sort(news)
	return news
}
