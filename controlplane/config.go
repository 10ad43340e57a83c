package controlplane

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/controlplane/transport"
)

// Config of a replica. The zero value is a replica with its own etcd in
// ./watchword-data that listens on the default ports of loopback.
type Config struct {
	// DataDir holds the admin credential, the admin socket, the key-encryption
	// key unless there is another, and the data of the etcd inside the process.
	// Default "watchword-data".
	DataDir string
	// Etcd is an existing cluster; without Endpoints an etcd runs inside.
	Etcd Etcd
	// KEKFile holds the key-encryption key. Empty: KEK, or DataDir/kek, which
	// the first start makes.
	KEKFile string
	// KEK is the text of the key-encryption key, from the environment.
	KEK string
	// KEKExec is a command that wraps and unwraps the key-encryption key, such as
	// one that asks a KMS; see store.Plugin. Another source beside it only opens what
	// was sealed before.
	KEKExec string
	// Addresses to listen on: HOST:PORT with TLS, or http://HOST:PORT of loopback
	// without. Port 0 takes a free one. ADS has TLS always.
	AdminListen, XDSListen, STSListen, OpsListen string
	// AdminSocket is the path of the admin API's Unix socket, open to all users of
	// the machine: their names decide what they may do. Default DataDir/admin.sock,
	// which only the user of the control plane and root get to.
	AdminSocket string
	// TLSCertFile and TLSKeyFile, PEM, are the certificate of admin API, token
	// service, health and metrics; read again when they change. Empty: one of the
	// mesh's own CA. That of ADS is always of the mesh's own CA.
	TLSCertFile, TLSKeyFile string
	// TLSNames are more names and addresses for certificates of that CA.
	TLSNames []string
	// AdminClientCAFile, PEM, has the CAs of client certificates that RoleBindings
	// name.
	AdminClientCAFile string
	// IssuerURL is the `iss` of issued tokens and the base of the token
	// endpoint. Default https://STSListen. Fixed at the first start.
	IssuerURL string
	// TrustDomain of the SPIFFE IDs in `sub`. Default mesh.local. Fixed at the
	// first start.
	TrustDomain string
	// KongSecretIsBase64 is how secrets are read that come through Kong's admin API
	// without saying it, as secret_is_base64 of Kong's plugin.
	KongSecretIsBase64 bool
	// CertificateLifetime is that of certificates of instances, which renew at half
	// of it. Default 1 hour.
	CertificateLifetime time.Duration
	// AdvertiseAddress, HOST:PORT, is where other replicas reach ADS here. Default
	// XDSListen, with the name of this host if that is all addresses.
	AdvertiseAddress string
	// Version of the program, for people.
	Version string
	// Bounds are the times that replicas count on, the same for all of a mesh.
	// Default: authority 10s, clock error 1s, signing 12h, grace 30s, hold.
	Bounds ledger.Bounds
	// LeaseForTests is how long every lease is, whatever its Service says, which is no
	// less than 30 s. Only tests set it.
	LeaseForTests time.Duration
	// Logger; nil is silent.
	Logger hclog.Logger
	// Listening is told each address, if set.
	Listening func(what, address string)
}

// Etcd says how to reach an existing cluster.
type Etcd struct {
	Endpoints                 []string
	CAFile, CertFile, KeyFile string
	Username, PasswordFile    string
	// Prefix of all keys. Default "/watchword/".
	Prefix string
}

// Defaults of Config.
const (
	DefaultDataDir     = "watchword-data"
	DefaultAdminListen = "127.0.0.1:7400"
	DefaultXDSListen   = "127.0.0.1:7401"
	DefaultSTSListen   = "127.0.0.1:7402"
	DefaultOpsListen   = "http://127.0.0.1:7403"
	DefaultTrustDomain = "mesh.local"
)

// Files in the data folder.
const (
	adminTokenFile = "admin.token"
	adminSocket    = "admin.sock"
	kekFile        = "kek"
)

func (c Config) withDefaults() Config {
	for field, value := range map[*string]string{
		&c.DataDir:     DefaultDataDir,
		&c.AdminListen: DefaultAdminListen,
		&c.XDSListen:   DefaultXDSListen,
		&c.STSListen:   DefaultSTSListen,
		&c.OpsListen:   DefaultOpsListen,
		&c.Etcd.Prefix: "/watchword/",
	} {
		if *field == "" {
			*field = value
		}
	}
	c.Bounds = defaultBounds(c.Bounds)
	if !strings.HasSuffix(c.Etcd.Prefix, "/") {
		c.Etcd.Prefix += "/"
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Listening == nil {
		c.Listening = func(string, string) {}
	}
	return c
}

// check finds all faults of a configuration at once.
func (c Config) check() error {
	var errs []error
	for _, l := range []struct{ flag, address string }{
		{"--admin-listen", c.AdminListen}, {"--xds-listen", c.XDSListen}, {"--sts-listen", c.STSListen}, {"--ops-listen", c.OpsListen},
	} {
		a, err := transport.ParseAddress(l.address)
		if err == nil && a.Plain && l.flag == "--xds-listen" {
			err = errors.New("ADS has no plain form: data planes are known by their certificates; leave http:// out")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %w", l.flag, err))
		}
	}
	if (c.TLSCertFile == "") != (c.TLSKeyFile == "") {
		errs = append(errs, errors.New("--tls-cert-file and --tls-key-file belong together: give both or none"))
	}
	if socket := c.adminSocketPath(); len(socket) > maxSocketPath {
		errs = append(errs, fmt.Errorf("the name of the admin socket, %s, has %d bytes, sockets can have %d: choose a shorter --admin-socket or --data-dir", socket, len(socket), maxSocketPath))
	}
	if c.KEKFile != "" && c.KEK != "" {
		errs = append(errs, errors.New("--kek-file and WATCHWORD_KEK are both given: which is right?"))
	}
	if _, port, err := net.SplitHostPort(c.AdvertiseAddress); c.AdvertiseAddress != "" && (err != nil || port == "") {
		errs = append(errs, fmt.Errorf("--advertise-address %q: want HOST:PORT, where other replicas reach the address of --xds-listen", c.AdvertiseAddress))
	}
	for _, name := range c.TLSNames {
		if !new(certificateNames).add(name) {
			errs = append(errs, fmt.Errorf("--tls-names %q: want a host name of letters, digits and dashes, or an IP address", name))
		}
	}
	return errors.Join(errs...)
}

// maxSocketPath is what struct sockaddr_un holds, less the final zero.
const maxSocketPath = 107

func (c Config) adminSocketPath() string {
	if c.AdminSocket != "" {
		return c.AdminSocket
	}
	return filepath.Join(c.DataDir, adminSocket)
}

// ConfigError is a configuration that can't work, whatever runs beside it.
type ConfigError struct{ error }

// Unwrap returns the faults.
func (e *ConfigError) Unwrap() error { return e.error }

// prepareDataDir makes the data folder, and keeps other processes out of it
// until unlock. (The etcd inside locks it itself.)
func (c Config) prepareDataDir() (unlock func(), err error) {
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("making the data folder: %w", err)
	}
	info, err := os.Stat(c.DataDir)
	if err != nil {
		return nil, fmt.Errorf("the data folder: %w", err)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("the data folder %s can be written by others (mode %04o): chmod 700 it", c.DataDir, info.Mode().Perm())
	}
	if len(c.Etcd.Endpoints) == 0 {
		return func() {}, nil
	}
	lock, err := store.LockDir(c.DataDir)
	if err != nil {
		return nil, err
	}
	return func() { _ = lock.Close() }, nil
}

// keyring finds the key-encryption keys. A new one is made only for empty data:
// for others it would open nothing.
func (c Config) keyring(create bool) (store.Keyring, error) {
	switch {
	case c.KEKFile != "":
		return store.KEKFile(c.KEKFile, false)
	case c.KEK != "":
		ring, err := store.ParseKeyring([]byte(c.KEK))
		if err != nil {
			return store.Keyring{}, fmt.Errorf("WATCHWORD_KEK is not usable: %w", err)
		}
		return ring, nil
	}
	path := filepath.Join(c.DataDir, kekFile)
	ring, err := store.KEKFile(path, create)
	if errors.Is(err, fs.ErrNotExist) {
		return store.Keyring{}, fmt.Errorf("the key-encryption key %s is missing, and the data are sealed with it: put it back from a copy, or give it as it was given before, by --kek-file, WATCHWORD_KEK or --kek-exec: %w", path, fs.ErrNotExist)
	}
	return ring, err
}

// plugin is the command that keeps the key-encryption key.
func (c Config) plugin() store.Plugin {
	return store.Plugin{Command: strings.Fields(c.KEKExec), Logger: c.Logger.Named("kek")}
}

// store turns the configuration into that of the store.
func (c Config) store(fatal func(error)) (store.Config, error) {
	s := store.Config{Prefix: c.Etcd.Prefix, Logger: c.Logger.Named("store"), Fatal: fatal}
	if len(c.Etcd.Endpoints) == 0 {
		s.DataDir = c.DataDir
		return s, nil
	}
	s.Endpoints, s.Username = c.Etcd.Endpoints, c.Etcd.Username
	s.CAFile, s.CertFile, s.KeyFile = c.Etcd.CAFile, c.Etcd.CertFile, c.Etcd.KeyFile
	if c.Etcd.PasswordFile != "" {
		text, err := store.ReadSecret(c.Etcd.PasswordFile)
		if err != nil {
			return s, fmt.Errorf("reading the password for etcd: %w", err)
		}
		s.Password = strings.TrimSpace(string(text))
	}
	return s, nil
}
