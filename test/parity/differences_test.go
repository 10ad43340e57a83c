package parity

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/watchword-mesh/watchword/dataplane/ruleset"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// bench is a service that takes tokens of two keys, in two headers.
type bench struct {
	rs     *dataplanev1.Ruleset
	es, hs *signer
}

func newBench() *bench {
	b := &bench{es: newSigner("ES256", "es"), hs: newSigner("HS256", "hs")}
	b.rs = &dataplanev1.Ruleset{
		Service: service,
		Issuers: []*dataplanev1.Issuer{{Name: "a", Issuer: "https://a.example", Keys: keysOf([]*signer{b.es, b.hs})}},
		Routes: []*dataplanev1.Route{{Match: &dataplanev1.RequestMatch{}, Authentication: &dataplanev1.Authentication{
			Mode: dataplanev1.Authentication_STRICT,
			Rules: []*dataplanev1.TokenRule{{
				Issuer: "a", Audiences: []string{"orders"}, ClockSkew: durationpb.New(time.Minute),
				Expiration: dataplanev1.TimeCheck_REQUIRED, NotBefore: dataplanev1.TimeCheck_IF_PRESENT,
				FromHeaders:          []*dataplanev1.TokenLocation{{Name: "authorization", Prefix: "Bearer "}, {Name: "x-token"}},
				ForwardOriginalToken: true,
				OutputClaims:         []*dataplanev1.OutputClaim{{ClaimPath: []string{"sub"}, Header: "x-sub"}, {ClaimPath: []string{"o"}, Header: "x-o"}},
			}},
		}}},
	}
	return b
}

// absent is the value of a claim that is not there.
const absent = "\x00absent"

func (b *bench) claims(change map[string]any) []byte {
	c := map[string]any{"iss": "https://a.example", "sub": "alice", "aud": "orders", "exp": time.Now().Unix() + 300}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == absent })
	text, err := json.Marshal(c)
	if err != nil {
		panic(err)
	}
	return text
}

func header(change map[string]any) map[string]any {
	h := map[string]any{"alg": "HS256", "kid": "hs"}
	maps.Copy(h, change)
	return h
}

func (b *bench) good() string { return b.hs.token(header(nil), b.claims(nil)) }

func bearer(token string) ruleset.Request {
	return get(ruleset.Field{Name: "Authorization", Value: "Bearer " + token})
}

func get(fields ...ruleset.Field) ruleset.Request {
	return ruleset.Request{Method: "GET", Authority: "orders", Path: "/", Header: fields}
}

// padded has a signature of two numbers that are longer than the curve's.
func (b *bench) padded() string {
	h := map[string]any{"alg": "ES256", "kid": "es"}
	token := b.es.token(h, b.claims(nil))
	i := strings.LastIndexByte(token, '.')
	sig, err := b64.DecodeString(token[i+1:])
	if err != nil {
		panic(err)
	}
	long := append(append([]byte{0}, sig[:32]...), append([]byte{0}, sig[32:]...)...)
	return token[:i+1] + b64.EncodeToString(long)
}

// Each difference that is listed is one: Envoy lets the request in and the
// reference does not, or they hand different requests to the service. One that
// is no more has to leave the list. Library and sidecar are as the reference.
func TestKnownDifferences(t *testing.T) {
	b := newBench()
	p := startPlanes(t)
	reference := b.load(t, p)

	claims := string(b.claims(nil))
	deep := func(n int) any {
		var v any = 1
		for range n {
			v = []any{v}
		}
		return v
	}
	witnesses := map[string]ruleset.Request{
		"prefix_anywhere":   get(ruleset.Field{Name: "Authorization", Value: "Foo Bearer " + b.good()}),
		"text_before_token": get(ruleset.Field{Name: "Authorization", Value: "Bearer ;; " + b.good()}),
		"empty_segments":    bearer("." + b.good()),
		"base64":            bearer(b.good() + "="),
		"json_syntax":       bearer(b.hs.token(header(nil), []byte(strings.TrimSuffix(claims, "}")+",}"))),
		"json_null":         bearer(b.hs.token(header(nil), []byte("null"))),
		"json_depth":        bearer(b.hs.token(header(nil), b.claims(map[string]any{"d": deep(50)}))),
		"token_size":        bearer(b.hs.token(header(nil), b.claims(map[string]any{"d": strings.Repeat("x", 20_000)}))),
		"typ_not_text":      bearer(b.hs.token(header(map[string]any{"typ": 7}), b.claims(nil))),
		"b64_header":        bearer(b.hs.token(header(map[string]any{"b64": true}), b.claims(nil))),
		"signature_size":    bearer(b.padded()),
		"claim_json":        bearer(b.hs.token(header(nil), b.claims(map[string]any{"o": map[string]any{"b": "<", "a": 1e20}}))),
	}
	listed := map[string]bool{}
	for _, d := range ruleset.KnownDifferences {
		listed[d.Name] = true
		t.Run(d.Name, func(t *testing.T) {
			req, ok := witnesses[d.Name]
			if !ok {
				t.Fatal("no request shows this difference")
			}
			all := p.ask(t, reference, req)
			if envoy := all[0]; envoy.same() {
				t.Errorf("no difference any more: both say %+v\nrequest:\n%s", envoy.got, show(req))
			} else if !envoy.got.Allowed && envoy.want.Allowed {
				t.Errorf("Envoy is the stricter one (%s)\nrequest:\n%s", envoy.got.Reason, show(req))
			}
			if d := disagreements(all[1:]); d != "" {
				t.Errorf("%s%s", d, show(req))
			}
		})
	}
	for name := range witnesses {
		if !listed[name] {
			t.Errorf("%s is not in ruleset.KnownDifferences", name)
		}
	}
}
