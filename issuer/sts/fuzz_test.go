package sts

import (
	"encoding/json"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// Whatever strangers send to the token endpoint: the status is one that it
// has, the body is one JSON object, a refusal has a known code and repeats no
// secret, and nobody gets a token without the secret.
func FuzzTokenEndpoint(f *testing.F) {
	m := newMesh(f)
	const ct = "application/x-www-form-urlencoded"
	f.Add("grant_type=client_credentials&audience=orders", "Basic c2hvcDp4", ct, "", false)
	f.Add("grant_type=client_credentials&audience=orders&scope=read", "", ct, "", true)
	f.Add("grant_type=client_credentials&resource=https://orders.example.com", "", ct+"; charset=utf-8", "", true)
	f.Add("grant_type=client_credentials&audience=*&audience=a", "", ct, "", true)
	f.Add("client_id=shop&client_secret=x&client_id=y", "Basic", ct, "", false)
	f.Add("grant_type=client_credentials&audience=orders&client_assertion=e30.e30.AA&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer", "", ct, "", false)
	f.Add("%zz&;=&&", "Bearer x", "application/json", "a=b", false)
	f.Add("scope=%22%00%ff&audience=orders&grant_type=client_credentials", "", ct, "", true)
	codes := []string{CodeInvalidRequest, CodeInvalidClient, CodeUnsupportedGrantType, CodeInvalidTarget, CodeInvalidScope}

	f.Fuzz(func(t *testing.T, body, authorization, contentType, query string, authentic bool) {
		m.clock.Advance(time.Second) // so that strangers are not limited
		r := httptest.NewRequest("POST", "/token", strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		r.URL.RawQuery = query
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		if authentic {
			r.SetBasicAuth("shop", m.secret)
		}
		w := m.ask(r)
		entries := m.audited()

		var answer map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
			t.Fatalf("%d %s: %v", w.Code, w.Body, err)
		}
		if !slices.Contains([]int{200, 400, 401, 413}, w.Code) {
			t.Errorf("status %d %s", w.Code, w.Body)
		}
		if w.Header().Get("Content-Type") != "application/json" || w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("header %v", w.Header())
		}
		if len(entries) != 1 {
			t.Fatalf("audit: %+v, want one entry", entries)
		}
		if w.Code == 200 {
			if !authentic || entries[0].Outcome != Issued {
				t.Errorf("a token, authentic %v, audit %+v", authentic, entries[0])
			}
			claims := m.claimsOf(t, tokenOf(t, w))
			if _, ok := m.state.Services["shop"].Calls[claims["aud"].(string)]; !ok || strings.Contains(claims["aud"].(string), "*") {
				t.Errorf("a token for audience %q", claims["aud"])
			}
			return
		}
		if code, _ := answer["error"].(string); !slices.Contains(codes, code) || entries[0].Code != code || entries[0].Outcome != Refused {
			t.Errorf("code %q, audit %+v", code, entries[0])
		}
		if strings.Contains(w.Body.String(), m.secret) || (w.Code == 401) != (w.Header().Get("WWW-Authenticate") != "") {
			t.Errorf("%d %s, header %v", w.Code, w.Body, w.Header())
		}
	})
}
