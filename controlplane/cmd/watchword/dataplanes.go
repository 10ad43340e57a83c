package main

import (
	"time"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// planeView is the JSON and YAML form of a data plane.
type planeView struct {
	Node      string     `json:"node"`
	Service   string     `json:"service"`
	Kind      string     `json:"kind"`
	Revision  int64      `json:"revision"`
	InSync    bool       `json:"inSync"`
	Reason    string     `json:"reason,omitempty"`
	Since     *time.Time `json:"since,omitempty"`
	Connected *time.Time `json:"connected,omitempty"`
	Address   string     `json:"address,omitempty"`
}

func planeViewOf(p *adminv1.DataPlane) planeView {
	v := planeView{Node: p.GetNode(), Service: p.GetService(), Kind: p.GetKind(),
		Revision: p.GetRevision(), InSync: p.GetInSync(), Reason: p.GetReason(), Address: p.GetAddress()}
	if t := p.GetSince(); t != nil {
		at := t.AsTime()
		v.Since = &at
	}
	if t := p.GetConnected(); t != nil {
		at := t.AsTime()
		v.Connected = &at
	}
	return v
}

func planeViews(planes []*adminv1.DataPlane) []planeView {
	views := []planeView{}
	for _, p := range planes {
		views = append(views, planeViewOf(p))
	}
	return views
}

// who is "node-7 (orders)".
func (p planeView) who() string {
	if p.Service == "" {
		return p.Node
	}
	return p.Node + " (" + p.Service + ")"
}

// why is the reason for not being in sync.
func (p planeView) why() string {
	if p.Reason == "" {
		return "has not confirmed yet"
	}
	return p.Reason
}
