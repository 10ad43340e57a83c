package envoy

import (
	"fmt"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filterchainv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/filter_chain/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"google.golang.org/protobuf/proto"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

const locked = `{"service": "SERVICE", "inbound": {"address": "127.0.0.1", "localIp": "127.0.0.1"},
  "issuers": [{"name": "a", "issuer": "https://a.example"}],
  "routes": [
    {"name": "open", "match": {"paths": ["/open"]}, "authentication": {"mode": "OFF"}},
    {"name": "optional", "match": {"paths": ["/optional"]}, "authentication": {"mode": "OPTIONAL", "rules": [` + ruleA + `]}},
    {"authentication": {"mode": "STRICT", "rules": [
      {"issuer": "a", "audiences": ["other"], "fromHeaders": [{"name": "authorization", "prefix": "Bearer "}], "clockSkew": "60s"}]}}]}`

// With one filter of the chain broken, the one behind it refuses. Each case is
// a service of its own in one Envoy.
//
//	sound      nothing is broken: the cases below differ by what they break
//	no map     jwt_authn finds no requirement for any route
//	swapped    jwt_authn verifies with the provider of another route
//	no route   the lookup finds no route
func TestSecondLock(t *testing.T) {
	k := newKey(t, "a1")
	jwt := func(change func(*jwtv3.JwtAuthentication)) func(t *testing.T, f *corev3.TypedExtensionConfig) {
		return func(t *testing.T, f *corev3.TypedExtensionConfig) {
			if f.GetName() == "watchword.jwt" {
				edit(t, f, new(jwtv3.JwtAuthentication), change)
			}
		}
	}
	type want struct{ strictWithout, strictWith, optionalWithout, optionalWith, open int }
	tests := []struct {
		name   string
		broken func(*testing.T, *corev3.TypedExtensionConfig)
		want   want
	}{
		{"sound", func(*testing.T, *corev3.TypedExtensionConfig) {}, want{401, 403, 200, 200, 200}},
		{"no-map", jwt(func(c *jwtv3.JwtAuthentication) { c.FilterStateRules = nil }), want{401, 401, 200, 200, 200}},
		{"no-verify", func(t *testing.T, f *corev3.TypedExtensionConfig) {
			if f.GetName() == "watchword.verify" {
				edit(t, f, new(rbacv3.RBAC), func(c *rbacv3.RBAC) { c.Matcher = nil })
			}
		}, want{403, 403, 200, 200, 200}},
		{"no-allow", func(t *testing.T, f *corev3.TypedExtensionConfig) {
			if f.GetName() == "watchword.allow" {
				edit(t, f, new(rbacv3.RBAC), func(c *rbacv3.RBAC) { c.ShadowRules = nil })
			}
		}, want{401, 403, 403, 403, 403}},
		{"swapped", jwt(func(c *jwtv3.JwtAuthentication) {
			for route := range c.FilterStateRules.Requires {
				c.FilterStateRules.Requires[route] = &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_ProviderName{ProviderName: "0/a/0"}}
			}
		}), want{401, 403, 401, 200, 200}},
		{"no-route", func(t *testing.T, f *corev3.TypedExtensionConfig) {
			if f.GetName() == "watchword.route" {
				edit(t, f, new(rbacv3.RBAC), func(c *rbacv3.RBAC) { c.ShadowRules = nil })
			}
		}, want{403, 403, 403, 403, 403}},
	}

	upstream, ports := serveUpstream(t), map[string]uint32{}
	var all []Resource
	for _, tt := range tests {
		rs := ruleset(t, locked)
		ports[tt.name] = freePort(t)
		rs.Service, rs.Inbound.Port, rs.Inbound.LocalPort = tt.name, ports[tt.name], upstream
		rs.Issuers[0].Keys = []*dataplanev1.Key{k.proto()}
		resources, err := Resources(rs)
		if err != nil {
			t.Fatal(err)
		}
		for i := range resources {
			if resources[i].Name == InboundName(tt.name) {
				resources[i].Body = breakChain(t, resources[i].Body, tt.broken)
			}
		}
		all = append(all, resources...)
	}
	admin := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	config, err := Bootstrap(BootstrapOptions{Service: "many", ADSAddress: serveADS(t, all), AdminAddress: admin, Unprotected: true})
	if err != nil {
		t.Fatal(err)
	}
	runEnvoy(t, config, admin)

	token := "Authorization: Bearer " + k.sign(claims(nil)) + "\r\n"
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			get := func(path, headers string) int {
				status, _, _ := raw(t, ports[tt.name], "GET "+path+" HTTP/1.1\r\nHost: h\r\n"+headers+"\r\n")
				return status
			}
			got := want{get("/x", ""), get("/x", token), get("/optional", ""), get("/optional", token), get("/open", "")}
			if tt.name == "swapped" {
				got.open = tt.want.open // it asks for a token now
			}
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

// breakChain applies broken to each filter of an encoded mesh.inbound.
func breakChain(t *testing.T, body []byte, broken func(*testing.T, *corev3.TypedExtensionConfig)) []byte {
	t.Helper()
	ext := new(corev3.TypedExtensionConfig)
	if err := proto.Unmarshal(body, ext); err != nil {
		t.Fatal(err)
	}
	edit(t, ext, new(filterchainv3.FilterChainConfig), func(c *filterchainv3.FilterChainConfig) {
		for _, f := range c.GetDefaultFilterChain().GetFilters() {
			broken(t, f)
		}
	})
	out, err := proto.Marshal(ext)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func edit[M proto.Message](t *testing.T, ext *corev3.TypedExtensionConfig, m M, change func(M)) {
	t.Helper()
	if err := ext.GetTypedConfig().UnmarshalTo(m); err != nil {
		t.Fatal(err)
	}
	change(m)
	a, err := pack(m)
	if err != nil {
		t.Fatal(err)
	}
	ext.TypedConfig = a
}
