// Package ledger is what replicas know of their data planes, and what follows
// from all that they have written down together: when a key may sign, when it may
// go, and when something that was revoked is refused everywhere.
//
// Each replica keeps a [Book] of the data planes that are connected to it, and
// writes a [Record] of it that says in one number how far they are, the claim,
// with the services that are behind. A [Cluster] is what is stored of all replicas
// at one moment, and an [Observer] answers from it.
//
// The rules that the names of this package come from are numbered in
// docs/rotation.md. Nothing here reads a clock, does I/O or logs.
package ledger

import "time"

// Bounds are the times that the protocol counts on. All replicas of a mesh must
// have the same ones.
type Bounds struct {
	// Authority is E, the life of a replica's lease in etcd: for that long after it
	// has asked for the last renewal that succeeded, it may promise things.
	Authority time.Duration
	// ClockError is the largest difference between two clocks, of replicas or of
	// data planes.
	ClockError time.Duration
	// Signing is S: how long a replica that has lost its authority goes on signing.
	Signing time.Duration
	// Grace is G: how long a data plane without a lease that is gone, or, if
	// Stragglers is Grant, that is connected and not in sync, is waited for.
	Grace time.Duration
	// Stragglers says what is done about a connected data plane that is not in sync.
	Stragglers Stragglers
}

// Stragglers is what is done about data planes that are connected and do not
// confirm what they are sent.
type Stragglers string

// The values of Stragglers: wait for as long as it takes, or for the time of grace.
const (
	Hold  Stragglers = "hold"
	Grant Stragglers = "grace"
)

// Member is one replica, from when it joined. One that has lost its place and takes
// a new one is another member.
type Member struct {
	ID      string    `json:"id"`
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	// Version of the program.
	Version string `json:"version"`
	// Address, HOST:PORT, is where other replicas reach its ADS listener.
	Address string `json:"address"`
	// Joined is the revision at which it joined; etcd's own.
	Joined int64 `json:"-"`
}

// Record is what a member has written down. It is of the member alone, and outlives
// it. Claims in it never fall.
type Record struct {
	// Applied is the last revision of resources, keys and revocations that the member
	// has published to its data planes and signs by. Other revisions don't count:
	// records would make new ones without end.
	Applied int64 `json:"applied"`
	// Claim says that the data planes of every service that are connected to the member
	// have all of a revision, but those of the services in Held.
	Claim int64 `json:"claim"`
	// Held are the services whose data planes are behind, by name.
	Held map[string]Held `json:"held,omitempty"`
	// Lifetime is the longest of a token that the member has signed.
	Lifetime time.Duration `json:"lifetime,omitempty"`
	// Signing is how long the member goes on signing when it has lost its authority.
	Signing time.Duration `json:"signing,omitempty"`
	// Lease is the longest that the member may have given a data plane. It is written
	// before the first of that length is given.
	Lease time.Duration `json:"lease,omitempty"`
	// Clock is what the member's clock said when it wrote this.
	Clock time.Time `json:"clock"`
	// KEKs are the key-encryption keys that it has.
	KEKs []string `json:"keks,omitempty"`
	// Schemas are the versions of compiled output that it can make, such as
	// "ruleset/1", sorted.
	Schemas []string `json:"schemas,omitempty"`
	// SigningStopped: it signs no more, and gives no leases.
	SigningStopped bool `json:"signing_stopped,omitempty"`
}

// Held is a service that is behind.
type Held struct {
	// Claim is the revision that its data planes have.
	Claim int64 `json:"claim"`
	// Count is how many are behind that a receipt waits for: connected, or with a
	// lease. Gone are the others, which may come back, to any replica.
	Count int `json:"count,omitempty"`
	Gone  int `json:"gone,omitempty"`
	// Left are those that are connected, have no leases, and that keys wait for no more,
	// since their grace is over. They have Has. A receipt says that nothing is known of
	// them.
	Left int   `json:"left,omitempty"`
	Has  int64 `json:"has,omitempty"`
	// Who are some of them, NODE (INSTANCE).
	Who []string `json:"who,omitempty"`
	// Why is the reason of the first.
	Why string `json:"why,omitempty"`
	// Until is when the last that waits for a time holds nothing back any more; zero
	// if there is none.
	Until time.Time `json:"until,omitzero"`
}

// Cluster is what is stored of all replicas at one moment. It doesn't change.
type Cluster struct {
	// Members by ID, alive or departed.
	Members map[string]Member
	// Alive are the members that hold their lease in etcd.
	Alive map[string]bool
	// Records by the ID of the member.
	Records map[string]Record
	// Leader is the ID of the member that steps the keys; empty if there is none.
	Leader string
	// Joined is the revision at which the last member joined.
	Joined int64
}
