package simulation

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// start is what all clocks would say at the beginning, if they were right.
var start = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

// event is something that happens at a time; at equal times, in the order of asking.
type event struct {
	at  time.Duration
	seq int
	do  func()
}

type queue []event

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *queue) Pop() any {
	last := len(*q) - 1
	e := (*q)[last]
	(*q)[last] = event{}
	*q = (*q)[:last]
	return e
}

// after has something done, in d from now.
func (w *world) after(d time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, event{w.now + max(d, 0), w.seq, do})
}

// next takes out the event that is next.
func (w *world) next() event { return heap.Pop(&w.queue).(event) }

// clock is one that is wrong by a constant.
type clock struct {
	w     *world
	wrong time.Duration
}

func (c *clock) now() time.Time { return start.Add(c.w.now + c.wrong) }

// link is a way that messages go, one after the other.
type link struct {
	rng *rand.Rand
	// most is the longest that a message usually takes, slow what it takes longer now.
	most, slow time.Duration
	last       time.Duration
}

func (w *world) link(name uint64, most time.Duration) *link {
	return &link{rng: rand.New(rand.NewPCG(w.seed, name)), most: most}
}

// delay is how long the next message takes; none overtakes another.
func (l *link) delay(now time.Duration) time.Duration {
	d := time.Duration(l.rng.Int64N(int64(l.most))) + l.slow
	if l.rng.IntN(50) == 0 {
		d *= 10
	}
	l.last = max(l.last, now+d)
	return l.last - now
}
