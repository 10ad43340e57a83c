package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/watchword-mesh/watchword/internal/identity"
	"github.com/watchword-mesh/watchword/internal/jointoken"
	"github.com/watchword-mesh/watchword/issuer/ca"
	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
)

const trustDomain = "mesh.local"

// door is TLS as our ADS has it, with a CA of its own, made once and for all
// handshakes. It enrols whoever asks and writes nothing down.
type door struct {
	enrolmentv1.UnimplementedEnrolmentServiceServer
	authority *ca.Authority
	config    *tls.Config
}

// newDoor finds the CA in the folder again, if there is a folder.
func newDoor(dir string) (*door, error) {
	record, err := authorityIn(dir)
	if err != nil {
		return nil, err
	}
	d := &door{}
	if d.authority, err = ca.NewAuthority([]ca.Record{record}); err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	chain, err := d.authority.IssueServer(ca.Server{TrustDomain: trustDomain, IPs: []net.IP{net.IPv4(127, 0, 0, 1)}}, &key.PublicKey, time.Now(), 24*time.Hour)
	d.config = &tls.Config{
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true,
		Certificates: []tls.Certificate{{Certificate: chain, PrivateKey: key}},
		ClientAuth:   tls.VerifyClientCertIfGiven, ClientCAs: d.authority.Pool(),
	}
	return d, err
}

func authorityIn(dir string) (ca.Record, error) {
	if dir == "" {
		return ca.First(trustDomain, time.Now())
	}
	path := filepath.Join(dir, "ca.json")
	var record ca.Record
	text, err := os.ReadFile(path)
	if err == nil {
		return record, json.Unmarshal(text, &record)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return record, err
	}
	if record, err = ca.First(trustDomain, time.Now()); err == nil {
		text, err = json.Marshal(record)
	}
	if err == nil {
		err = os.WriteFile(path, text, 0o600)
	}
	return record, err
}

func (d *door) joinTokens(services int) []string {
	var tokens []string
	for range services {
		tokens = append(tokens, jointoken.New(d.authority.Pin()).Text())
	}
	return tokens
}

// Enrol implements enrolmentv1.EnrolmentServiceServer.
func (d *door) Enrol(_ context.Context, req *enrolmentv1.EnrolRequest) (*enrolmentv1.EnrolResponse, error) {
	key, spki, err := ca.ParseRequest(req.GetCertificateRequest())
	if err != nil {
		return nil, err
	}
	now := time.Now()
	id := identity.ID{TrustDomain: trustDomain, Service: req.GetService(), Instance: identity.InstanceOf(spki)}
	chain, err := d.authority.IssueInstance(id, key, now, time.Hour)
	return &enrolmentv1.EnrolResponse{Identity: &enrolmentv1.Identity{
		Service: id.Service, Instance: id.Instance, TrustDomain: trustDomain, Issuer: "https://floor.example",
		Certificates: chain, Authorities: [][]byte{d.authority.Certificates()[0].Raw},
		Expires: timestamppb.New(now.Add(time.Hour)), Renew: timestamppb.New(now.Add(time.Hour / 2)),
	}}, err
}
