package ruleset

import (
	"strings"
	"testing"
)

// Whatever a stranger sends, nothing panics, and only a text that holds the good
// token lets anybody in.
func FuzzEvaluate(f *testing.F) {
	good := jwt()
	signature := good[strings.LastIndexByte(good, '.')+1:]
	rs := ready(f, service(`{"name": "x", "match": {"hosts": ["*.example"], "paths": ["/x/*"], "notMethods": ["PUT"]}, "authentication": {"mode": "STRICT", "allowScripts": true, "rules": [`+
		rule(`"fromHeaders": [{"name": "authorization", "prefix": "Bearer "}], "fromParams": [{"name": "t", "prefix": "p "}], "fromCookies": [{"name": "c"}], "fromForm": [{"name": "f"}], `+outputs)+","+kongRule+`]},
	  "authorization": {"deny": [{"name": "d/0", "to": {"notPaths": ["/x/y"]}, "when": [{"claimPath": ["a", "b"], "op": "IN", "values": [1, "x", true]}]}]}},
	 {"match": {}, "authentication": {"mode": "STRICT", "rules": [`+rule("")+`]}}`))
	f.Add("GET", "a.example", "/x/?t=p+"+good, "authorization", "Bearer "+good, "c="+good, "f="+good)
	f.Add("PUT", "a.example:80", "/x/%2e", "x-sub", "y", "", "")
	f.Add("", "", "", "", "", "", "")
	f.Add("OPTIONS", "[::1]", "*", "Content-Type", "application/grpc", "=;;=", "&&=%")
	for _, token := range []string{
		sign(`{"alg":"HS256","crit":["x"]}`, claimsOf(), secretA), sign(hsHeader, `{"sub":"\u0000","exp":1e308}`, secretB),
		b64(`{"alg":"none"}`) + "." + b64(claimsOf()) + ".", good + ".", sign(hsHeader, `{"aud":[[]],"a":{"b":[1,{"c":null}]}}`, "x"),
	} {
		f.Add("GET", "b.example.", "/x/y", "Authorization", "Bearer "+token, "c=\""+token+"\"", "f="+token)
	}
	f.Fuzz(func(t *testing.T, method, authority, path, name, value, cookie, body string) {
		r := Request{Method: method, Authority: authority, Path: path, Body: []byte(body), Header: []Field{
			{name, value}, {"cookie", cookie}, {"content-type", "application/x-www-form-urlencoded"},
		}}
		d := rs.Evaluate(r, now)
		explained, steps := rs.Explain(r, now)
		if verdict(d) != verdict(explained) || seen(d.Forward) != seen(explained.Forward) {
			t.Errorf("Evaluate = %+v, Explain = %+v", d, explained)
		}
		all := method + authority + decode(path) + name + value + cookie + decode(body)
		if d.Allowed && !strings.Contains(all, signature) {
			t.Errorf("%+v lets in %+v\n%s", r, d.Caller, showSteps(steps))
		}
		if d.Allowed != (d.Status == 0) {
			t.Errorf("Evaluate(%+v) = %+v", r, d)
		}
	})
}

// Whatever claims somebody has signed, the request that goes on has no header that
// could be two.
func FuzzClaims(f *testing.F) {
	rs := ready(f, oneRoute("STRICT", rule(`"audienceUnchecked": true, "expiration": "IF_PRESENT", "payloadHeader": "x-payload", `+strings.Replace(outputs, `"cookie": "tier"`, `"header": "x-tier"`, 1)), ""))
	for _, claims := range []string{
		claimsOf(), claimsOf("sub", "a\r\nb: c"), claimsOf("email", "\x00"), claimsOf("roles", []any{"\r\n", map[string]any{"\n": "\n"}}),
		claimsOf("o", map[string]any{"n": "\r\n&=%#é"}), claimsOf("tier", "\u0085\u2028"), claimsOf("note", 1e300), `{"iss":"https://sts.example","sub":""}`,
	} {
		f.Add(claims)
	}
	f.Fuzz(func(t *testing.T, claims string) {
		r := post("/a", "x=y", bearer(sign(hsHeader, claims, secretA)))
		d := rs.Evaluate(r, now)
		for _, h := range d.Forward.Header {
			if control(h.Value) || control(h.Name) {
				t.Errorf("claims %q make header %q: %q", claims, h.Name, h.Value)
			}
		}
		if control(d.Forward.Path) || strings.ContainsAny(d.Forward.Path, " #") {
			t.Errorf("claims %q make path %q", claims, d.Forward.Path)
		}
		if assumed := rs.EvaluateClaims(r, []byte(claims), map[string]any{"typ": "at+jwt"}, now); verdict(assumed) != verdict(d) {
			t.Errorf("claims %q: signed %s, assumed %s", claims, verdict(d), verdict(assumed))
		}
	})
}
