package doors

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/watchword-mesh/watchword/dataplane/enrolment"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// note keeps which certificates were shown.
func (r *rotating) note(state tls.ConnectionState) error {
	if r.load != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.seen[state.PeerCertificates[0].SerialNumber.String()] = true
	}
	return nil
}

// replaceFiles puts a new certificate and its key in place, one after the other, as
// programs that renew certificates do.
func (r *rotating) replaceFiles(t *testing.T) error {
	cert := r.files.server(t, "mesh.local")
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return err
	}
	for file, block := range map[string]*pem.Block{
		r.Config.TLSCertFile: {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, r.Config.TLSKeyFile: {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(file+".new", pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
		if err := os.Rename(file+".new", file); err != nil {
			return err
		}
	}
	return nil
}

func dialTLS(address string, config *tls.Config) (*grpc.ClientConn, error) {
	return grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithNoProxy())
}

func (r *rotating) dialAs(t *testing.T, id *enrolment.Identity) *grpc.ClientConn {
	t.Helper()
	conn, err := dialTLS(r.Config.XDSListen, id.TLSConfig())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (s *stream) other(name, version string) (string, error) {
	timeout := time.After(meshtest.Patience)
	for {
		select {
		case resp := <-s.in:
			for _, got := range resp.GetResources() {
				if got.GetName() == name && got.GetVersion() != version {
					return got.GetVersion(), nil
				}
			}
		case <-s.ended:
			return version, s.err
		case <-timeout:
			return version, errors.New("nothing was pushed")
		}
	}
}

// fetchToken asks the token endpoint over a new connection.
func (r *rotating) fetchToken(form url.Values) (string, error) {
	res, err := r.client.PostForm(r.TokenURL(), form)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var answer struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || answer.Token == "" {
		return "", fmt.Errorf("the token endpoint: %s, %w", res.Status, err)
	}
	return answer.Token, nil
}

// request gets a token as an instance does, and calls a service with it.
func (r *rotating) request(id *enrolment.Identity) error {
	assertion, err := id.Assertion(time.Now())
	if err != nil {
		return err
	}
	token, err := r.fetchToken(url.Values{"grant_type": {"client_credentials"}, "audience": {"orders"},
		"client_assertion_type": {"urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "client_assertion": {assertion}})
	if err != nil {
		return err
	}
	req, err := http.NewRequest(http.MethodGet, "http://"+r.orders+"/x", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
		return fmt.Errorf("the service: %s (%v)", res.Status, err)
	}
	return nil
}

// askSelf asks the admin API over a new connection, with the certificate of now.
func (r *rotating) askSelf(id *enrolment.Identity) error {
	roots := x509.NewCertPool()
	roots.AddCert(r.files.certificate)
	conn, err := dialTLS(r.Config.AdminListen, clientTLS(roots, certificateOf(id)))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), meshtest.Patience)
	defer cancel()
	_, err = adminv1.NewAdminServiceClient(conn).GetSelf(ctx, &adminv1.GetSelfRequest{})
	return err
}
