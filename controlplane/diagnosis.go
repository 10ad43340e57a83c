package controlplane

import (
	"context"
	"time"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// diagnosis implements api.Diagnosis.
type diagnosis struct {
	replica *replica
	now     func() time.Time
}

func (d *diagnosis) Diagnose(context.Context) ([]*adminv1.Finding, error) { return nil, nil }
