package e2e

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/test/meshtest"
)

// kongScript makes calls of Kong's admin API as a script does, with the token of a
// service that has a role.
type kongScript struct {
	client *http.Client
	base   string
	token  string
}

// do sends a form and returns status and body.
func (k *kongScript) do(t *testing.T, method, path, form string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, k.base+path, strings.NewReader(form))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if k.token != "" {
		req.Header.Set("Authorization", "Bearer "+k.token)
	}
	res, err := k.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	body := map[string]any{}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &body); err != nil {
			t.Fatalf("%s %s: %s: %v", method, path, text, err)
		}
	}
	return res.StatusCode, body
}

// A script written for Kong's admin API makes a consumer whose tokens a real Envoy
// takes, and takes it away again; without a role it can do nothing.
func TestKongScript(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.Apply(t, m.service(t, "orders")+resource("Service", "provisioner", "{}")+resource("Service", "watcher", "{}")+resource("Service", "nobody", "{}")+
		resource("AuthenticationPolicy", "orders", "target: {services: [orders]}", "jwtRules: [{consumers: {all: true}, audienceCheck: UNCHECKED}]")+
		resource("RoleBinding", "provisioning", "role: OPERATOR", "subjects: [{service: provisioner}]")+
		resource("RoleBinding", "watching", "role: VIEWER", "subjects: [{service: watcher}]"))
	m.startEnvoy(t, "orders")
	script := func(service string) *kongScript {
		k := &kongScript{client: m.HTTP(t), base: "https://" + m.Config.AdminListen + "/kong"}
		if service != "" {
			k.token = m.Token(t, service, "watchword-admin")
		}
		return k
	}
	k := script("provisioner")
	want := func(what string, got int, body map[string]any, want int) {
		t.Helper()
		if got != want {
			t.Fatalf("%s: %d %v; want %d", what, got, body, want)
		}
	}
	code, body := k.do(t, "POST", "/consumers", "username=alice&custom_id=42")
	want("a consumer", code, body, 201)
	code, body = k.do(t, "POST", "/consumers/alice/jwt", "")
	want("a credential", code, body, 201)
	key, _ := body["key"].(string)
	for _, call := range [][2]string{{"/consumers", "username=other"}, {"/consumers/other/jwt", ""}} {
		code, other := k.do(t, "POST", call[0], call[1])
		want("another consumer", code, other, 201)
	}
	secret, _ := body["secret"].(string)

	token := meshtest.SignHS256([]byte(secret), "", meshtest.Claims{"iss": key, "exp": time.Now().Add(time.Minute).Unix()})
	call := meshtest.Call{Token: token}
	meshtest.Eventually(t, func() error {
		return statusIs(m.send(t, "orders", call), 200)
	})
	code, body = k.do(t, "GET", "/jwts/"+url.PathEscape(key)+"/consumer", "")
	want("the consumer of a credential", code, body, 200)
	if body["username"] != "alice" {
		t.Errorf("the consumer is %v; want alice", body)
	}
	code, body = k.do(t, "GET", "/consumers/alice/jwt/"+url.PathEscape(key), "")
	want("a credential again", code, body, 200)
	if _, shown := body["secret"]; shown {
		t.Error("an operator is shown a secret that is stored")
	}

	for _, c := range []struct {
		who, method, path, form string
		want                    int
	}{
		{"", "GET", "/consumers", "", 401},
		{"watcher", "GET", "/consumers", "", 200},
		{"watcher", "POST", "/consumers", "username=bob", 403},
		{"watcher", "DELETE", "/consumers/alice", "", 403},
	} {
		code, body := script(c.who).do(t, c.method, c.path, c.form)
		want(c.method+" "+c.path+" by "+c.who, code, body, c.want)
	}

	code, body = k.do(t, "DELETE", "/consumers/alice/jwt/"+url.PathEscape(key), "")
	want("deleted", code, body, 204)
	meshtest.Eventually(t, func() error { return statusIs(m.send(t, "orders", call), 401) })
}
