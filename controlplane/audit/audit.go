// Package audit is what is written down of each change of the control plane, and
// of each attempt that was refused. An entry of a change is stored by the
// transaction that makes the change, so that neither is there without the other.
package audit

import (
	"errors"
	"time"
)

// ErrNoID says that a text is not the ID of an entry.
var ErrNoID = errors.New("this is not the ID of an audit entry: take it from a list")

// Outcome is how an attempt ended.
type Outcome string

// The outcomes.
const (
	Done    Outcome = "done"
	Refused Outcome = "refused"
)

// Entry is one record. It never holds a secret.
type Entry struct {
	// ID orders entries by time; the store gives it.
	ID   string    `json:"id"`
	Time time.Time `json:"time"`
	// Actor is who, such as "unix:root", "service:deployer" or "token:corp/alice".
	Actor string `json:"actor"`
	// Source is the network address without port; empty for the admin socket.
	Source string `json:"source,omitempty"`
	// Method is what was asked for, such as "Apply" or "kong POST /consumers".
	Method  string  `json:"method"`
	Outcome Outcome `json:"outcome"`
	// Subjects are what it was about, such as "created Service/orders".
	Subjects []string `json:"subjects,omitempty"`
	// Reason of a refusal.
	Reason string `json:"reason,omitempty"`
	// Count is how many like attempts the entry stands for, if more than one.
	Count int64 `json:"count,omitempty"`
	// Revision is that of the transaction; the store knows it when it reads.
	Revision int64 `json:"-"`
}
