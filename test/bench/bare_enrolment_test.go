package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"path/filepath"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// bareEnrolment is the least that an enrolment takes: a transaction of an etcd
// inside the process, with fsync, and a signature of a certificate.
type bareEnrolment struct {
	client *clientv3.Client
	key    *ecdsa.PrivateKey
	parent *x509.Certificate
	n      int
}

func newBareEnrolment() server { return &bareEnrolment{} }

func (e *bareEnrolment) Start(_, dir string, _ int) (string, error) {
	cfg := embed.NewConfig()
	cfg.Dir, cfg.Name = filepath.Join(dir, "etcd"), "bare"
	cfg.TickMs, cfg.ElectionMs = 10, 100
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls, cfg.ListenPeerUrls = nil, nil, nil
	cfg.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "localhost:2380"}}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		return "", err
	}
	<-etcd.Server.ReadyNotify()
	e.client = v3client.New(etcd.Server)
	if e.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return "", err
	}
	now := time.Now()
	e.parent = &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: now, NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	return "", nil
}

// recordSize is about that of the records that an enrolment writes, its audit
// entry among them, in bytes.
const recordSize = 1024

// Change makes n enrolments, several at once.
func (e *bareEnrolment) Change(n int) error {
	var g errgroup.Group
	g.SetLimit(enrolling)
	for range n {
		e.n++
		key, value := fmt.Sprintf("instances/%d", e.n), string(body(recordSize, e.n))
		g.Go(func() error { return e.one(key, value) })
	}
	return g.Wait()
}

func (e *bareEnrolment) one(key, value string) error {
	if _, err := e.client.Txn(context.Background()).Then(clientv3.OpPut(key, value)).Commit(); err != nil {
		return err
	}
	now := time.Now()
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: now, NotAfter: now.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, URIs: []*url.URL{{Scheme: "spiffe", Host: trustDomain, Path: "/service/instance"}}}
	_, err := x509.CreateCertificate(rand.Reader, leaf, e.parent, &e.key.PublicKey, e.key)
	return err
}

var errNothing = errors.New("this floor has nothing of the kind")

func (*bareEnrolment) JoinTokens(int) ([]string, error) { return nil, errNothing }
func (*bareEnrolment) Served(int) error                 { return errNothing }
func (*bareEnrolment) Admin() string                    { return "" }
