package dataplane

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/watchword-mesh/watchword/dataplane/ruleset"
)

// Caller is who sent a request, as the data plane has verified it.
type Caller struct {
	// Service is the name of the service of this mesh that calls; empty for others.
	Service string
	// Subject and Issuer are the claims `sub` and `iss`. A subject means something
	// with its issuer only.
	Subject, Issuer string
	// Consumer is the name of the Consumer that the caller is, also of an anonymous
	// one.
	Consumer string
	// Anonymous: no token was verified, and Consumer stands for that.
	Anonymous bool

	claims []byte
}

// Known tells whether a token was verified.
func (c Caller) Known() bool { return c.claims != nil }

// Claims reads the claims of the verified token into v, as encoding/json does.
func (c Caller) Claims(v any) error {
	if c.claims == nil {
		return fmt.Errorf("reading claims: no token was verified")
	}
	return json.Unmarshal(c.claims, v)
}

type callerKey struct{}

// FromContext is the caller of the request that a handler behind Middleware, or
// behind an interceptor, was given the context of. ok is false for a request that
// came another way.
func FromContext(ctx context.Context) (c Caller, ok bool) {
	c, ok = ctx.Value(callerKey{}).(Caller)
	return c, ok
}

// withCaller has one allocation for the caller, and one for the context.
func withCaller(ctx context.Context, v *ruleset.Verdict) context.Context {
	d := v.Decision()
	return context.WithValue(ctx, callerKey{}, Caller{
		Service: v.CallerService(), Subject: d.Caller.Subject, Issuer: d.Caller.Iss,
		Consumer: d.Caller.Consumer, Anonymous: d.Caller.Anonymous, claims: v.Claims(),
	})
}
