package quota

import (
	"fmt"
	"testing"
	"time"
)

// Nobody has more than a share, all together not more than the total, and a place
// that is given back twice is one place.
func TestPlaces(t *testing.T) {
	p := NewPlaces(5, 2)
	take := func(key string, want bool) func() {
		t.Helper()
		leave, ok := p.Take(key)
		if ok != want {
			t.Fatalf("a place for %q: %t, want %t (%d are taken)", key, ok, want, p.Taken())
		}
		return leave
	}
	first := take("a", true)
	take("a", true)
	take("a", false)
	first()
	first()
	take("a", true)
	take("a", false)
	for range 3 { // without a key there is no share
		take("", true)
	}
	take("b", false)
	if p.Taken() != 5 {
		t.Errorf("%d places are taken, want 5", p.Taken())
	}
}

// Places that were given back leave nothing behind.
func TestPlacesForget(t *testing.T) {
	p := NewPlaces(1, 1)
	for i := range 1000 {
		leave, ok := p.Take(fmt.Sprint(i))
		if !ok {
			t.Fatalf("no place for %d", i)
		}
		leave()
	}
	if len(p.by) != 0 || p.Taken() != 0 {
		t.Errorf("%d keys and %d places are kept, want none", len(p.by), p.Taken())
	}
}

var noon = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

// A key has its burst and then its pace; what was refused costs nothing, and other
// keys are not touched.
func TestPace(t *testing.T) {
	p := NewPace(2, 3)
	for i, c := range []struct {
		key  string
		n    int
		at   time.Duration
		want time.Duration
	}{
		{"a", 2, 0, 0},
		{"a", 2, 0, 500 * time.Millisecond},
		{"a", 1, 0, 0},
		{"a", 1, 0, 500 * time.Millisecond},
		{"b", 100, 0, 0}, // as much as a burst
		{"a", 1, 500 * time.Millisecond, 0},
		{"a", 1, 500 * time.Millisecond, 500 * time.Millisecond},
	} {
		if got := p.Take(c.key, c.n, noon.Add(c.at)); got != c.want {
			t.Errorf("%d: Take(%s, %d) after %s: wait %s, want %s", i, c.key, c.n, c.at, got, c.want)
		}
	}
}

// Who owes waits longer each time.
func TestOwe(t *testing.T) {
	p := NewPace(1, 1)
	for i := range 3 {
		if got, want := p.Owe("a", 1, noon), time.Duration(i)*time.Second; got != want {
			t.Errorf("the %d. time: wait %s, want %s", i+1, got, want)
		}
	}
}

// However many keys there are, the memory for them is bounded.
func TestPaceIsBounded(t *testing.T) {
	p := NewPace(1, 1)
	for i := range 3 * mostKeys {
		p.Take("often", 1, noon)
		p.Take(fmt.Sprint(i), 1, noon)
	}
	if len(p.keys) != mostKeys || p.byRecent.Len() != mostKeys {
		t.Errorf("%d keys in the map, %d in the list; want %d", len(p.keys), p.byRecent.Len(), mostKeys)
	}
	if p.Take("often", 1, noon) == 0 {
		t.Error("the key that was there most often was forgotten")
	}
}
