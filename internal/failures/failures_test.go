package failures

import (
	"fmt"
	"testing"
	"time"
)

var noon = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

// However many sources there are, the memory for them is bounded, and one that
// fails all the time isn't forgotten for those that failed once.
func TestSourcesAreBounded(t *testing.T) {
	f := New()
	for i := range 3 * maxSources {
		f.Add("192.0.2.1", noon)
		f.Add(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), noon)
	}
	if len(f.sources) != maxSources || f.byRecent.Len() != maxSources {
		t.Errorf("%d sources in the map, %d in the list; want %d", len(f.sources), f.byRecent.Len(), maxSources)
	}
	if wait, _ := f.Add("192.0.2.1", noon); wait == 0 {
		t.Error("the source that failed most often was forgotten")
	}
}

func TestSources(t *testing.T) {
	for _, c := range []struct{ remote, source, key string }{
		{"192.0.2.1:80", "192.0.2.1", "192.0.2.1"},
		{"[::ffff:192.0.2.1]:80", "192.0.2.1", "192.0.2.1"},
		{"[2001:db8:1:2:3::4]:80", "2001:db8:1:2:3::4", "2001:db8:1:2::/64"},
		{"[fe80::1%eth0]:80", "fe80::1%eth0", "fe80::/64"},
		{"@", "", ""},
	} {
		if got := SourceOf(c.remote); got != c.source {
			t.Errorf("SourceOf(%s) = %q, want %q", c.remote, got, c.source)
		}
		if got := Key(c.source); got != c.key {
			t.Errorf("Key(%q) = %q, want %q", c.source, got, c.key)
		}
	}
}
