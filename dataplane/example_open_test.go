package dataplane_test

import (
	"context"

	"github.com/watchword-mesh/watchword/dataplane"
	"github.com/watchword-mesh/watchword/dataplane/enrolment"
	"github.com/watchword-mesh/watchword/test/examplemesh"
)

// The services of the examples, as for `watchword apply`. The address of orders is
// filled in.
const twoServices = `
apiVersion: watchword.dev/v1
kind: Service
metadata: {name: orders}
spec:
  dataPlanes: [GO]
  inbound: {port: 8443, localAddress: "127.0.0.1:8443", tls: MESH}   # the library takes tls of it alone
  endpoints: ["%s"]
---
apiVersion: watchword.dev/v1
kind: Service
metadata: {name: shop}
spec:
  dataPlanes: [GO]
  calls: [{service: orders}]
`

// open makes this process an instance of a service.
func open(ctx context.Context, mesh *examplemesh.Mesh, service string) (*dataplane.DataPlane, error) {
	token, err := mesh.JoinToken(service) // `watchword join-token create --service SERVICE`
	if err != nil {
		return nil, err
	}
	d, err := dataplane.Open(ctx, dataplane.Config{
		Addresses: []string{mesh.ADS}, Service: service, Credential: enrolment.JoinToken(token),
	})
	if err != nil {
		return nil, err
	}
	// Until then it refuses everything, so that a server need not wait.
	if err := d.Ready(ctx); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}
