package sts

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/watchword-mesh/watchword/issuer/clientauth"
)

// documentMaxAge is how long readers may keep a document (RFC 9111 section
// 5.2.2.1). Key rotation waits it out before a new key signs for who reads the
// key set here.
var documentMaxAge = fmt.Sprintf("max-age=%d", int(KeySetMaxAge.Seconds()))

// KeySetMaxAge is how long readers of the key set may keep it.
const KeySetMaxAge = 5 * time.Minute

// document is something public that is encoded once and sent to many.
type document struct {
	contentType string
	etag        string
	body        []byte
}

func newDocument(contentType string, body []byte) document {
	sum := sha256.Sum256(body)
	return document{contentType, `"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`, body}
}

func handleJWKS(w http.ResponseWriter, r *http.Request, v *view) *Error {
	v.jwks.serve(w, r)
	return nil
}

func handleMetadata(w http.ResponseWriter, r *http.Request, v *view) *Error {
	v.metadata.serve(w, r)
	return nil
}

// serve answers, also a conditional request (RFC 9110 section 13).
func (d document) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", d.contentType)
	h.Set("Cache-Control", "public, "+documentMaxAge)
	h.Set("ETag", d.etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(d.body))
}

// metadataOf is the document of RFC 8414 section 2. It is served under the
// name of OpenID Connect Discovery as well, which many verifiers of JWTs read
// to find keys; the members that only that standard asks for are here for
// them. There is no authorization endpoint: no user ever signs in here, and
// the list of response types is empty for the same reason.
func metadataOf(st *State, revokes bool) document {
	base := strings.TrimSuffix(st.Issuer, "/")
	revocation, methods := "", authMethods()
	var revokeMethods, revokeAlgs []string
	if revokes {
		revocation, revokeMethods, revokeAlgs = base+"/revoke", methods, clientauth.AssertionAlgorithms()
	}
	body, err := json.Marshal(struct {
		Issuer          string   `json:"issuer"`
		TokenEndpoint   string   `json:"token_endpoint"`
		JWKSURI         string   `json:"jwks_uri"`
		GrantTypes      []string `json:"grant_types_supported"`
		AuthMethods     []string `json:"token_endpoint_auth_methods_supported"`
		AuthAlgNames    []string `json:"token_endpoint_auth_signing_alg_values_supported"`
		Revocation      string   `json:"revocation_endpoint,omitempty"`
		RevokeMethods   []string `json:"revocation_endpoint_auth_methods_supported,omitempty"`
		RevokeAlgNames  []string `json:"revocation_endpoint_auth_signing_alg_values_supported,omitempty"`
		ResponseTypes   []string `json:"response_types_supported"`
		SubjectTypes    []string `json:"subject_types_supported"`
		SigningAlgNames []string `json:"id_token_signing_alg_values_supported"`
	}{
		Issuer:          st.Issuer,
		TokenEndpoint:   base + "/token",
		JWKSURI:         base + "/jwks",
		GrantTypes:      grantTypes(),
		AuthMethods:     methods,
		AuthAlgNames:    clientauth.AssertionAlgorithms(),
		Revocation:      revocation,
		RevokeMethods:   revokeMethods,
		RevokeAlgNames:  revokeAlgs,
		ResponseTypes:   []string{},
		SubjectTypes:    []string{"public"},
		SigningAlgNames: algorithms(st),
	})
	if err != nil { // strings always encode
		body = []byte("{}")
	}
	return newDocument("application/json", body)
}

func authMethods() []string {
	return []string{"client_secret_basic", "client_secret_post", "private_key_jwt"}
}

func grantTypes() []string {
	var names []string
	for name := range grants {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func algorithms(st *State) []string {
	var names []string
	for _, k := range st.Keys.Keys() {
		names = append(names, k.Algorithm())
	}
	slices.Sort(names)
	return slices.Compact(names)
}
