package transport_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/watchword-mesh/watchword/controlplane/transport"
)

func TestParseAddress(t *testing.T) {
	for _, tt := range []struct {
		text string
		want transport.Address
		err  string
	}{
		{text: "127.0.0.1:7400", want: transport.Address{HostPort: "127.0.0.1:7400"}},
		{text: "0.0.0.0:7400", want: transport.Address{HostPort: "0.0.0.0:7400"}},
		{text: ":7400", want: transport.Address{HostPort: ":7400"}},
		{text: "https://10.0.0.1:7400", want: transport.Address{HostPort: "10.0.0.1:7400"}},
		{text: "http://127.0.0.1:7400", want: transport.Address{HostPort: "127.0.0.1:7400", Plain: true}},
		{text: "http://[::1]:7400", want: transport.Address{HostPort: "[::1]:7400", Plain: true}},
		{text: "http://localhost:7400", want: transport.Address{HostPort: "localhost:7400", Plain: true}},
		{text: "http://:7400", err: "no TLS"},
		{text: "http://0.0.0.0:7400", err: "no TLS"},
		{text: "http://10.0.0.1:7400", err: "no TLS"},
		{text: "http://control-plane:7400", err: "no TLS"},
		{text: "7400", err: "not HOST:PORT"},
		{text: "", err: "not HOST:PORT"},
	} {
		got, err := transport.ParseAddress(tt.text)
		if tt.err == "" && (err != nil || got != tt.want) {
			t.Errorf("ParseAddress(%q) = %+v, %v; want %+v", tt.text, got, err, tt.want)
		}
		if tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("ParseAddress(%q) = %+v, %v; want an error with %q", tt.text, got, err, tt.err)
		}
	}
}

// dialed is a listener of connections from made-up addresses.
type dialed struct {
	conns chan net.Conn
}

func (d dialed) Accept() (net.Conn, error) {
	c, ok := <-d.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}
func (dialed) Close() error   { return nil }
func (dialed) Addr() net.Addr { return &net.TCPAddr{} }

// accepted has one connection.
type accepted struct {
	net.Listener
	conn net.Conn
}

func (a accepted) Accept() (net.Conn, error) { return a.conn, nil }

type from struct {
	net.Conn
	addr   net.Addr
	closed *bool
}

func (f from) RemoteAddr() net.Addr { return f.addr }
func (f from) Close() error         { *f.closed = true; return nil }

// A source has so many connections and no more, all together have so many, and a
// closed one makes room.
func TestLimit(t *testing.T) {
	d := dialed{conns: make(chan net.Conn, 100)}
	refused := 0
	l := transport.Limit(d, transport.Limits{Total: 5, PerSource: 2}, func() { refused++ })
	closed := map[string]*bool{}
	connect := func(name, ip string) {
		closed[name] = new(bool)
		d.conns <- from{addr: &net.TCPAddr{IP: net.ParseIP(ip), Port: 1}, closed: closed[name]}
	}
	accept := func() net.Conn {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	connect("a1", "10.0.0.1")
	connect("a2", "10.0.0.1")
	connect("a3", "10.0.0.1") // over
	connect("b1", "2001:db8::1")
	connect("b2", "2001:db8::2")
	connect("b3", "2001:db8::3") // over: the same /64
	connect("c1", "127.0.0.1")
	first := accept()
	for range 4 {
		accept()
	}
	for name, want := range map[string]bool{"a1": false, "a2": false, "a3": true, "b1": false, "b2": false, "b3": true, "c1": false} {
		if *closed[name] != want {
			t.Errorf("%s is closed: %t, want %t", name, *closed[name], want)
		}
	}
	_ = first.Close()
	_ = first.Close() // gives one place back, not two
	connect("a4", "10.0.0.1")
	connect("c2", "127.0.0.1") // over: the total
	connect("end", "10.0.0.9")
	accept()
	close(d.conns)
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept = %v, want net.ErrClosed", err)
	}
	if *closed["a4"] || !*closed["c2"] || refused != 4 {
		t.Errorf("a4 closed %t, c2 closed %t, %d refused; want false, true, 4", *closed["a4"], *closed["c2"], refused)
	}
}

func certificate(t *testing.T, name string, end time.Time) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotBefore: end.Add(-time.Hour), NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// A renewed pair is served; half of one, or one that has expired, is not.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	now := time.Now()
	clock := func() time.Time { return now }
	write := func(path string, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now, now); err != nil { // a clock that counts coarsely would hide a change
			t.Fatal(err)
		}
	}
	cert, key := certificate(t, "first", now.Add(time.Hour))
	write(certFile, cert)
	write(keyFile, key)
	f, err := transport.LoadFiles(certFile, keyFile, hclog.NewNullLogger(), clock)
	if err != nil {
		t.Fatal(err)
	}
	serves := func(want string) {
		t.Helper()
		now = now.Add(2 * time.Second)
		c, err := f.Certificate()
		if err != nil || c.Leaf.DNSNames[0] != want {
			t.Fatalf("it serves %v, %v; want %q", c.Leaf.DNSNames, err, want)
		}
	}
	serves("first")
	cert, key = certificate(t, "second", now.Add(time.Hour))
	write(certFile, cert)
	serves("first") // the key is still that of the first
	write(keyFile, key)
	serves("second")
	old, oldKey := certificate(t, "old", now.Add(-time.Hour))
	write(certFile, old)
	write(keyFile, oldKey)
	serves("second")
	if _, err := transport.LoadFiles(certFile, keyFile, hclog.NewNullLogger(), clock); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("LoadFiles of an expired pair = %v; want an error", err)
	}
}

// A certificate is made once, and anew at half of its life; when that fails the
// last one serves until it ends, and not longer.
func TestIssued(t *testing.T) {
	now := time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	made := 0
	var failing error
	i := &transport.Issued{Now: func() time.Time { return now }, Issue: func(at time.Time) (*tls.Certificate, error) {
		made++
		return &tls.Certificate{Leaf: &x509.Certificate{SerialNumber: big.NewInt(int64(made)), NotBefore: at, NotAfter: at.Add(time.Hour)}}, failing
	}}
	expect := func(serial int64, ok bool) {
		t.Helper()
		c, err := i.Certificate()
		if (err == nil) != ok || ok && c.Leaf.SerialNumber.Int64() != serial {
			t.Fatalf("at %s: %v, %v; want certificate %d: %t", now, c, err, serial, ok)
		}
	}
	expect(1, true)
	now = now.Add(29 * time.Minute)
	expect(1, true)
	now = now.Add(time.Minute)
	expect(2, true)
	failing = errors.New("no CA")
	now = now.Add(59 * time.Minute)
	expect(2, true)
	now = now.Add(time.Minute)
	expect(0, false)
}

// The kernel says who is at the other end of a Unix socket.
func TestPeer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	limited := transport.Limit(accepted{l, server}, transport.Limits{Total: 1}, func() {})
	if server, err = limited.Accept(); err != nil { // as it is served
		t.Fatal(err)
	}
	p, ok := transport.PeerFrom(transport.WithPeer(context.Background(), server))
	if want := (transport.Peer{UID: uint32(os.Getuid()), PID: int32(os.Getpid())}); !ok || p != want {
		t.Errorf("peer %+v, %t; want %+v", p, ok, want)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if p, ok := transport.PeerFrom(transport.WithPeer(context.Background(), a)); ok {
		t.Errorf("the peer of what is no socket is %+v", p)
	}
}
