package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/watchword-mesh/watchword/dataplane/enrolment"
)

// https is a client that trusts the control plane by its ca.pem.
func (m *mesh) https() (*http.Client, error) {
	text, err := os.ReadFile(filepath.Join(m.dataDir(), "ca.pem"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("ca.pem has no certificate")
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}, nil
}

// joinToken is a new one that one instance of the service may use.
func (m *mesh) joinToken(ctx context.Context, service string) (string, error) {
	text, err := m.cli(ctx, "join-token", "create", "--service", service)
	return strings.TrimSpace(text), err
}

// enrol makes this process an instance of a service.
func (m *mesh) enrol(ctx context.Context, service, joinToken string) (*enrolment.Identity, error) {
	return enrolment.Enrol(ctx, enrolment.Config{
		Addresses: []string{m.ports.address("xds")}, Service: service, Node: service + "-demo", Credential: enrolment.JoinToken(joinToken),
	})
}

// joinTwice uses a join token, and then tries to use it again.
type joinTwice struct{ service string }

func (a joinTwice) commands(*mesh) []string {
	return []string{"watchword join-token create --service " + a.service + " > join-token", "watchword enrol --service " + a.service + " --dir one --join-token-file join-token", "watchword enrol --service " + a.service + " --dir two --join-token-file join-token"}
}

func (a joinTwice) run(ctx context.Context, m *mesh) (string, error) {
	joinToken, err := m.joinToken(ctx, a.service)
	if err != nil {
		return "", err
	}
	if _, err := m.enrol(ctx, a.service, joinToken); err != nil {
		return "", err
	}
	_, err = m.enrol(ctx, a.service, joinToken)
	if err == nil {
		return "enrolled; enrolled again", nil
	}
	if !errors.Is(err, enrolment.ErrRefused) {
		return "", err
	}
	return "enrolled; the second time refused", nil
}

// spy asks for the configuration of a service, as an instance of another or as
// nobody.
type spy struct{ as, wants string }

func (a spy) commands(m *mesh) []string {
	ask := "openssl s_client -alpn h2 -connect " + m.ports.address("xds")
	if a.as == "" {
		return []string{ask + "   # ADS, without a certificate"}
	}
	return []string{ask + " -cert cert.pem -key key.pem   # ADS, with those of " + a.as}
}

func (a spy) run(ctx context.Context, m *mesh) (string, error) {
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}} // whoever answers learns nothing from us
	if a.as != "" {
		i, err := m.tokens.instance(ctx, a.as)
		if err != nil {
			return "", err
		}
		config = i.TLSConfig()
	}
	conn, err := grpc.NewClient(m.ports.address("xds"), grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithNoProxy())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return "", err
	}
	names := []string{"mesh.inbound/" + a.wants, "mesh.revoked/" + a.wants}
	if a.as != "" { // its own is what it gets, so that the answer is not waited for in vain
		names = append(names, "mesh.revoked/"+a.as)
	}
	err = stream.Send(&discovery.DeltaDiscoveryRequest{
		TypeUrl: "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig", ResourceNamesSubscribe: names})
	if err != nil && !errors.Is(err, io.EOF) { // what ended it, Recv says
		return "", err
	}
	resp, err := stream.Recv()
	if status.Code(err) == codes.Unauthenticated {
		return "Unauthenticated", nil
	}
	if err != nil {
		return "", err
	}
	var got []string
	for _, r := range resp.GetResources() {
		got = append(got, r.GetName())
	}
	return "gets " + strings.Join(got, ", "), nil
}

// revoke ends the enrolment of the service's own process, which then asks for a
// token.
type revoke struct {
	service string
	token   token
}

func (a revoke) commands(*mesh) []string {
	return []string{"watchword instance revoke " + a.service + " INSTANCE"}
}

func (a revoke) run(ctx context.Context, m *mesh) (string, error) {
	i, err := m.tokens.instance(ctx, a.service)
	if err != nil {
		return "", err
	}
	if _, err := m.cli(ctx, "instance", "revoke", a.service, i.Instance()); err != nil {
		return "", err
	}
	defer m.tokens.forget(a.service)
	return askToken{token: a.token}.run(ctx, m)
}

// audited is who did what last, by the audit.
type audited struct{ method string }

func (a audited) commands(*mesh) []string { return []string{"watchword audit"} }

func (a audited) run(ctx context.Context, m *mesh) (string, error) {
	text, err := m.cli(ctx, "audit", "--limit", "50")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(text) {
		if strings.Contains(line, a.method) {
			return strings.Join(strings.Fields(line), " "), nil
		}
	}
	return "", fmt.Errorf("nobody did %s", a.method)
}
