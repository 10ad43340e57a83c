package seeds

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/importer"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// What stands in seeds/004: the JWK without kid, and the token that it
// verifies. It expires in the year 2123.
const (
	fcJWK = `{
		"alg": "RS256",
		"e": "AQAB",
		"kty": "RSA",
		"n": "u1LWgoomekdOMfB1lEe96OHehd4XRNCbZRm96RqwOYTTc28Sc_U5wKV2umDzolfoI682ct2BNnRRahYgZPhbOCzHYM6i8sRXjz9Ghx3QHw9zrYACtArwQxrTFiejbfzDPGdPrMQg7T8wjtLtkSyDmCzeXpbIdwmxuLyt_ahLfHelr94kEksMDa42V4Fi5bMW4cCLjlEKzBEHGmFdT8UbLPCvpgsM84JK63e5ifdeI9NdadbC8ZMiR--dFCujT7AgRRyMzxgdn2l-nZJ2ZaYzbLUtAW5_U2kfRVkDNa8d1g__2V5zjU6nfLJ1S2MoXMgRgDPeHpEehZVu2kNaSFvDUQ",
		"use": "sig"
	}`
	fcToken  = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJuYW1lIjoiSm9uIFNub3ciLCJhZG1pbiI6dHJ1ZSwiZXhwIjo0ODI5NTk3NjQxfQ.eRcobbpjAd3OSMxcWbmbicOTLjO2vuLR9F2QZMK4rz1JqfSRHgwQVqNxcfOIO9ckDMNlF_3jtdfCfvXfka-phJZpHmnaQJxmnOA8zA3R4wF4GUQdz5zkt74cK9jLAXpokwrviz2ROehwxTCwa0naRd_N9eFhvTRnP3u7L0xn3ll4iOf8Q4jS0mVLpjyTa5WiBkN5xi9hkFxd__p98Pah_Yf0hVQ2ldGSyTtAMmdM1Bvzad-kdZ_wW0jcctIla9bLnOo-Enr14EsGvziMh_QTZ3HQtJuToSKZ11xkNgaz7an5de6PuF5ISXQzxigpFVIkG765aEDVtEnFkMO0xyPGLg"
	fcDomain = "fc.example.com"
	// The Service that the importer makes of the domain.
	fcService = "fc-example-com"

	fcMissing = "the jwt token is missing"
	fcInvalid = "invalid or expired jwt"
)

// functionCompute imports a custom domain, as the API of Function Compute
// returns it: the document shows its fields as forms of the console.
func functionCompute(t *testing.T, jwks, tokenLookup, claimPassBy string) importer.Result {
	t.Helper()
	info, err := json.Marshal(map[string]any{"jwks": json.RawMessage(jwks), "tokenLookup": tokenLookup, "claimPassBy": claimPassBy})
	if err != nil {
		t.Fatal(err)
	}
	domain, err := json.Marshal(map[string]any{
		"domainName": fcDomain, "protocol": "HTTP",
		"authConfig": map[string]string{"authType": "jwt", "authInfo": string(info)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return imported(t, importer.FunctionCompute, string(domain), importer.Options{})
}

// fcCall is a request to the domain.
func fcCall(path string, headers ...http.Header) meshtest.Call {
	call := meshtest.Call{Host: fcDomain, Path: path, Header: http.Header{}}
	for _, h := range headers {
		for name, values := range h {
			call.Header[name] = append(call.Header[name], values...)
		}
	}
	return call
}

func fcForm(path, body string) meshtest.Call {
	call := fcCall(path, header("Content-Type", "application/x-www-form-urlencoded"))
	call.Method, call.Body = http.MethodPost, body
	return call
}

func TestSeedFunctionCompute(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	// The private key of the document's JWK is not in it. What its own token
	// can't show is signed with a second key, which has a kid: of the keys
	// without one there may be one only.
	ours, stranger := meshtest.NewSigner(t, "ES256"), meshtest.NewSigner(t, "RS256")
	jwks := `{"keys": [` + fcJWK + `, ` + ours.JWK() + `]}`
	bearer := func(token string) http.Header { return header("Authentication", "Bearer "+token) }
	claims := meshtest.Claims{"name": "Arya", "exp": time.Now().Add(time.Hour).Unix()}

	// The document's configuration: the token in the header Authentication behind
	// "Bearer", the claim name to the function as nametofunction.
	const document = "header:Authentication:Bearer"
	m.deploy(t, functionCompute(t, `{"keys": [`+fcJWK+`]}`, document, "header:name:nametofunction"))
	m.check(t, fcService,
		row{"the document's token", fcCall("/?a=b", bearer(fcToken)), allowed(map[string]string{"Nametofunction": "Jon Snow"})},
		row{"a forged claim", fcCall("/", bearer(fcToken), header("Nametofunction", "Ned")), allowed(map[string]string{"Nametofunction": "Jon Snow"})},
		row{"no token", fcCall("/"), refused(401, "token_missing", fcMissing)},
		row{"another header", fcCall("/", header("Authorization", "Bearer "+fcToken)), refused(401, "token_missing", fcMissing)},
		// "You need the prefix to be removed and the blank, else there is an error."
		row{"without the prefix", fcCall("/", header("Authentication", fcToken)), refused(401, "token_missing", fcMissing)},
		row{"without the blank", fcCall("/", header("Authentication", "Bearer"+fcToken)), refused(401, "token_missing", fcMissing)},
		row{"a changed signature", fcCall("/", bearer(flip(fcToken))), refused(401, "signature_invalid", fcInvalid)},
		row{"no JWT", fcCall("/", bearer("abc")), refused(401, "token_malformed", fcInvalid)},
		row{"not signed", fcCall("/", bearer("eyJhbGciOiJub25lIn0.eyJuYW1lIjoiSm9uIn0.")), refused(401, "token_malformed", fcInvalid)},
		row{"alg none", fcCall("/", bearer("eyJhbGciOiJub25lIn0.eyJuYW1lIjoiSm9uIn0.AAAA")), refused(401, "algorithm_not_allowed", fcInvalid)},
		row{"another key", fcCall("/", bearer(stranger.Token(t, claims))), refused(401, "signature_invalid", fcInvalid)},
		row{"another algorithm", fcCall("/", bearer(ours.Token(t, claims))), refused(401, "key_unknown", fcInvalid)},
	)

	// Several keys: the kid says which one.
	m.deploy(t, functionCompute(t, jwks, document, "header:name:nametofunction"))
	m.check(t, fcService,
		row{"the key without kid", fcCall("/", bearer(fcToken)), allowed(map[string]string{"Nametofunction": "Jon Snow"})},
		row{"the key with a kid", fcCall("/", bearer(ours.Token(t, claims))), allowed(map[string]string{"Nametofunction": "Arya"})},
		row{"a kid that is not there", fcCall("/", bearer(stranger.Token(t, claims))), refused(401, "signature_invalid", fcInvalid)},
		row{"a kid that is not there, of an algorithm whose keys all have one",
			fcCall("/", bearer(ours.Sign(t, map[string]any{"alg": "ES256", "kid": "other"}, claims))), refused(401, "key_unknown", fcInvalid)},
		row{"expired", fcCall("/", bearer(ours.Token(t, claims.With("exp", time.Now().Add(-2*time.Minute).Unix())))), refused(401, "token_expired", fcInvalid)},
		row{"without exp", fcCall("/", bearer(ours.Token(t, claims.With("exp", nil)))), allowed(map[string]string{"Nametofunction": "Arya"})},
		row{"without the claim", fcCall("/", bearer(ours.Token(t, claims.With("name", nil)))), allowed()},
		// A claim must not become a second header, nor an error of the server.
		row{"a line end in the claim", fcCall("/", bearer(ours.Token(t, claims.With("name", "a\r\nb")))), refused(401, "claim_malformed", fcInvalid)},
	)
}

// The token may be in a header, a query parameter, a cookie and a form, each
// with a prefix to remove; claims go to the same four places, renamed.
func TestSeedFunctionComputePlaces(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	key := meshtest.NewSigner(t, "RS256")
	key.KID = ""
	token := key.Token(t, meshtest.Claims{"name": "Jon Snow", "admin": true, "id": "jon"})
	expired := key.Token(t, meshtest.Claims{"name": "Jon Snow", "exp": 1})

	const lookups = "header:X-Token:H,query:jwt:Q-,cookie:jwt:C-,form:jwt:F-"
	m.deploy(t, functionCompute(t, `{"keys": [`+fcJWK+`]}`, lookups, "header:name:nametofunction"))
	jon := map[string]string{"Nametofunction": "Jon Snow"}
	rows := []row{
		{"the document's token in a header", fcCall("/", header("X-Token", "H "+fcToken)), allowed(jon)},
		{"in the query", fcCall("/p?a=b&jwt=Q-" + fcToken + "&c"), allowed(jon)},
		{"in a cookie", fcCall("/", header("Cookie", "a=b; jwt=C-"+fcToken)), allowed(jon)},
		{"in a form", fcForm("/", "a=b&jwt=F-"+fcToken+"&c=d"), allowed(jon)},
		{"nowhere", fcForm("/", "a=b"), refused(401, "token_missing", fcMissing)},
		{"in a body that is no form", meshtest.Call{Host: fcDomain, Method: http.MethodPost, Header: header("Content-Type", "text/plain"), Body: "jwt=F-" + fcToken},
			refused(401, "token_missing", fcMissing)},
		{"a bad one in a form", fcForm("/", "jwt=F-"+flip(fcToken)), refused(401, "signature_invalid", fcInvalid)},
		{"a bad one beside a good one", fcCall("/?jwt=Q-"+flip(fcToken), header("X-Token", "H "+fcToken)), refused(401, "signature_invalid", fcInvalid)},
	}
	for what, call := range map[string]meshtest.Call{
		"header": fcCall("/", header("X-Token", fcToken)),
		"query":  fcCall("/?jwt=" + fcToken),
		"cookie": fcCall("/", header("Cookie", "jwt="+fcToken)),
		"form":   fcForm("/", "jwt="+fcToken),
	} {
		rows = append(rows, row{what + ": without its prefix", call, refused(401, "token_missing", fcMissing)})
	}
	m.check(t, fcService, rows...)

	// A cookie's value has no blanks (RFC 6265 section 4.1.1), so that the claim
	// for it is another one.
	m.deploy(t, functionCompute(t, `{"keys": [`+key.JWK()+`]}`, lookups, "header:name:nametofunction,query:name:qname,cookie:id:cid,cookie:admin:cadmin,form:name:fname"))
	cookie := func(text string) map[string]string {
		return map[string]string{"Nametofunction": "Jon Snow", "Cookie": text}
	}
	m.check(t, fcService,
		row{"to all four places", fcForm("/?x=y", "a=b&jwt=F-"+token),
			allowed(cookie("cadmin=true; cid=jon")).withQuery("x=y&qname=Jon%20Snow").withForm("a=b&jwt=F-" + token + "&fname=Jon%20Snow")},
		row{"without a form", fcCall("/", header("Cookie", "a=b; jwt=C-"+token)),
			allowed(cookie("a=b; jwt=C-" + token + "; cadmin=true; cid=jon")).withQuery("qname=Jon%20Snow")},
		row{"what the caller made up", func() meshtest.Call {
			c := fcForm("/?qname=Ned&x=y", "fname=Ned&jwt=F-"+token)
			c.Header["Cookie"] = []string{"cid=ned; a=b; cadmin=false"}
			c.Header["Nametofunction"] = []string{"Ned"}
			return c
		}(), allowed(cookie("a=b; cadmin=true; cid=jon")).withQuery("x=y&qname=Jon%20Snow").withForm("jwt=F-" + token + "&fname=Jon%20Snow")},
		row{"claims of other types", fcCall("/", header("Cookie", "jwt=C-"+key.Token(t, meshtest.Claims{"name": []string{"Jon", "Snow"}, "admin": 1.5, "id": 7}))),
			allowed(map[string]string{"Nametofunction": "WyJKb24iLCJTbm93Il0=", "Cookie": "jwt=C-" + key.Token(t, meshtest.Claims{"name": []string{"Jon", "Snow"}, "admin": 1.5, "id": 7}) + "; cadmin=1.500000; cid=7"}).withQuery("qname=WyJKb24iLCJTbm93Il0%3D")},
		row{"expired", fcForm("/", "jwt=F-"+expired), refused(401, "token_expired", fcInvalid)},
		row{"a blank for a cookie", fcForm("/", "jwt=F-"+key.Token(t, meshtest.Claims{"id": "Jon Snow"})), refused(401, "claim_malformed", fcInvalid)},
	)
}

// At most one JWK has no kid, an empty one counts as none, and none has private
// members: refused where it is applied, for keys of any origin.
func TestSeedFunctionComputeKeys(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	issuer := func(keys string) string {
		return resource("Issuer", "fc", "keySet: {jwks: '{\"keys\": ["+keys+"]}'}")
	}
	first, second, named := meshtest.NewSigner(t, "ES256"), meshtest.NewSigner(t, "ES256"), meshtest.NewSigner(t, "ES256")
	first.KID, second.KID = "", ""
	empty := `{"kid": "",` + second.JWK()[1:]
	m.wantFault(t, "two without kid", issuer(first.JWK()+","+second.JWK()), "at most one key of a set may lack it")
	m.wantFault(t, "one without kid, one with an empty one", issuer(first.JWK()+","+empty), "at most one key of a set may lack it")
	m.wantFault(t, "a private key", issuer(`{"d": "AAAA",`+named.JWK()[1:]), "holds a private key")

	// One without kid beside one with a kid is what the document allows; that it
	// is written as an empty one makes no difference.
	m.deploy(t, functionCompute(t, `{"keys": [`+empty+`,`+named.JWK()+`]}`, "header:Authentication:Bearer", "header:name:nametofunction"))
	claims := meshtest.Claims{"name": "Arya"}
	for what, key := range map[string]*meshtest.Signer{"an empty kid": second, "a kid": named} {
		m.check(t, fcService, row{what, fcCall("/", header("Authentication", "Bearer "+key.Token(t, claims))), allowed(map[string]string{"Nametofunction": "Arya"})})
	}
	token := second.Sign(t, map[string]any{"alg": "ES256", "kid": ""}, claims)
	m.check(t, fcService, row{"a token with an empty kid", fcCall("/", header("Authentication", "Bearer "+token)), allowed(map[string]string{"Nametofunction": "Arya"})})
}
