package policy

import (
	"regexp"
	"slices"
	"strings"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// mostBody is the largest body of a response, in bytes: every data plane holds
// it for each route.
const mostBody = 8 << 10

// contentType is a media type with parameters (RFC 9110 section 8.3.1).
var contentType = regexp.MustCompile(`^[\w!#$&^.+-]+/[\w!#$&^.+-]+(; ?[\w-]+=("[\w .+-]+"|[\w.+-]+))*$`)

func (c *checker) responses(list []*policyv1.Response) {
	named := map[string]bool{}
	for i, r := range list {
		field := index("spec.responses", i)
		c.reasons(field, r.GetReasons(), named)
		if len(r.GetReasons()) == 0 && i < len(list)-1 {
			c.fault(field+".reasons", "is missing: an entry without reasons is for all others, so that it must be the last one")
		}
		if s := r.GetStatus(); s != 0 && (s < 400 || s > 599) {
			c.fault(field+".status", "%d is not the status of a refusal: 400 to 599", s)
		}
		if len(r.GetBody()) > mostBody {
			c.fault(field+".body", "has %d bytes; at most %d", len(r.GetBody()), mostBody)
		}
		switch t := r.GetContentType(); {
		case t != "" && r.GetBody() == "":
			c.fault(field+".contentType", "is for a body, and there is none")
		case t != "" && (len(t) > 128 || !contentType.MatchString(t)):
			c.fault(field+".contentType", "%q is not a media type such as text/plain or application/json", clip(t))
		}
	}
}

func (c *checker) reasons(field string, reasons []string, named map[string]bool) {
	for i, word := range reasons {
		at := index(field+".reasons", i)
		switch {
		case !reason.Known(reason.Word(word)):
			c.fault(at, "%q is not a reason; there are %s", clip(word), reasonNames())
		case reason.Word(word) == reason.PathAmbiguous || reason.Word(word) == reason.HostAmbiguous:
			c.fault(at, "can never hold: %q is refused before it is known which policy holds", word)
		case named[word] && slices.Index(reasons, word) == i:
			c.fault(at, "can never hold: an entry before it names %q already", word)
		default:
			c.once(field+".reasons", reasons, i)
		}
	}
	for _, word := range reasons {
		named[word] = true
	}
}

func reasonNames() string {
	var names []string
	for _, w := range reason.All() {
		names = append(names, string(w))
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
