package main

import "testing"

// The cause of an error stays, the layers of gRPC around it go.
func TestPlainWords(t *testing.T) {
	for text, want := range map[string]string{
		`127.0.0.1:1: rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:1: connect: connection refused"`: `127.0.0.1:1: dial tcp 127.0.0.1:1: connect: connection refused`,
		`rpc error: code = Unavailable desc = connection error: desc = "transport: authentication handshake failed: x509: \"a\" is wrong"`:                               `x509: "a" is wrong`,
		"refused: this call needs a credential (Unauthenticated)": "refused: this call needs a credential",
		"a (Unauthenticated)\nb (PermissionDenied)":               "a\nb",
		"refused: the service (orders) is not there":              "refused: the service (orders) is not there",
		"a: unexpected HTTP status code received from server: 404 (Not Found); transport: received unexpected content-type \"application/json\"\ndata: \"{\\\"error\\\":1}\" (Unimplemented)\nb": "a: unexpected HTTP status code received from server: 404 (Not Found)\nb",
		`connection error: desc = "no end`:                         `connection error: desc = "no end`,
		"reading etcd: rpc error: code = Unknown desc = no leader": "reading etcd: no leader",
	} {
		if got := plainWords(text); got != want {
			t.Errorf("%s:\n got %s\nwant %s", text, got, want)
		}
	}
}
