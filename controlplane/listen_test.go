package controlplane

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

// The listeners have what they may have if the system allows it, and else a share
// of what it allows, so that something is left for etcd.
func TestSharesOf(t *testing.T) {
	for _, c := range []struct {
		descriptors uint64
		sum         int // at most
		xds, source int
	}{
		{1 << 20, 32250, 20000, 2000},
		{32762, 32250, 20000, 2000},
		{20000, 20000 - ownDescriptors, 12085, 2000},
		{1024, 512, 317, 158},
		{10, 512, 317, 158},
	} {
		s := sharesOf(c.descriptors)
		sum := s.admin.Total + s.socket.Total + s.xds.Total + s.sts.Total + s.ops.Total
		if sum > c.sum || s.xds.Total != c.xds || s.xds.PerSource != c.source {
			t.Errorf("with %d open files: %d connections in all, ADS %+v; want at most %d, and %d of which %d of one source", c.descriptors, sum, s.xds, c.sum, c.xds, c.source)
		}
		if s.ops.Total == 0 || s.ops.PerSource == 0 {
			t.Errorf("with %d open files health has no connection: %+v", c.descriptors, s.ops)
		}
	}
}

// However many ask whether the replica is ready, etcd is asked once a second.
func TestReadinessAsksOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pings, down := 0, false
		r := &readiness{now: time.Now, log: hclog.NewNullLogger(), ping: func(context.Context) error {
			pings++
			if down {
				return errors.New("away")
			}
			return nil
		}}
		all := func(want bool, asked int) {
			t.Helper()
			var g sync.WaitGroup
			for range 100 {
				g.Go(func() {
					if err := r.ask(); (err == nil) != want {
						t.Errorf("ready: %v, want %t", err, want)
					}
				})
			}
			g.Wait()
			if pings != asked {
				t.Errorf("etcd was asked %d times, want %d", pings, asked)
			}
		}
		all(true, 1)
		down = true
		all(true, 1)
		time.Sleep(readyFor)
		all(false, 2)
	})
}

// However few files may be open, strangers leave enrolled instances half of ADS.
func TestStrangersOf(t *testing.T) {
	for _, n := range []uint64{1, 1024, 2048, 4096, 1 << 20} {
		ads := sharesOf(n).xds
		if s := strangersOf(ads); s.Total < 1 || s.PerSource < 1 || s.Total > strangerLimits.Total || s.PerSource > s.Total || s.Total > max(ads.Total/2, 1) {
			t.Errorf("%d files: strangers have %+v of %+v", n, s, ads)
		}
	}
}
