package xds

import (
	"fmt"
	"sync"
	"testing"
)

// BenchmarkPush is what it costs from a change of one service until the last of
// 2,000 data planes has confirmed it.
func BenchmarkPush(b *testing.B) {
	const planes = 2000
	f, stop := launch(bare{b}, Config{})
	defer stop()
	revision := int64(1)
	f.publish(revision, "orders", inbound1)
	var running sync.WaitGroup
	all := make([]*plane, planes)
	for i := range all {
		if i%100 == 0 {
			conn, err := f.dial()
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			f.conn = conn
		}
		p := f.connectAs(bare{b}, Identity{"orders", fmt.Sprint(i)}, envoyNode("n", "orders"))
		all[i] = p
		running.Go(func() {
			for {
				select {
				case r := <-p.in:
					_ = p.stream.Send(ackOf(r))
				case <-p.end:
					return
				}
			}
		})
		p.subscribe(ecdsType, inbound1.Name)
	}
	f.untilInSync(bare{b}, "orders", planes)
	for b.Loop() {
		revision++
		f.publish(revision, "orders", filter(inbound1.Name, fmt.Sprint("content ", revision)))
		for {
			got, change := f.Progress(revision)
			if got.InSync == planes {
				break
			}
			<-change
		}
	}
	for _, p := range all {
		p.stop()
	}
	running.Wait()
}
