package enrolment

import (
	"crypto/x509"
	"testing"

	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
)

func parse(t testing.TB, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// No bytes enrol anybody, or end the server.
func FuzzEnrol(f *testing.F) {
	w := newWorld(f)
	k, token := newKey(f), w.token("orders", 1)
	f.Add("orders", k.request, token.Text(), uint8(0), "node")
	f.Add("orders", []byte{}, "eyJhbGciOiJub25lIn0.e30.", uint8(1), "")
	f.Add("orders", k.request, "spiffe://mesh.local/orders/"+k.instance, uint8(2), "")
	good := token.Text()
	f.Fuzz(func(t *testing.T, service string, request []byte, credential string, kind uint8, node string) {
		if credential == good {
			return
		}
		req := &enrolmentv1.EnrolRequest{Service: service, CertificateRequest: request, Node: node}
		switch kind % 3 {
		case 0:
			req.Credential = &enrolmentv1.EnrolRequest_JoinToken{JoinToken: credential}
		case 1:
			req.Credential = &enrolmentv1.EnrolRequest_KubernetesToken{KubernetesToken: credential}
		case 2:
			req.Credential = &enrolmentv1.EnrolRequest_KeyAssertion{KeyAssertion: credential}
		}
		if resp, err := w.Server.Enrol(from("10.0.0.1"), req); err == nil {
			t.Errorf("%v enrols: %v", req, resp)
		}
	})
}
