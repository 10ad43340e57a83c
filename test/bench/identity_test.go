package bench

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/watchword-mesh/watchword/dataplane/enrolment"
)

// identities are what a fleet has enrolled as, by service; nil if it needs none.
type identities [][]*enrolment.Identity

// enrolling is how many enrol at once.
const enrolling = 8

// enrol makes the identities of a mesh, as data planes do it.
func (c *child) enrol(m mesh) (identities, error) {
	c.b.Helper()
	tokens := strings.Fields(c.ask("join %d", m.instances()))
	var all identities
	g, ctx := errgroup.WithContext(context.Background())
	g.SetLimit(enrolling)
	for i, token := range tokens {
		all = append(all, make([]*enrolment.Identity, m.instances()))
		for k := range all[i] {
			g.Go(func() (err error) {
				all[i][k], err = enrolOne(ctx, c.address, serviceName(i), token)
				return err
			})
		}
	}
	return all, g.Wait()
}

func enrolOne(ctx context.Context, address, service, token string) (*enrolment.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	id, err := enrolment.Enrol(ctx, enrolment.Config{Addresses: []string{address}, Service: service, Credential: enrolment.JoinToken(token)})
	if err != nil {
		return nil, fmt.Errorf("a client of the fleet: %w", err)
	}
	return id, nil
}

// credentials are those of a client of the mesh.
func (all identities) credentials(m mesh, client int) credentials.TransportCredentials {
	if all == nil {
		return insecure.NewCredentials()
	}
	of := all[client%m.services]
	return credentials.NewTLS(of[client/m.services/m.sharing()].TLSConfig())
}
