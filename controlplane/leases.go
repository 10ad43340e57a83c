package controlplane

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/watchword-mesh/watchword/controlplane/envoy"
	"github.com/watchword-mesh/watchword/controlplane/xds"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// encodeLease makes the mesh.lease of Envoys, and that of data planes in Go.
func encodeLease(end time.Time) ([]xds.Resource, error) {
	forEnvoy, err := envoy.Lease(end)
	if err != nil {
		return nil, fmt.Errorf("encoding a lease for Envoy: %w", err)
	}
	if end.IsZero() {
		end = time.Unix(0, 0)
	}
	forGo, err := proto.MarshalOptions{Deterministic: true}.Marshal(&dataplanev1.Lease{Expires: timestamppb.New(end)})
	if err != nil {
		return nil, fmt.Errorf("encoding a Lease: %w", err)
	}
	return []xds.Resource{xds.Resource(forEnvoy), {TypeURL: xds.LeaseType, Name: envoy.LeaseName, Body: forGo}}, nil
}
