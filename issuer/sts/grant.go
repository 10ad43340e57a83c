package sts

import (
	"net/url"

	"github.com/watchword-mesh/watchword/issuer/clientauth"
)

// grant is what is different between grant types (RFC 6749 section 1.3). It is
// asked when the client is authenticated; target, scope, signing, audit and
// answer come after it and are the same for all. A grant that needs more gets
// another hook here, not a step of its own.
type grant struct {
	// subject gives the service that the token speaks of.
	subject func(v *view, client clientauth.Identity, form url.Values) (string, *Error)
}

// grants by the value of grant_type.
var grants = map[string]grant{
	"client_credentials": {subject: clientCredentials},
}

// clientCredentials is RFC 6749 section 4.4: the client speaks for itself.
func clientCredentials(_ *view, client clientauth.Identity, _ url.Values) (string, *Error) {
	return client.Service, nil
}
