package attack

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"strings"
	"sync"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	logsv1 "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// heard counts answers by their code.
type heard struct {
	mu    sync.Mutex
	codes map[codes.Code]int
}

func (h *heard) add(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.codes == nil {
		h.codes = map[codes.Code]int{}
	}
	h.codes[grpcstatus.Code(err)]++
}

// only fails the test for any other code.
func (h *heard) only(t *testing.T, what string, want ...codes.Code) {
	t.Helper()
	t.Logf("%s: %v", what, h.codes)
	for _, c := range append(want, codes.Unavailable, codes.Canceled, codes.DeadlineExceeded) {
		delete(h.codes, c)
	}
	if len(h.codes) > 0 {
		t.Errorf("%s: answers %v, want only %v", what, h.codes, want)
	}
}

// Without a certificate, streams and calls end before anything of them is read, also
// those with messages of nearly a MiB.
func strangers(c *castle) func(context.Context, *testing.T) {
	return func(ctx context.Context, t *testing.T) {
		report := &logsv1.ExportLogsServiceRequest{}
		if err := proto.Unmarshal(append([]byte{0xaa, 0xbf, 0x02, 0x80, 0x80, 0x3c}, make([]byte, 960<<10)...), report); err != nil { // an unknown field
			t.Error(err)
		}
		var opened, called heard
		var conns []*grpc.ClientConn
		for range 40 {
			conns = append(conns, c.dial(t, nil))
		}
		var mu sync.Mutex
		next := 0
		times(ctx, 40, func() {
			mu.Lock()
			conn := conns[next%len(conns)]
			next++
			mu.Unlock()
			stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
			if err == nil {
				_, err = stream.Recv()
			}
			opened.add(err)
			_, err = logsv1.NewLogsServiceClient(conn).Export(ctx, report)
			called.add(err)
		})
		for _, conn := range conns {
			_ = conn.Close()
		}
		opened.only(t, "streams of strangers", codes.Unauthenticated)
		called.only(t, "reports of strangers", codes.Unauthenticated)
	}
}

// Who guesses at join tokens is refused; who has a right one enrols meanwhile, from
// the same address.
func badTokens(c *castle) func(context.Context, *testing.T) {
	return func(ctx context.Context, t *testing.T) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Error(err)
			return
		}
		request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			t.Error(err)
			return
		}
		right := c.JoinToken(t, "shop")
		wrong := "wwjt_AAAAAAAAAAAAA." + strings.Repeat("A", 52) + right[strings.LastIndex(right, "."):]
		conn := c.dial(t, nil)
		defer conn.Close()
		var answers heard
		var all sync.WaitGroup
		all.Go(func() {
			times(ctx, 16, func() {
				_, err := enrolmentv1.NewEnrolmentServiceClient(conn).Enrol(ctx, &enrolmentv1.EnrolRequest{Service: "shop", Node: "x",
					CertificateRequest: request, Credential: &enrolmentv1.EnrolRequest_JoinToken{JoinToken: wrong}})
				answers.add(err)
			})
		})
		meshtest.Enrol(t, c.Config.XDSListen, "shop", right)
		all.Wait()
		answers.only(t, "enrolments with wrong tokens", codes.PermissionDenied, codes.ResourceExhausted)
	}
}

// An enrolled instance that floods is slowed down, and told so.
func instance(c *castle) func(context.Context, *testing.T) {
	return func(ctx context.Context, t *testing.T) {
		shop := meshtest.Enrol(t, c.Config.XDSListen, "shop", c.JoinToken(t, "shop"))
		conn := c.dial(t, shop)
		defer conn.Close()
		var renewed, opened heard
		var all sync.WaitGroup
		all.Go(func() {
			times(ctx, 4, func() {
				_, err := enrolmentv1.NewEnrolmentServiceClient(conn).Renew(ctx, &enrolmentv1.RenewRequest{})
				renewed.add(err)
			})
		})
		all.Go(func() {
			times(ctx, 4, func() { opened.add(ask(ctx, conn)) })
		})
		all.Go(func() { // names that are not there, as fast as they are taken
			stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
			for i := 0; err == nil; i++ {
				names := []string{strings.Repeat("n", i%1000)}
				err = stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: ecds, ResourceNamesSubscribe: names, ResourceNamesUnsubscribe: names})
			}
		})
		all.Wait()
		if renewed.codes[codes.ResourceExhausted] == 0 || renewed.codes[codes.OK] > 25 {
			t.Errorf("renewals in a loop: %v; want some, and ResourceExhausted then", renewed.codes)
		}
		renewed.only(t, "renewals", codes.OK, codes.ResourceExhausted)
		opened.only(t, "streams", codes.OK, codes.ResourceExhausted)
		if lines := strings.Count(c.Log.String(), "asks for a resource that its service does not have"); lines > 250 {
			t.Errorf("%d lines in the log about names that are not there", lines)
		}
	}
}

// ask opens a stream, asks for what there is, and leaves.
func ask(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return err
	}
	// An error of it is told by Recv.
	_ = stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: ecds, ResourceNamesSubscribe: []string{"mesh.inbound/shop"}})
	_, err = stream.Recv()
	return err
}
