package controlplane

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/watchword-mesh/watchword/controlplane/api"
	"github.com/watchword-mesh/watchword/controlplane/envoy"
	"github.com/watchword-mesh/watchword/controlplane/ledger"
	"github.com/watchword-mesh/watchword/controlplane/xds"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// versionKey is the same for all replicas, and of use for nothing else.
func versionKey(pepper []byte) []byte {
	mac := hmac.New(sha256.New, pepper)
	mac.Write([]byte("versions of xDS resources"))
	return mac.Sum(nil)
}

// dataPlanes implements api.DataPlanes over the ADS server's ledger.
type dataPlanes struct {
	xds *xds.Server
	// cluster is what other replicas say of theirs; nil: there are none.
	cluster *cluster
	self    func() string
	now     func() time.Time
}

func (d dataPlanes) List(service string) ([]*adminv1.DataPlane, int64) {
	return dataPlaneProtos(d.xds.DataPlanes(service)), d.xds.Published()
}

func (d dataPlanes) Config(node string) (*adminv1.GetDataPlaneConfigResponse, error) {
	dp, sent, ok := d.xds.Sent(node)
	if !ok {
		return nil, api.ErrUnknown
	}
	resp := &adminv1.GetDataPlaneConfigResponse{DataPlane: dataPlaneProto(dp)}
	for _, r := range sent {
		out := &adminv1.SentResource{TypeUrl: r.TypeURL, Name: r.Name, Version: r.Version, AckedVersion: r.AckedVersion, Refusal: r.Refusal}
		if len(r.Body) > 0 {
			var err error
			if out.Body, err = envoy.JSON(r.TypeURL, r.Body); err != nil {
				return nil, fmt.Errorf("showing %s: %w", r.Name, err)
			}
		}
		resp.Resources = append(resp.Resources, out)
	}
	return resp, nil
}

func (d dataPlanes) Progress(revision int64, services []string, only bool) (*adminv1.WaitInSyncResponse, <-chan struct{}) {
	p, changed := d.xds.Progress(revision, services...)
	if only {
		p = d.of(services, p.Published)
	}
	resp := &adminv1.WaitInSyncResponse{
		Total:   int32(p.Total),
		InSync:  int32(p.InSync),
		Waiting: dataPlaneProtos(p.Waiting),
		Done:    p.Published >= revision && p.InSync == p.Total,
	}
	if d.cluster != nil {
		changed = either(changed, d.cluster.change(), lookAgain)
		concerned := services
		if !only {
			concerned = d.xds.Touched(revision, services...)
		}
		waits, _, in := d.others(revision, concerned)
		for _, w := range waits {
			resp.Waits = append(resp.Waits, waitProto(w, in))
		}
		resp.Done = resp.Done && len(waits) == 0
	}
	return resp, changed
}

// others is what the data planes of other replicas have still to confirm, by what those
// have written down, and of whom nothing is known.
func (d dataPlanes) others(revision int64, services []string) (waits, unknown []ledger.Wait, in ledger.Cluster) {
	own := d.self()
	d.cluster.observe(func(o *ledger.Observer) {
		in = o.Cluster()
		waits, unknown = o.Receipt(revision, services, d.now())
	})
	// What is connected here is known here, and sooner.
	waits = slices.DeleteFunc(waits, func(w ledger.Wait) bool { return w.Member == own })
	return waits, unknown, in
}

// mostWaiting is how many data planes an answer names.
const mostWaiting = 100

// of is the progress of the data planes of some services. What was published is
// looked up before them: they may have come further since, but not less far.
func (d dataPlanes) of(services []string, published int64) xds.Progress {
	p := xds.Progress{Published: published}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(services))) {
		for _, dp := range d.xds.DataPlanes(name) {
			switch p.Total++; {
			case dp.InSync:
				p.InSync++
			case len(p.Waiting) < mostWaiting:
				p.Waiting = append(p.Waiting, dp)
			}
		}
	}
	return p
}

// mostConfirmed bounds a receipt.
const mostConfirmed = 10_000

// Receipt knows of the data planes that are connected here. One that had nothing to
// confirm is in sync since before.
func (d dataPlanes) Receipt(revision int64, services []string, only bool) (confirmed []*adminv1.Confirmed, unknown []*adminv1.Wait) {
	for _, dp := range d.xds.Confirmed(revision, only, services...) {
		if len(confirmed) == mostConfirmed {
			break
		}
		confirmed = append(confirmed, &adminv1.Confirmed{Node: dp.Node, Service: dp.Service, Instance: dp.Instance, Time: timestamppb.New(dp.Since)})
	}
	if d.cluster == nil {
		return confirmed, nil
	}
	_, departed, in := d.others(revision, services)
	for _, w := range departed {
		unknown = append(unknown, waitProto(w, in))
	}
	return confirmed, unknown
}

func dataPlaneProtos(list []xds.DataPlane) []*adminv1.DataPlane {
	var out []*adminv1.DataPlane
	for _, d := range list {
		out = append(out, dataPlaneProto(d))
	}
	return out
}

func dataPlaneProto(d xds.DataPlane) *adminv1.DataPlane {
	return &adminv1.DataPlane{
		Node:      d.Node,
		Service:   d.Service,
		Instance:  d.Instance,
		Kind:      d.Kind,
		Revision:  d.Revision,
		InSync:    d.InSync,
		Reason:    d.Reason,
		Since:     timestamppb.New(d.Since),
		Connected: timestamppb.New(d.Connected),
		Address:   d.Address,
	}
}
