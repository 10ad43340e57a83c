package importer

import (
	"cmp"
	"fmt"
	"slices"
)

// kongScope is what holds for a route, a service, or everything.
type kongScope struct {
	// Of jwt.
	plugin *kongPlugin
	// A plugin beside jwt that may refuse requests, by name.
	guard string
}

// Plugins that refuse no one for who they are. All others may: that they are
// not imported must not open what they keep closed.
var kongHarmless = []string{"correlation-id", "cors", "datadog", "file-log", "http-log", "kafka-log", "loggly", "opentelemetry", "prometheus", "proxy-cache", "proxy-cache-advanced",
	"rate-limiting", "rate-limiting-advanced", "request-size-limiting", "request-transformer", "request-transformer-advanced", "response-ratelimiting", "response-transformer", "response-transformer-advanced",
	"statsd", "statsd-advanced", "syslog", "tcp-log", "udp-log", "zipkin"}

func kongGuards(plugin string) bool { return !slices.Contains(kongHarmless, plugin) }

// guard notes a plugin that may refuse requests where it holds.
func (k *kong) guard(p *kongPlugin) {
	switch {
	case p.consumer != "":
		if c := k.consumers[p.consumer]; c != nil {
			c.guard = cmp.Or(c.guard, p.name)
		}
	case p.group != "":
		k.groupGuard = cmp.Or(k.groupGuard, p.name)
	default:
		if at := k.place(p); at != nil {
			at.guard = cmp.Or(at.guard, p.name)
		}
	}
}

// refuses is the plugin that may refuse a consumer's requests; which group
// it is of does not matter, since the groups are left out.
func (k *kong) refuses(c *kongConsumer) string {
	if c.guard == "" && c.grouped {
		return k.groupGuard
	}
	return c.guard
}

// holds is the use of jwt and the guard for a route, or without one for what
// else a service has, or without either for everything else.
func (k *kong) holds(s *kongService, r *kongRoute) kongScope {
	out := k.global
	if s != nil {
		out = kongScope{cmp.Or(s.plugin, out.plugin), cmp.Or(s.guard, out.guard)}
	}
	if r != nil {
		out = kongScope{cmp.Or(r.plugin, out.plugin), cmp.Or(r.guard, out.guard)}
	}
	return out
}

// kongAccess says who gets in, the fewest first.
type kongAccess int

const (
	withToken kongAccess = iota
	anonymously
	everybody
)

// access is what the original says.
func (k *kong) access(s *kongService, r *kongRoute) kongAccess {
	switch h := k.holds(s, r); {
	case h.guard != "":
		return withToken
	case h.plugin == nil:
		return everybody
	case k.admits(h.plugin):
		return anonymously
	}
	return withToken
}

// admits says whether jwt alone lets in requests without a token.
func (k *kong) admits(p *kongPlugin) bool {
	c := k.consumers[p.anonymous]
	return p.anonymous != "" && c != nil && k.refuses(c) == ""
}

// limits finds the strictest of the routes that are left out, whose requests
// may be those of any other route or of none; and then the laxest that is here.
func (k *kong) limits(s *kongService) {
	s.limit = everybody
	for _, r := range s.routes {
		if r.left {
			s.limit = min(s.limit, k.access(s, r))
		}
	}
	s.most = k.granted(s, nil)
	for _, r := range s.routes {
		if !r.left {
			s.most = max(s.most, k.granted(s, r))
		}
	}
}

// granted is who gets in here.
func (k *kong) granted(s *kongService, r *kongRoute) kongAccess {
	a := k.access(s, r)
	if a > s.limit || (r == nil && a == everybody) {
		return withToken // where no policy says otherwise, Watchword's own
	}
	return a
}

// closed says why requests without a token are not let in, whatever jwt says
// of them; "" if they may be.
func (k *kong) closed(s *kongService, r *kongRoute) string {
	switch guard := k.holds(s, r).guard; {
	case guard != "":
		return fmt.Sprintf("the plugin %q, which is not imported, may refuse them", clip(guard))
	case s != nil && s.limit < anonymously:
		return "a route of the service that needs a token is left out, whose requests they could be"
	}
	return ""
}

// own is the use of jwt to write out for a route, or for the service itself:
// its own one, or the one above where that lets in more than is right here.
func (k *kong) own(s *kongService, r *kongRoute) *kongPlugin {
	if r == nil {
		if s.plugin == nil && k.global.plugin != nil && k.access(nil, nil) > k.granted(s, nil) {
			return k.global.plugin
		}
		return s.plugin
	}
	if h := k.holds(s, r); r.plugin == nil && h.plugin != nil && k.granted(s, nil) > k.granted(s, r) {
		return h.plugin
	}
	return r.plugin
}
