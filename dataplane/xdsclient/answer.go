package xdsclient

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
)

// maxRefusal bounds the text of a NACK, in bytes.
const maxRefusal = 1 << 10

// answer puts a response in force, as far as it is good, and gives the ACK or NACK.
// An error ends the stream: there is no answer to a response that has no nonce, and
// one of a type that was not asked for would subscribe to all of that type.
func (c *client) answer(resp *response) (*request, error) {
	t, ok := c.subscribedType(resp.GetTypeUrl())
	if !ok {
		return nil, fmt.Errorf("the control plane has sent a response of type %q, which was not asked for", resp.GetTypeUrl())
	}
	if resp.GetNonce() == "" {
		return nil, fmt.Errorf("the control plane has sent a response of type %q without a nonce, which can't be answered", t.url)
	}
	var refusals []string
	book := func(name, version string, err error) {
		c.metrics.update(t, err)
		if err == nil {
			return
		}
		c.Logger.Error("refused what the control plane has sent", "type", t.label, "name", printable(name), "version", printable(version), "error", printable(err.Error()))
		refusals = append(refusals, fmt.Sprintf("%s: %v", name, err))
	}
	times := mentions(resp)
	for _, r := range resp.GetResources() {
		err := t.check(r, times[r.GetName()])
		if err == nil {
			err = c.Handler.Accept(Resource{t.url, r.GetName(), r.GetVersion(), r.GetResource().GetValue()})
		}
		book(r.GetName(), r.GetVersion(), err)
	}
	for _, name := range resp.GetRemovedResources() {
		err := t.checkName(name, times[name])
		if err == nil {
			err = c.Handler.Remove(t.url, name)
		}
		book(name, "", err)
	}
	req := &request{TypeUrl: t.url, ResponseNonce: resp.GetNonce()}
	if len(refusals) > 0 {
		req.ErrorDetail = &status.Status{Code: int32(codes.InvalidArgument), Message: printable(strings.Join(refusals, "; "))}
	}
	return req, nil
}

// mentions counts how often a response speaks of a name.
func mentions(resp *response) map[string]int {
	n := make(map[string]int)
	for _, r := range resp.GetResources() {
		n[r.GetName()]++
	}
	for _, name := range resp.GetRemovedResources() {
		n[name]++
	}
	return n
}

// check refuses what was not asked for, and what could not be claimed or kept later.
func (t subscribedType) check(r *discovery.Resource, times int) error {
	if err := t.checkName(r.GetName(), times); err != nil {
		return err
	}
	switch {
	case r.GetVersion() == "":
		return errors.New("it has no version")
	case r.GetResource() == nil:
		return errors.New("it has no content")
	case r.GetResource().GetTypeUrl() != t.url:
		return fmt.Errorf("its content is of type %q, not %q", r.GetResource().GetTypeUrl(), t.url)
	case r.GetTtl() != nil:
		return errors.New("it has a ttl, which is not kept here")
	}
	return nil
}

func (t subscribedType) checkName(name string, times int) error {
	switch {
	case name == "":
		return errors.New("it has no name")
	case !t.has(name):
		return errors.New("it was not asked for")
	case times > 1:
		return errors.New("it is in the response more than once")
	}
	return nil
}

// printable makes a text one line of valid UTF-8 without control characters, of at
// most maxRefusal bytes.
func printable(text string) string {
	var out strings.Builder
	for _, r := range text { // what is no UTF-8 comes as U+FFFD
		if !unicode.IsPrint(r) {
			r = unicode.ReplacementChar
		}
		if out.Len()+len(string(r)) > maxRefusal {
			break
		}
		out.WriteRune(r)
	}
	return out.String()
}
