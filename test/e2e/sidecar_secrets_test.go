package e2e

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/test/meshtest"
)

// Two sidecars that have a shared secret, a private key, join tokens and access tokens
// show none of them: not in the log at trace, not in metrics, whatever is refused; and
// the file of the last configuration has no shared secret.
func TestSidecarSecrets(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	inbound, outbound, orders := meshtest.FreeAddress(t), meshtest.FreeAddress(t), newProgram(t)
	hs := meshtest.NewSigner(t, "HS256")
	m.Apply(t, goService("orders", inbound, orders.address, `routes: [{name: partner, paths: ["/partner/*"]}]`)+
		inlineIssuer("partner", "https://partner.example", hs)+
		authentication("partner", "orders", "partner", "STRICT", "{issuer: partner, audiences: [orders]}")+
		resource("Service", "reports", "{dataPlanes: [GO], outbound: {port: "+portOf(outbound)+"}, calls: [{service: orders}]}"))
	cache := filepath.Join(t.TempDir(), "last")
	callee := m.startSidecar(t, "orders", "--cache-file", cache)
	caller := m.startSidecar(t, "reports")
	client := through(t, outbound)
	meshtest.Eventually(t, func() error { return call(client, "http://orders/a") })
	claims := meshtest.NewClaims("https://partner.example", "ann", "orders")
	good, old := hs.Token(t, claims), hs.Token(t, claims.With("exp", time.Now().Add(-time.Hour).Unix()))
	for token, want := range map[string]int{good: 200, old: 401, flip(good): 401, "SECRETNONSENSE": 401} {
		status := 0
		meshtest.Eventually(t, func() error {
			req := newRequest(t, "http://orders/partner/x")
			req.Header.Set("Authorization", "Bearer "+token)
			res, err := client.Do(req)
			if err == nil {
				status = res.StatusCode
				_ = res.Body.Close()
			}
			return err
		})
		if status != want {
			t.Errorf("a token of the partner: %d, want %d", status, want)
		}
	}
	kept, err := os.ReadFile(cache)
	if err != nil {
		t.Fatal(err)
	}
	places := map[string]string{"the file": string(kept)}
	for _, s := range []*meshtest.Sidecar{callee, caller} {
		_, text := s.Get("/metrics")
		places["the metrics of "+s.Service] = text
		s.Stop(t)
		places["the log of "+s.Service] = s.Log.String()
	}
	const jwt = "eyJ" // any begins so
	for what, secret := range map[string]string{
		"the shared secret": string(hs.Secret), "the shared secret as JWK": base64.RawURLEncoding.EncodeToString(hs.Secret),
		"the shared secret in base64": base64.StdEncoding.EncodeToString(hs.Secret), "the shared secret in hex": hex.EncodeToString(hs.Secret),
		"a join token": callee.Join, "the other join token": caller.Join, "a token": jwt, "nonsense": "SECRETNONSENSE", "a private key": "PRIVATE KEY",
		"a secret of a join token": strings.Split(callee.Join, ".")[1],
	} {
		for where, text := range places {
			if where == "the file" && what == "a token" {
				continue // JSON in base64 begins so, too
			}
			if strings.Contains(text, secret) {
				t.Errorf("%s is in %s:\n%s", what, where, fmt.Sprintf("%.3000s", text))
			}
		}
	}
}

// A program can't have the sidecar call itself.
func TestSidecarLoop(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	outbound := meshtest.FreeAddress(t)
	m.Apply(t, resource("Service", "reports", "{dataPlanes: [GO], outbound: {port: "+portOf(outbound)+"}}"))
	m.startSidecar(t, "reports", "--pass-unknown")
	for _, host := range []string{outbound, "localhost:" + portOf(outbound)} {
		meshtest.Eventually(t, func() error {
			res, err := through(t, outbound).Do(newRequest(t, "http://"+host+"/"))
			if err != nil {
				return err
			}
			_ = res.Body.Close()
			if res.StatusCode != 508 {
				t.Errorf("a request to %s by way of itself: %d, want 508", host, res.StatusCode)
			}
			return nil
		})
	}
}
