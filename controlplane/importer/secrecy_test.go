package importer

import (
	"strings"
	"testing"
)

// Where a secret may stand, whatever is wrong there: no note and no error shows
// it.
func TestNotesHoldNoSecrets(t *testing.T) {
	const secret = "hunter2hunter2"
	for _, in := range []struct{ importer, content string }{
		{"kong", "_format_version: '3.0'\nconsumers: [{username: a, jwt_secrets: [{secret: §}, {secret: [§]}, {secret: {§: §}}, {algorithm: RS256, rsa_public_key: §}]}]"},
		{"kong", "_format_version: '3.0'\nconsumers: [{username: a, jwt_secrets: [{secret: §}, {algorithm: RS256, rsa_public_key: §}, {key: k, secret: §, algorithm: HS999}]}]"},
		{"kong", "_format_version: '3.0'\nplugins: [{name: jwt, config: {secret_is_base64: true}}]\nconsumers: [{username: a, jwt_secrets: [{secret: '§*'}]}]"},
		{"kong", "_format_version: '3.0'\nconsumers: [{username: a, jwt_secrets: §, keyauth_credentials: [{key: §}]}]"},
		{"kong", "secret: *§"},
		{"kong", "secret: &§ !§ §"},
		{"kong", "secret: \"§"},
		{"kong", "secret: §: §"},
		{"kong", "secret: @§"},
		{"higress", "consumers: [{name: a, issuer: i, jwks: '§'}]"},
		{"higress", `consumers: [{name: a, issuer: i, jwks: '{"keys": [{"kty": "oct", "alg": "ES256", "k": "§"}, {"kty": "oct", "k": ["§"]}, {"kty": "EC", "d": "§"}, "§"]}'}]`},
		{"higress", `consumers: [{name: a, issuer: i, jwks: {keys: [{kty: oct, k: §}, §]}}]`},
		{"fc", `{domainName: a.b, authConfig: {authType: jwt, authInfo: '§: [§'}}`},
		{"fc", `{domainName: a.b, authConfig: {authType: jwt, authInfo: {jwks: {keys: [§]}, tokenLookup: "header:a"}}}`},
		{"istio", "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: a}\nspec: {selector: {matchLabels: {app: a}}, jwtRules: [{issuer: i, jwks: '{\"keys\": [{\"kty\": \"oct\", \"k\": \"§\", \"alg\": \"x\", \"d\": \"§\"}]}'}]}"},
	} {
		content := strings.ReplaceAll(in.content, "§", secret)
		result, err := importers[in.importer]([]File{{Name: "in", Content: []byte(content)}}, Options{})
		var said strings.Builder
		if err != nil {
			said.WriteString(err.Error())
		}
		for _, n := range append(result.Left, result.Warnings...) {
			said.WriteString(n.String() + "\n")
		}
		if strings.Contains(said.String(), secret) {
			t.Errorf("of %s\n%s\nit says\n%s", in.importer, content, said.String())
		}
	}
}
