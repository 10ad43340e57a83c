package sts

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// repeats tells which parameters are not refused as duplicates: standards let
// them be there several times (RFC 8707 section 2, RFC 8693 section 2.1), so
// that more than one is a target that we refuse, not a malformed request.
func repeats(name string) bool { return name == "resource" || name == "audience" }

// target is the one audience that a request names, by `resource` (RFC 8707) or
// `audience` (RFC 8693 section 2.1), or by both if they are equal. None is an
// invalid_target as well: RFC 8707 section 2 has that code also for a target
// that is missing. There is no default, since a token that is good for more
// than its sender thinks of is what an audience is there to prevent.
func target(form url.Values) (string, *Error) {
	resources, audiences := form["resource"], form["audience"]
	if len(resources) > 1 || len(audiences) > 1 {
		return "", refuse(CodeInvalidTarget, "a token is for one audience; ask for one at a time", nil)
	}
	resource, audience := form.Get("resource"), form.Get("audience")
	if resource == "" && audience == "" {
		return "", refuse(CodeInvalidTarget, "resource or audience is missing; name the service that the token is for", nil)
	}
	if resource == "" {
		return audience, nil
	}
	if !absolute(resource) {
		return "", refuse(CodeInvalidTarget, "resource must be an absolute URI without fragment; use audience for a plain name", nil)
	}
	if audience != "" && audience != resource {
		return "", refuse(CodeInvalidTarget, "resource and audience differ; send one of them", nil)
	}
	return resource, nil
}

// absolute tells whether s is what RFC 8707 section 2 asks of `resource`.
func absolute(s string) bool {
	u, err := url.Parse(s)
	return err == nil && u.IsAbs() && !strings.Contains(s, "#")
}

var errWildcard = errors.New("an audience must name one service; wildcards are not allowed")

// allowed gives the scopes that the service may have for the audience. The
// client hears the same for an audience that isn't there as for one that it
// may not have.
func (v *view) allowed(service, audience string) ([]string, *Error) {
	const description = "the service may not have a token for this audience"
	if strings.Contains(audience, "*") {
		return nil, refuse(CodeInvalidTarget, description, errWildcard)
	}
	scopes, ok := v.Services[service].Calls[audience]
	if audience == "" || !ok {
		return nil, refuse(CodeInvalidTarget, description,
			fmt.Errorf("service %q has no call to audience %q; add it to the calls of the Service", service, shown(audience)))
	}
	return scopes, nil
}
