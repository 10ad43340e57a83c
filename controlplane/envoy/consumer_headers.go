package envoy

import (
	"fmt"
	"slices"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// consumerHeader is one header that some treatment fills with an attribute of
// the consumer.
type consumerHeader struct {
	attribute dataplanev1.ConsumerHeader_Attribute
	header    string
}

// consumerHeaders are the distinct ones, in order of their names.
func consumerHeaders(p *plan) []consumerHeader {
	var out []consumerHeader
	for _, t := range p.treatments {
		for _, h := range t.authentication.GetConsumerHeaders() {
			out = append(out, consumerHeader{h.GetAttribute(), h.GetHeader()})
		}
	}
	slices.SortFunc(out, func(a, b consumerHeader) int {
		if a.header != b.header {
			return map[bool]int{true: -1, false: 1}[a.header < b.header]
		}
		return int(a.attribute) - int(b.attribute)
	})
	return slices.Compact(out)
}

// fact finds the attribute of the caller's consumer; nil if none has it.
func (h consumerHeader) fact(p *plan, n int) *rbacv3.RBAC {
	return p.fact(h.statPrefix(n), func(treatment int, who found) string {
		asked := slices.ContainsFunc(p.treatments[treatment].authentication.GetConsumerHeaders(), func(o *dataplanev1.ConsumerHeader) bool {
			return o.GetAttribute() == h.attribute && o.GetHeader() == h.header
		})
		if !asked {
			return ""
		}
		return h.of(p.consumers[who.consumer()], who)
	})
}

func (h consumerHeader) of(c *dataplanev1.Consumer, who found) string {
	switch h.attribute {
	case dataplanev1.ConsumerHeader_NAME:
		return c.GetName()
	case dataplanev1.ConsumerHeader_ID:
		return c.GetId()
	case dataplanev1.ConsumerHeader_USERNAME:
		return c.GetUsername()
	case dataplanev1.ConsumerHeader_CUSTOM_ID:
		return c.GetCustomId()
	case dataplanev1.ConsumerHeader_CREDENTIAL:
		return who.credential.GetKey()
	case dataplanev1.ConsumerHeader_ANONYMOUS:
		if who.anonymous != "" {
			return "true"
		}
	}
	return ""
}

func (h consumerHeader) statPrefix(n int) string { return fmt.Sprintf("watchword_attribute_%d_", n) }

func (h consumerHeader) set(n int) *mutationv3.HeaderMutation {
	return setHeader(h.header, metadataFormat(rbacNamespace, h.statPrefix(n)+effectivePolicy))
}
