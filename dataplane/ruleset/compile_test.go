package ruleset

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// All that keeps a ruleset from being enforced, at once, each with its place, and
// never a key.
func TestCompileFaults(t *testing.T) {
	text := fmt.Sprintf(`{"service": "orders",
 "issuers": [{"name": "empty"}, {"name": "bad", "keys": [{"kid": "b", "algorithm": "HS256", "jwk": "{\"kty\":\"oct\",\"alg\":\"HS256\",\"kid\":\"b\",\"k\":\"%[1]s\",\"k\":\"\"}"},
   {"kid": "other", "algorithm": "HS256", "jwk": "{\"kty\":\"oct\",\"alg\":\"HS256\",\"kid\":\"b\",\"k\":\"%[1]s\"}"}]}],
 "consumers": [{"name": "c", "username": "a\nb"}],
 "credentialSets": [{"name": "s", "credentials": [{"keys": [%[2]s], "consumer": "c"}, {"key": "k", "keys": [%[2]s]}, {"key": "k", "keys": [%[2]s], "service": "x"}, {"key": "l", "keys": [%[2]s], "service": "x"}]}],
 "routes": [
  {"name": "one", "authentication": {"rules": [
    {"issuer": "nobody"},
    {"issuer": "empty", "credentialSet": "none", "audienceUnchecked": true, "expiration": "REQUIRED", "notBefore": "REQUIRED", "fromForm": [{"name": "f"}], "keyClaim": {"sources": ["HEADER"]},
     "outputClaims": [{"claimPath": ["a.b", "c"], "header": "x", "query": "y"}], "consumers": [{}]}],
    "consumerHeaders": [{"header": "x"}]}},
  {"name": "two", "match": {"paths": ["/x"]}, "authentication": {"mode": "STRICT"}, "authorization": {
    "deny": [{"name": "d/0", "from": [{}], "when": [{}, {"claimPath": ["a"], "op": "IN"}]}],
    "allow": [{"name": "a/0", "notFrom": [{"subject": "s"}], "when": [{"claimPath": ["a"], "op": "EXISTS", "values": ["x"]}, {"claimPath": ["b"], "op": "IN", "values": [null]}]}]}}]}`,
		b64(secretA), hsKey("", secretB))
	_, err := Compile(parse(t, text))
	if err == nil {
		t.Fatal("Compile = no error")
	}
	want := strings.TrimSpace(`
ruleset of service "orders" can't be enforced: consumer "c": it has a control character, which can't be in a header
issuer "empty": it has no key
issuer "bad": key 0 (kid "b"): member "k" appears twice in one object; parsers disagree on which counts
issuer "bad": key 1 (kid "other"): its JWK is not of this kid and algorithm "HS256"
credential "" of set "s": it has no key; a token could not name it
credential "k" of set "s": it has to belong either to a consumer or to a service
credential "k" of set "s": it is there twice
credential "l" of set "s": service "x" has no subject
route "one": authentication mode MODE_UNSPECIFIED is not known
route "one": consumer header "x": attribute ATTRIBUTE_UNSPECIFIED is not known
route "one": token rule 0: there is no issuer "nobody"
route "one": token rule 0: it has no place where a token could be
route "one": token rule 0: it has no audience, and audience_unchecked is not set
route "one": token rule 0: expiration or not_before: TIME_CHECK_UNSPECIFIED is not known
route "one": token rule 0: expiration or not_before: TIME_CHECK_UNSPECIFIED is not known
route "one": token rule 1: it has both issuer "empty" and credential set "none"
route "one": token rule 1: there is no credential set "none"
route "one": token rule 1: its key claim needs a name, and sources that are PAYLOAD or HEADER
route "one": token rule 1: output claim "a.b".c needs a path and exactly one place
route "one": token rule 1: a match names no consumer
route "two": authentication mode STRICT without a token rule; use OFF
route "two": authorization rule d/0: a principal names nobody
route "two": authorization rule d/0: a condition has no claim path
route "two": authorization rule d/0: claim a: operator IN with 0 values
route "two": authorization rule a/0: subject "s" without an issuer; anybody could sign for it
route "two": authorization rule a/0: claim a: operator EXISTS with 1 values
route "two": authorization rule a/0: claim b: a value is neither text nor a number nor a boolean
route "two": it is the last one and does not match every request; add a route without a match`)
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("Compile of\n%s\n(-want +got):\n%s", text, diff)
	}
	if strings.Contains(err.Error(), b64(secretA)) {
		t.Errorf("the error shows a secret: %v", err)
	}
	if _, err := Compile(parse(t, `{}`)); err == nil {
		t.Error("Compile of a ruleset without routes = no error")
	}
}
