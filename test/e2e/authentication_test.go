package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/test/meshtest"
)

// The key of an issuer can come as PEM, of each kind that PEM has a name for.
func TestPEMIssuer(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	keys := map[string]*meshtest.Signer{}
	documents, rules := m.service(t, "orders"), []string{}
	for _, alg := range []string{"RS256", "ES256", "ES384", "EdDSA"} {
		name := strings.ToLower(alg)
		keys[alg] = meshtest.NewSigner(t, alg)
		documents += pemIssuer(t, name, "https://"+name+".example", keys[alg])
		rules = append(rules, "{issuer: "+name+", audiences: [orders]}")
	}
	m.Apply(t, documents+authentication("orders", "orders", "", "STRICT", rules...))
	m.startEnvoy(t, "orders")
	for alg, key := range keys {
		iss := "https://" + strings.ToLower(alg) + ".example"
		call := meshtest.Call{Token: key.Token(t, meshtest.NewClaims(iss, "ann", "orders"))}
		wantStatus(t, alg, call, m.send(t, "orders", call), 200)
		call.Token = flip(call.Token)
		wantStatus(t, alg+", signature changed", call, m.send(t, "orders", call), 401)
	}
	// A key of one issuer must not speak for another.
	call := meshtest.Call{Token: keys["ES256"].Token(t, meshtest.NewClaims("https://rs256.example", "ann", "orders"))}
	wantStatus(t, "one issuer's key under another's name", call, m.send(t, "orders", call), 401)
}

// Each rule has locations, audiences, skew and lifetime of its own; each route
// has its own policy, and a request belongs to the first route that matches.
func TestAuthenticationPolicies(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	a, b := newIssuer(t, "https://a.example", "ES256"), newIssuer(t, "https://b.example", "RS256")
	m.Apply(t, m.service(t, "orders",
		"routes:",
		`- {name: health, paths: [/healthz]}`,
		`- {name: public-read, paths: ["/public/*"], methods: [GET]}`,
		`- {name: public, paths: ["/public/*"]}`,
		`- {name: partner, hosts: ["*.partner.example"]}`,
		`- {name: query, paths: ["/query/*"]}`,
		`- {name: cookie, paths: ["/cookie/*"]}`,
		`- {name: custom, paths: ["/custom/*"]}`,
		`- {name: strict-time, paths: ["/time/*"]}`,
		`- {name: claims, paths: ["/claims/*"]}`)+
		a.resource("a")+b.resource("b")+
		authentication("service", "orders", "", "STRICT", "{issuer: a, audiences: [orders]}", "{issuer: b, audiences: [orders, shop]}")+
		authentication("health", "orders", "health", "OFF")+
		authentication("public-read", "orders", "public-read", "OPTIONAL", "{issuer: a, audiences: [orders]}")+
		authentication("partner", "orders", "partner", "STRICT", "{issuer: b, audiences: [partner]}")+
		authentication("query", "orders", "query", "STRICT", "{issuer: a, audiences: [orders], fromParams: [jwt]}")+
		authentication("cookie", "orders", "cookie", "STRICT", "{issuer: a, audiences: [orders], fromCookies: [session]}")+
		authentication("custom", "orders", "custom", "STRICT", `{issuer: a, audiences: [orders], fromHeaders: [{name: X-Token, prefix: "Token "}], forwardOriginalToken: true}`)+
		authentication("strict-time", "orders", "strict-time", "STRICT", "{issuer: a, audiences: [orders], clockSkew: 1s, maxLifetime: 10m}")+
		authentication("claims", "orders", "claims", "STRICT", `{issuer: a, audiences: [orders], outputClaims: [{claimPath: [realm, plan], header: X-Plan}, {claimPath: [sub], header: X-Subject}, {claimPath: [level], header: X-Level}]}`))
	m.startEnvoy(t, "orders")

	now := time.Now()
	claims := meshtest.NewClaims(a.iss, "ann", "orders")
	good, goodB := a.token(t, claims), b.token(t, meshtest.NewClaims(b.iss, "bob", "shop"))
	forPartner := b.token(t, meshtest.NewClaims(b.iss, "bob", "partner"))
	late := a.token(t, claims.With("exp", now.Add(-20*time.Second).Unix()))
	early := a.token(t, claims.With("nbf", now.Add(20*time.Second).Unix()))
	long := a.token(t, claims.With("exp", now.Add(time.Hour).Unix()))
	header := func(name, value string) http.Header { return http.Header{name: {value}} }
	for _, c := range []struct {
		what string
		call meshtest.Call
		want int
	}{
		{"several issuers: the first", meshtest.Call{Path: "/x", Token: good}, 200},
		{"several issuers: the second, with its own audience", meshtest.Call{Path: "/x", Token: goodB}, 200},
		{"several issuers: an audience that only the second has", meshtest.Call{Path: "/x", Token: a.token(t, claims.With("aud", "shop"))}, 403},
		{"several issuers: none", meshtest.Call{Path: "/x"}, 401},

		{"OFF: no token", meshtest.Call{Path: "/healthz"}, 200},
		{"OFF: rubbish instead of a token", meshtest.Call{Path: "/healthz", Token: "abc"}, 200},
		{"OFF: what is below the path is not the path", meshtest.Call{Path: "/healthz/x"}, 401},
		{"OFF: another way to write the path", meshtest.Call{Path: "/x/../healthz"}, 200},
		{"OFF: a path that leads elsewhere", meshtest.Call{Path: "/healthz/../x"}, 401},

		{"OPTIONAL: no token", meshtest.Call{Path: "/public/x"}, 200},
		{"OPTIONAL: a good token", meshtest.Call{Path: "/public/x", Token: good}, 200},
		{"OPTIONAL: a bad token", meshtest.Call{Path: "/public/x", Token: flip(good)}, 401},
		{"OPTIONAL: an expired token", meshtest.Call{Path: "/public/x", Token: a.token(t, claims.With("exp", 1))}, 401},

		{"first match wins: another method is the next route", meshtest.Call{Method: "POST", Path: "/public/x"}, 401},
		{"first match wins: whose policy is that of the service", meshtest.Call{Method: "POST", Path: "/public/x", Token: goodB}, 200},
		{"first match wins: the path comes before the host", meshtest.Call{Host: "eu.partner.example", Path: "/public/x"}, 200},
		{"host: a policy holds whole, nothing is merged", meshtest.Call{Host: "eu.partner.example", Path: "/x", Token: good}, 401},
		{"host: its own audience", meshtest.Call{Host: "eu.partner.example:8080", Path: "/x", Token: forPartner}, 200},
		{"host: another one", meshtest.Call{Host: "partner.example", Path: "/x", Token: forPartner}, 403},

		{"query", meshtest.Call{Path: "/query/x?jwt=" + good}, 200},
		{"query: another parameter", meshtest.Call{Path: "/query/x?access_token=" + good}, 401},
		{"query: in the header instead", meshtest.Call{Path: "/query/x", Token: good}, 401},
		{"query: not on other routes", meshtest.Call{Path: "/x?access_token=" + good}, 401},
		{"cookie", meshtest.Call{Path: "/cookie/x", Header: header("Cookie", "a=b; session="+good)}, 200},
		{"cookie: another one", meshtest.Call{Path: "/cookie/x", Header: header("Cookie", "sessions="+good)}, 401},
		{"header", meshtest.Call{Path: "/custom/x", Header: header("X-Token", "Token "+good)}, 200},
		{"header: without the prefix", meshtest.Call{Path: "/custom/x", Header: header("X-Token", good)}, 401},
		{"header: in Authorization instead", meshtest.Call{Path: "/custom/x", Token: good}, 401},

		{"skew of 60 s: expired 20 s ago", meshtest.Call{Path: "/x", Token: late}, 200},
		{"skew of 60 s: valid in 20 s", meshtest.Call{Path: "/x", Token: early}, 200},
		{"skew of 1 s: expired 20 s ago", meshtest.Call{Path: "/time/x", Token: late}, 401},
		{"skew of 1 s: valid in 20 s", meshtest.Call{Path: "/time/x", Token: early}, 401},
		{"max lifetime: within", meshtest.Call{Path: "/time/x", Token: good}, 200},
		{"max lifetime: beyond", meshtest.Call{Path: "/time/x", Token: long}, 401},
		{"max lifetime: no such bound", meshtest.Call{Path: "/x", Token: long}, 200},
	} {
		wantStatus(t, c.what, c.call, m.send(t, "orders", c.call), c.want)
	}

	for _, c := range []struct {
		call meshtest.Call
		want map[string]string
	}{
		{meshtest.Call{Path: "/claims/x", Token: a.token(t, claims.With("realm", map[string]any{"plan": "gold"}).With("level", 7))},
			map[string]string{"X-Plan": "gold", "X-Subject": "ann", "X-Level": "7", "Authorization": ""}},
		{meshtest.Call{Path: "/claims/x", Token: good, Header: http.Header{"X-Plan": {"made up"}}},
			map[string]string{"X-Plan": "", "X-Subject": "ann", "X-Level": ""}},
		{meshtest.Call{Path: "/custom/x", Header: header("X-Token", "Token "+good)},
			map[string]string{"X-Token": "Token " + good, "X-Watchword-Caller": "ann", "X-Watchword-Issuer": a.iss}},
		{meshtest.Call{Path: "/public/x"}, map[string]string{"X-Watchword-Caller": "", "X-Watchword-Issuer": ""}},
	} {
		got := m.send(t, "orders", c.call)
		if got.Seen == nil {
			t.Errorf("%s: got %d %q, want it to reach the service", c.call, got.Status, got.Body)
			continue
		}
		for name, want := range c.want {
			if value := strings.Join(got.Seen.Header.Values(name), ","); value != want {
				t.Errorf("%s: the service saw %s: %q, want %q", c.call, name, value, want)
			}
		}
	}
	if got := m.send(t, "orders", meshtest.Call{Path: "/query/x?a=b&jwt=" + good}).Seen; got == nil || strings.Contains(got.Query, good) {
		t.Errorf("the service saw the query %+v, want it without the token", got)
	}
}

// Who may do what: by service, subject, issuer, method, path and claim; a DENY
// counts whatever allows; the most specific level with an ALLOW decides.
func TestAuthorizationPolicies(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	idp := newIssuer(t, "https://idp.example", "ES256")
	m.Apply(t, m.service(t, "orders", `routes: [{name: admin, paths: ["/admin/*"]}]`)+
		resource("Service", "shop", "calls: [{service: orders, scopes: [read, write]}]")+
		resource("Service", "stranger", "calls: [{service: orders}]")+idp.resource("idp")+
		authentication("orders", "orders", "", "STRICT", "{issuer: watchword}", "{issuer: idp, audiences: [orders]}")+
		resource("AuthorizationPolicy", "readers", "target: {services: [orders]}", "action: ALLOW", "rules:",
			"- {from: {services: [shop]}, when: [{claimPath: [scope], values: [read]}]}",
			"- {from: {issuers: [idp]}, to: {methods: [GET], paths: [/items, \"/items/*\"]}, when: [{claimPath: [groups], values: [eu]}]}")+
		resource("AuthorizationPolicy", "admins", "target: {services: [orders], routes: [admin]}", "action: ALLOW",
			"rules: [{from: {subjects: [{issuer: idp, subject: root}]}}]")+
		resource("AuthorizationPolicy", "banned", "target: {services: [orders]}", "action: DENY",
			"rules: [{when: [{claimPath: [banned], values: [true]}]}, {to: {methods: [DELETE]}}]"))
	m.startEnvoy(t, "orders")

	user := meshtest.NewClaims(idp.iss, "ann", "orders").With("groups", []string{"us", "eu"})
	token := func(c meshtest.Claims) string { return idp.token(t, c) }
	shop := m.Token(t, "shop", "orders")
	for _, c := range []struct {
		what string
		call meshtest.Call
		want int
	}{
		{"service with the scope", meshtest.Call{Path: "/x", Token: shop}, 200},
		{"service that nothing allows", meshtest.Call{Path: "/x", Token: m.Token(t, "stranger", "orders")}, 403},
		{"user on the path", meshtest.Call{Path: "/items/7", Token: token(user)}, 200},
		{"user on the path itself", meshtest.Call{Path: "/items", Token: token(user)}, 200},
		{"user on another path", meshtest.Call{Path: "/itemsx", Token: token(user)}, 403},
		{"user with another method", meshtest.Call{Method: "POST", Path: "/items/7", Token: token(user)}, 403},
		{"user without the group", meshtest.Call{Path: "/items/7", Token: token(user.With("groups", []string{"us"}))}, 403},
		{"user without groups", meshtest.Call{Path: "/items/7", Token: token(user.With("groups", nil))}, 403},
		{"denied by a claim", meshtest.Call{Path: "/items/7", Token: token(user.With("banned", true))}, 403},
		{"a claim of another type", meshtest.Call{Path: "/items/7", Token: token(user.With("banned", "true"))}, 200},
		{"denied by method", meshtest.Call{Method: "DELETE", Path: "/x", Token: shop}, 403},
		{"the route's ALLOW replaces the service's", meshtest.Call{Path: "/admin/x", Token: shop}, 403},
		{"the subject on the route", meshtest.Call{Path: "/admin/x", Token: token(user.With("sub", "root"))}, 200},
		{"the subject, denied", meshtest.Call{Path: "/admin/x", Token: token(user.With("sub", "root").With("banned", true))}, 403},
		{"no token", meshtest.Call{Path: "/x"}, 401},
	} {
		wantStatus(t, c.what, c.call, m.send(t, "orders", c.call), c.want)
	}
}
