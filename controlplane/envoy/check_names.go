package envoy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// wireName is a name that a header or a cookie can have (RFC 9110 section 5.1, RFC
// 6265 section 4.1.1).
var wireName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")

// framing are headers that say where a request ends or what becomes of the
// connection, or that the scripts go by: with a claim in one of them, a caller
// would decide that.
var framing = []string{"connection", "content-length", "content-type", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}

// isOurs says whether a header has a name that only the chain uses.
func isOurs(h string) bool {
	return strings.HasPrefix(strings.ReplaceAll(strings.ToLower(h), "_", "-"), headerPrefix)
}

func hasControls(texts ...string) bool {
	return slices.ContainsFunc(texts, func(s string) bool {
		return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
	})
}

func checkConsumer(c *dataplanev1.Consumer) error {
	if hasControls(c.GetName(), c.GetId(), c.GetUsername(), c.GetCustomId()) {
		return errors.New("it has control characters, which no header can carry")
	}
	return nil
}

func checkStripped(headers []string) error {
	var errs []error
	for _, h := range headers {
		if !wireName.MatchString(h) || h != strings.ToLower(h) || h == "host" {
			errs = append(errs, fmt.Errorf("stripped header %q is not the name of a lower-case request header that may be removed", h))
		}
	}
	return errors.Join(errs...)
}

func checkTokenPlace(l tokenPlace) error {
	switch {
	case l.name == "" || hasControls(l.name, l.prefix):
		return fmt.Errorf("a %s for the token has no name, or control characters", l.kind)
	case l.kind == inHeader && (!wireName.MatchString(l.name) || strings.EqualFold(l.name, "host")):
		return fmt.Errorf("header %q for the token is not the name of a header", l.name)
	case l.kind == inHeader && isOurs(l.name):
		return fmt.Errorf("header %q for the token is our own: what a caller has there is removed", l.name)
	}
	return nil
}

// checkOutputsOnce refuses two texts in one place: which one a service reads would
// depend on the data plane.
func checkOutputsOnce(a *dataplanev1.Authentication) error {
	var errs []error
	headers := map[string]bool{}
	for _, h := range a.GetConsumerHeaders() {
		errs = append(errs, once(headers, "consumer header", h.GetHeader()))
		if h.GetAttribute() < dataplanev1.ConsumerHeader_NAME || h.GetAttribute() > dataplanev1.ConsumerHeader_ANONYMOUS {
			errs = append(errs, fmt.Errorf("consumer header %q: attribute %s is not known", h.GetHeader(), h.GetAttribute()))
		}
	}
	for i, tr := range a.GetRules() {
		seen := map[outputKind]map[string]bool{toHeader: {}, toQuery: {}, toCookie: {}, toForm: {}}
		for _, o := range outputsOf(tr) {
			kind := o.kind
			if kind == besideHeader {
				kind = toHeader
			}
			errs = append(errs, within(once(seen[kind], "output "+string(kind), o.name), "token rule %d", i))
			if kind == toHeader && headers[o.name] {
				errs = append(errs, fmt.Errorf("token rule %d: output header %q is a consumer header, too", i, o.name))
			}
		}
	}
	return errors.Join(errs...)
}
