package ruleset

import dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"

// consumer is what a service may be told of one.
type consumer struct{ name, id, username, customID string }

// consumerMatch is one consumer that a token of an issuer may be.
type consumerMatch struct {
	consumer *consumer
	when     []condition
}

// consumerHeader tells a service one thing about the consumer.
type consumerHeader struct {
	attribute dataplanev1.ConsumerHeader_Attribute
	name      string
}

// identify finds out who the caller is. v is nil without a verified token.
func (e *evaluation) identify(v *verified) {
	c := &e.caller
	c.verified = v
	a := e.route.enforced
	switch {
	case v == nil:
		if a.mode != dataplanev1.Authentication_OFF && a.anonymous != nil {
			c.consumer, c.Anonymous = a.anonymous, true
		}
	case v.credential != nil:
		c.Credential, c.Service = v.credential.key, v.credential.service
		c.consumer = v.credential.consumer
	default:
		c.Issuer = v.rule.issuer.name
		c.consumer = v.rule.consumerOf(v.claims)
	}
	if v != nil {
		c.Iss, c.Subject = v.claims.text("iss"), v.claims.text("sub")
	}
	if c.consumer != nil {
		c.Consumer = c.consumer.name
	}
	if e.rec != nil {
		e.rec.caller(e, c)
	}
	e.out.Caller = c.Caller
}

// consumerOf is the first consumer that the claims are of; nil for none.
func (r *tokenRule) consumerOf(c claims) *consumer {
	for i := range r.consumers {
		if allHold(r.consumers[i].when, c) {
			return r.consumers[i].consumer
		}
	}
	return nil
}

// value is what a header says of the caller; empty if there is nothing to say.
func (h consumerHeader) value(c *identity) string {
	switch h.attribute {
	case dataplanev1.ConsumerHeader_CREDENTIAL:
		return c.Credential
	case dataplanev1.ConsumerHeader_ANONYMOUS:
		if c.Anonymous {
			return "true"
		}
		return ""
	}
	if c.consumer == nil {
		return ""
	}
	switch h.attribute {
	case dataplanev1.ConsumerHeader_NAME:
		return c.consumer.name
	case dataplanev1.ConsumerHeader_ID:
		return c.consumer.id
	case dataplanev1.ConsumerHeader_USERNAME:
		return c.consumer.username
	case dataplanev1.ConsumerHeader_CUSTOM_ID:
		return c.consumer.customID
	}
	return "" // Compile refuses the rest
}
