package xds

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

func woken(t *testing.T, ch <-chan struct{}) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(patience):
		t.Fatal("Progress did not wake")
	}
}

// Progress is level-triggered: it wakes for each change of its answer, counts
// only the services that changed at or after the revision, and names who waits.
func TestProgress(t *testing.T) {
	f := start(t, Config{})
	_, ch := f.Progress(1)
	f.publish(1, "orders", inbound1)
	woken(t, ch)
	f.publish(2, "billing", filter("mesh.inbound/billing", "x"))
	p := f.connect(t, envoyNode("n1", "orders"))
	p.subscribe(ecdsType, inbound1.Name)
	r := p.want(one(inbound1))
	f.until(t, "the stream waits", func() bool {
		got, _ := f.Progress(1)
		return got.Total == 1 && got.InSync == 0 && got.Published == 2 && len(got.Waiting) == 1 && got.Waiting[0].Node == "n1"
	})
	if got, _ := f.Progress(2); got.Total != 0 {
		t.Errorf("at 2, which changed billing only: got %+v, want nobody", got)
	}
	_, ch = f.Progress(1)
	p.ack(r)
	woken(t, ch)
	f.until(t, "in sync", func() bool { got, _ := f.Progress(1); return got.InSync == 1 && got.Waiting == nil })
	_, ch = f.Progress(1)
	p.stop()
	woken(t, ch)
	f.until(t, "gone", func() bool { got, _ := f.Progress(1); return got.Total == 0 })
}

// A data plane's revision rises with publications that change nothing for it,
// stays when it is behind, and never names one whose content it lacks.
func TestRevision(t *testing.T) {
	now := time.Unix(1000, 0)
	f := start(t, Config{Now: func() time.Time { return now }})
	f.publish(1, "orders", inbound1)
	p := f.connect(t, envoyNode("n1", "orders"))
	p.subscribe(ecdsType, inbound1.Name)
	p.ack(p.want(one(inbound1)))
	f.untilInSync(t, "orders", 1)
	check := func(revision int64, inSync bool) {
		t.Helper()
		dp := f.DataPlanes("orders")[0]
		if dp.Revision != revision || dp.InSync != inSync || !dp.Since.Equal(now) {
			t.Errorf("got %+v, want revision %d, in sync %v", dp, revision, inSync)
		}
	}
	check(1, true)
	f.publish(4, "billing", filter("mesh.inbound/billing", "x"))
	check(4, true)
	f.publish(6, "orders", inbound2)
	r := p.want(one(inbound2))
	check(4, false)
	f.publish(8, "billing", filter("mesh.inbound/billing", "y"))
	check(4, false)
	f.publish(9, "orders", inbound1) // back to what it confirmed, while two is in flight
	check(4, false)
	p.ack(r)
	p.ack(p.want(one(inbound1)))
	f.untilInSync(t, "orders", 1)
	check(9, true)
}

// Sent tells what went out and what is confirmed, and the order of rows is that
// of service and node.
func TestSentAndOrder(t *testing.T) {
	f := start(t, Config{})
	f.Publish(Update{Revision: 1, Services: map[string][]Resource{"orders": {inbound1, revoked1}, "billing": {filter("mesh.inbound/billing", "x")}}})
	for _, id := range []string{"n2", "n1"} {
		p := f.connect(t, envoyNode(id, "orders"))
		p.subscribe(ecdsType, inbound1.Name, revoked1.Name)
		p.ack(p.want(one(inbound1)))
		p.want(one(revoked1))
		p.quiet()
	}
	b := f.connect(t, envoyNode("n3", "billing"))
	b.subscribe(markType, "x")
	b.recv()
	var order []string
	for _, dp := range f.DataPlanes("") {
		order = append(order, dp.Service+"/"+dp.Node)
	}
	if d := cmp.Diff([]string{"billing/n3", "orders/n1", "orders/n2"}, order); d != "" {
		t.Errorf("order differs (-want +got):\n%s", d)
	}
	f.until(t, "the mark is unsubscribed", func() bool { _, sent, _ := f.Sent("n1"); return len(sent) == 2 })
	dp, sent, ok := f.Sent("n1")
	want := []SentResource{
		{TypeURL: ecdsType, Name: inbound1.Name, Version: version(testKey, inbound1), AckedVersion: version(testKey, inbound1), Body: inbound1.Body},
		{TypeURL: ecdsType, Name: revoked1.Name, Version: version(testKey, revoked1), Body: revoked1.Body},
	}
	if d := cmp.Diff(want, sent); d != "" || !ok || dp.Node != "n1" {
		t.Errorf("Sent(n1) = %+v, %v; differs (-want +got):\n%s", dp, ok, d)
	}
	if _, _, ok := f.Sent("nobody"); ok {
		t.Error("Sent of an unknown node returned true")
	}
}

// A data plane that reads nothing holds up neither a publication nor others, and
// then gets the newest content only, not all that it missed.
func TestSlowStreamHoldsNobody(t *testing.T) {
	f := start(t, Config{})
	big := func(c string) Resource { return filter(inbound1.Name, strings.Repeat(c, 100<<10)) } // over the flow-control window
	confirm := func(p *plane, want Resource) {
		t.Helper()
		r := p.recv()
		if got := r.GetResources()[0].GetVersion(); got != version(testKey, want) {
			t.Fatalf("got version %s, want %s of %.1q", got, version(testKey, want), want.Body)
		}
		p.ack(r)
	}
	f.publish(1, "orders", big("a"))
	slow := f.connect(t, envoyNode("slow", "orders"))
	slow.subscribe(ecdsType, inbound1.Name)
	first := slow.recv() // and no answer
	fast := f.connect(t, envoyNode("fast", "orders"))
	fast.subscribe(ecdsType, inbound1.Name)
	confirm(fast, big("a"))
	for i, c := range []string{"b", "c", "d"} {
		f.publish(int64(i+2), "orders", big(c))
		confirm(fast, big(c))
	}
	slow.ack(first)
	confirm(slow, big("d"))
	f.untilInSync(t, "orders", 2)
}

// Metrics count by type, and a push is measured once, by its last ACK.
func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	f := start(t, Config{Registerer: reg})
	f.publish(7, "orders", inbound1)
	p := f.connect(t, envoyNode("n1", "orders"))
	p.subscribe(ecdsType, inbound1.Name)
	p.ack(p.want(one(inbound1)))
	p.quiet()
	f.publish(8, "orders", inbound2)
	p.ack(p.want(one(inbound2)))
	f.untilInSync(t, "orders", 1)
	f.publish(9, "orders", inbound3)
	p.nack(p.want(one(inbound3)), "no")
	p.quiet()
	got := map[string]float64{}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, fam := range families {
		for _, m := range fam.GetMetric() {
			name := strings.TrimPrefix(fam.GetName(), "watchword_xds_")
			for _, l := range m.GetLabel() {
				if l.GetValue() != "ecds" {
					name = ""
				}
			}
			if name != "" {
				got[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	want := map[string]float64{"streams": 1, "services": 1, "published_revision": 9, "pushes_total": 3, "data_planes": 1, "data_planes_waiting": 1, "acks_total": 2, "nacks_total": 1, "push_to_last_ack_seconds": 1}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("metrics differ (-want +got):\n%s", d)
	}
}

// The words of a data plane are fit for a log and a table.
func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"":                             "no reason given",
		"\x00\x1b":                     "no reason given",
		"a\nb\x1b[31m\tc":              "a b[31m c",
		strings.Repeat("é", 2000):      strings.Repeat("é", 512),
		"x" + strings.Repeat("é", 700): "x" + strings.Repeat("é", 511),
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%.40q) = %.40q (%d bytes), want %.40q (%d bytes)", in, got, len(got), want, len(want))
		}
	}
}

// Equal content has an equal version in any process; type, name and body
// count, and so does the key: without it nobody can try out what the body may be.
func TestVersion(t *testing.T) {
	if got, want := version(testKey, filter("mesh.inbound/orders", "one")), "7c3255ffcf55f4cc"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	a := Resource{TypeURL: "a", Name: "b", Body: []byte("c")}
	for _, b := range []Resource{{TypeURL: "x", Name: "b", Body: []byte("c")}, {TypeURL: "a", Name: "x", Body: []byte("c")},
		{TypeURL: "a", Name: "b", Body: []byte("x")}, {TypeURL: "ab", Body: []byte("c")}} {
		if version(testKey, a) == version(testKey, b) {
			t.Errorf("%v and %v have one version", a, b)
		}
	}
	if version(testKey, a) == version([]byte("another key, as long as that one"), a) {
		t.Errorf("%v has one version with two keys", a)
	}
}
