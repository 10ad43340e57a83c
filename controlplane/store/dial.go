package store

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// dial connects to an existing cluster and waits for one answer, so that a
// wrong address is found at the start.
func dial(ctx context.Context, c Config) (*clientv3.Client, error) {
	var t *tls.Config
	if c.CAFile != "" || c.CertFile != "" || c.KeyFile != "" {
		var err error
		t, err = transport.TLSInfo{TrustedCAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile}.ClientConfig()
		if err != nil {
			return nil, fmt.Errorf("reading the TLS files for etcd (--etcd-ca-file, --etcd-cert-file, --etcd-key-file): %w", err)
		}
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            c.Endpoints,
		TLS:                  t,
		Username:             c.Username,
		Password:             c.Password,
		DialTimeout:          requestTimeout,
		DialKeepAliveTime:    5 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		Logger:               zap.NewNop(),
	})
	if err == nil {
		err = reach(ctx, client, c)
	}
	if err != nil {
		if client != nil {
			_ = client.Close()
		}
		return nil, fmt.Errorf("connecting to etcd at %s: %w", strings.Join(c.Endpoints, ", "), explain(err))
	}
	return client, nil
}

func reach(ctx context.Context, client *clientv3.Client, c Config) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, err := client.Get(ctx, c.Prefix+metaKey, clientv3.WithCountOnly())
	return err
}
