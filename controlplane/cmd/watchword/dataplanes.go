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
	Instance  string     `json:"instance,omitempty"`
}

func planeViewOf(p *adminv1.DataPlane) planeView {
	return planeView{Node: p.GetNode(), Service: p.GetService(), Kind: p.GetKind(), Revision: p.GetRevision(), InSync: p.GetInSync(), Reason: p.GetReason(),
		Since: timeOf(p.GetSince()), Connected: timeOf(p.GetConnected()), Address: p.GetAddress(), Instance: p.GetInstance()}
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
