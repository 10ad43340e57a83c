package clientauth

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"time"
)

// How many assertions are remembered, until they end: of one instance, so that
// none can take the room of the others (it is 13 a second over five minutes, and
// 45 if they live for a minute and the skew), and of all (some 20 MB).
const (
	maxPerInstance = 4096
	maxAssertions  = 1 << 18
)

// Replays remembers the assertions that were used, so that each is good once. If
// it is full it refuses new ones rather than forget old ones. It is of one
// process: another replica, or this one after a restart, doesn't know them, which
// is why they end soon.
type Replays struct {
	mu        sync.Mutex
	instances map[string]map[assertionID]time.Time // until when
	count     int
	// swept is when all that have ended were last forgotten.
	swept time.Time
	// limits, lower in tests.
	perInstance, total int
}

// assertionID is made from a jti, which can be long.
type assertionID [16]byte

// NewReplays makes one that has seen nothing.
func NewReplays() *Replays {
	return &Replays{instances: map[string]map[assertionID]time.Time{}, perInstance: maxPerInstance, total: maxAssertions}
}

// use remembers an assertion of the instance; the error is an ErrClient if it
// was used before, or if there is no room.
func (r *Replays) use(instance, id string, until, now time.Time) error {
	sum := sha256.Sum256([]byte(id))
	key := assertionID(sum[:])
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sweep(now)
	used := r.instances[instance]
	if end, ok := used[key]; ok && now.Before(end) {
		return fmt.Errorf("%w: the client assertion was used before; make a new one, with its own jti, for each request", ErrClient)
	}
	if len(used) >= r.perInstance {
		r.forget(instance, now)
		used = r.instances[instance]
	}
	if len(used) >= r.perInstance {
		return fmt.Errorf("%w: instance %s has used %d client assertions that are still valid; keep tokens until they end, or let assertions end sooner", ErrClient, instance, len(used))
	}
	if r.count >= r.total {
		return fmt.Errorf("%w: %d client assertions are still valid, and no more can be remembered", ErrClient, r.count)
	}
	if used == nil {
		used = map[assertionID]time.Time{}
		r.instances[instance] = used
	}
	if _, ok := used[key]; !ok {
		r.count++
	}
	used[key] = until
	return nil
}

// sweep forgets what has ended, once a minute, and when it is full once a second.
func (r *Replays) sweep(now time.Time) {
	every := time.Minute
	if r.count >= r.total {
		every = time.Second
	}
	if now.Sub(r.swept) < every {
		return
	}
	r.swept = now
	for instance := range r.instances {
		r.forget(instance, now)
	}
}

// forget forgets what has ended of one instance.
func (r *Replays) forget(instance string, now time.Time) {
	used := r.instances[instance]
	for key, until := range used {
		if !now.Before(until) {
			delete(used, key)
			r.count--
		}
	}
	if len(used) == 0 {
		delete(r.instances, instance)
	}
}
