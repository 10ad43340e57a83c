package clientauth

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// An assertion is good once until it has ended, for each instance on its own.
func TestReplays(t *testing.T) {
	r := NewReplays()
	end := created.Add(time.Minute)
	for _, c := range []struct {
		instance, id string
		now          time.Time
		want         string
	}{
		{"one", "a", created, ""},
		{"one", "a", created, "used before"},
		{"two", "a", created, ""},
		{"one", "b", created, ""},
		{"one", "a", end.Add(-1), "used before"},
		{"one", "a", end, ""}, // it would be refused as expired
	} {
		if err := r.use(c.instance, c.id, end, c.now); !said(err, c.want) {
			t.Errorf("use(%s, %s) at %v: %v, want %q", c.instance, c.id, c.now, err, c.want)
		}
	}
}

func said(err error, want string) bool {
	if want == "" {
		return err == nil
	}
	return errors.Is(err, ErrClient) && strings.Contains(err.Error(), want)
}

// An instance that has used all its room is refused, and no other; when it is
// full as a whole all are. Nothing that is still valid is forgotten for that, and
// what has ended makes room.
func TestReplaysAreBounded(t *testing.T) {
	r := NewReplays()
	r.perInstance, r.total = 3, 5
	end := created.Add(time.Minute)
	use := func(instance, id string, now time.Time, want string) {
		t.Helper()
		if err := r.use(instance, id, now.Add(end.Sub(created)), now); !said(err, want) {
			t.Errorf("use(%s, %s) at %v: %v, want %q", instance, id, now, err, want)
		}
	}
	for i := range 3 {
		use("one", fmt.Sprint(i), created, "")
	}
	use("one", "3", created, "instance one has used 3")
	use("two", "0", created, "")
	use("two", "1", created, "")
	use("three", "0", created, "no more can be remembered")
	for i := range 3 {
		use("one", fmt.Sprint(i), created, "used before")
	}
	use("three", "0", end, "")
	use("one", "0", end, "")
	if r.count != 2 || len(r.instances) != 2 {
		t.Errorf("%d assertions of %d instances are remembered, want 2 of 2", r.count, len(r.instances))
	}
}

// What has ended is forgotten though nobody uses that instance again.
func TestReplaysForget(t *testing.T) {
	r := NewReplays()
	for i := range 100 {
		if err := r.use(fmt.Sprint(i), "a", created.Add(time.Minute), created); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.use("one", "a", created.Add(3*time.Minute), created.Add(2*time.Minute)); err != nil || r.count != 1 || len(r.instances) != 1 {
		t.Errorf("%v; %d assertions of %d instances are remembered, want 1 of 1", err, r.count, len(r.instances))
	}
}

// Of many who use one assertion at one moment, one gets in.
func TestReplaysAtOnce(t *testing.T) {
	r := NewReplays()
	var in atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if r.use("one", "a", created.Add(time.Minute), created) == nil {
				in.Add(1)
			}
		})
	}
	wg.Wait()
	if in.Load() != 1 {
		t.Errorf("%d got in, want 1", in.Load())
	}
}
