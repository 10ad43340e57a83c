package doors

import (
	"bytes"
	"net/url"
	"path/filepath"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.uber.org/zap"

	"github.com/watchword-mesh/watchword/controlplane"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

const etcdUser, etcdPassword = "watchword", "etcd's password: correct horse battery staple"

// etcd is one that is not ours, with a user.
type etcd struct {
	dir  string
	stop func()
	how  controlplane.Etcd
}

func startEtcd(t *testing.T) *etcd {
	t.Helper()
	dir := t.TempDir()
	listen := url.URL{Scheme: "http", Host: meshtest.FreeAddress(t)}
	c := embed.NewConfig()
	c.Dir = filepath.Join(dir, "etcd")
	c.ListenClientUrls, c.AdvertiseClientUrls, c.ListenPeerUrls = []url.URL{listen}, []url.URL{listen}, nil
	c.TickMs, c.ElectionMs, c.UnsafeNoFsync = 10, 100, true
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zap.NewNop())
	server, err := embed.StartEtcd(c)
	if err != nil {
		t.Fatal(err)
	}
	e := &etcd{dir: c.Dir, stop: sync.OnceFunc(server.Close)}
	t.Cleanup(e.stop)
	<-server.Server.ReadyNotify()
	admin := v3client.New(server.Server)
	if _, err := admin.RoleAdd(t.Context(), "root"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"root", etcdUser} {
		if _, err := admin.UserAdd(t.Context(), name, etcdPassword); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.UserGrantRole(t.Context(), name, "root"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := admin.AuthEnable(t.Context()); err != nil {
		t.Fatal(err)
	}
	password := filepath.Join(t.TempDir(), "password")
	writeFile(t, password, etcdPassword+"\n")
	e.how = controlplane.Etcd{Endpoints: []string{listen.String()}, Username: etcdUser, PasswordFile: password}
	return e
}

// all is every key and value that is stored now.
func (e *etcd) all(t *testing.T) []byte {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: e.how.Endpoints, Username: etcdUser, Password: etcdPassword})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	resp, err := client.Get(t.Context(), "", clientv3.WithPrefix())
	if err != nil || resp.Count < 10 {
		t.Fatalf("etcd has %d keys (%v), want those of a mesh", resp.Count, err)
	}
	var out bytes.Buffer
	for _, kv := range resp.Kvs {
		out.Write(kv.Key)
		out.WriteByte('\n')
		out.Write(kv.Value)
		out.WriteByte('\n')
	}
	return out.Bytes()
}
