package policy

import (
	"net/url"
	"regexp"
	"slices"
	"strings"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

func (c *checker) roleBinding(s *policyv1.RoleBindingSpec) {
	owner := s.GetRole() == policyv1.RoleBindingSpec_SERVICE_OWNER
	switch {
	case s.GetRole() == policyv1.RoleBindingSpec_ROLE_UNSPECIFIED:
		c.fault("spec.role", "is missing: VIEWER, OPERATOR, SECURITY_OFFICER or SERVICE_OWNER")
	case owner && len(s.GetServices()) == 0:
		c.fault("spec.services", "is missing: the services that the SERVICE_OWNER looks after")
	case !owner && len(s.GetServices()) > 0:
		c.fault("spec.services", "the role %s is about the whole mesh: leave services out, or give SERVICE_OWNER", s.GetRole())
	}
	c.known("spec.services", KindService, s.GetServices())
	if len(s.GetSubjects()) == 0 {
		c.fault("spec.subjects", "is missing: who has the role")
	}
	for i, subject := range s.GetSubjects() {
		c.roleSubject(index("spec.subjects", i), subject)
	}
}

func (c *checker) roleSubject(field string, s *policyv1.RoleSubject) {
	given := 0
	for _, is := range []bool{s.GetService() != "", s.GetToken() != nil, s.GetCertificate() != nil, s.GetUnixUser() != ""} {
		if is {
			given++
		}
	}
	if given != 1 {
		c.fault(field, "wants exactly one of service, token, certificate and unixUser")
		return
	}
	switch {
	case s.GetService() != "":
		if c.state.Service(s.GetService()) == nil {
			c.fault(field+".service", "there is no Service %q", clip(s.GetService()))
		}
	case s.GetToken() != nil:
		c.tokenSubject(field+".token", s.GetToken())
	case s.GetCertificate() != nil:
		c.certificateSubject(field+".certificate", s.GetCertificate())
	default:
		c.plainText(field+".unixUser", s.GetUnixUser())
	}
}

func (c *checker) tokenSubject(field string, t *policyv1.TokenSubject) {
	if t.GetIssuer() == BuiltinIssuer {
		c.fault(field+".issuer", "the built-in issuer signs for services: name the service as subject, as in {service: deployer}")
	} else {
		c.voucher(field+".issuer", t.GetIssuer())
	}
	for i, aud := range t.GetAudiences() {
		if aud != AdminAudience {
			c.ownAudience(index(field+".audiences", i), aud)
		}
		c.once(field+".audiences", t.GetAudiences(), i)
	}
	if len(t.GetSubjects())+len(t.GetClaims()) == 0 {
		c.fault(field, "would be everybody with a token of Issuer %q: give subjects or claims", clip(t.GetIssuer()))
	}
	for i, sub := range t.GetSubjects() {
		c.plainText(index(field+".subjects", i), sub)
		c.once(field+".subjects", t.GetSubjects(), i)
	}
	for i, claim := range t.GetClaims() {
		c.claimRequirement(index(field+".claims", i), claim)
	}
}

// ownAudience checks an audience of tokens for the control plane itself. It
// refuses those of services: what one is sent, it could use here.
func (c *checker) ownAudience(field, aud string) {
	c.audience(field, aud)
	if c.callees == nil {
		c.callees = map[string]string{}
		for _, name := range c.services {
			for _, theirs := range Audiences(name, c.state.Service(name)) {
				if c.callees[SameAudience(theirs)] == "" {
					c.callees[SameAudience(theirs)] = name
				}
			}
		}
	}
	if name := c.callees[SameAudience(aud)]; name != "" {
		c.fault(field, "%q is the audience of Service %q, which could use the tokens that it is sent here: choose another", clip(aud), name)
	}
}

func (c *checker) claimRequirement(field string, claim *policyv1.ClaimRequirement) {
	if len(claim.GetPath()) == 0 || slices.Contains(claim.GetPath(), "") {
		c.fault(field+".path", "wants the names of a claim, from the outside in, such as [realm_access, roles]")
	}
	if len(claim.GetValues()) == 0 {
		c.fault(field+".values", "is missing: what the claim must be one of")
	}
	for i, v := range claim.GetValues() {
		c.plainText(index(field+".values", i), v)
		c.once(field+".values", claim.GetValues(), i)
	}
}

// plainText checks what is compared with a claim or a user, and shown in lists.
func (c *checker) plainText(field, text string) {
	if text == "" || len(text) > 256 || hasControl(text) || strings.TrimSpace(text) != text {
		c.fault(field, "%q: wants one to 256 bytes, no control characters, no blank at either end", clip(text))
	}
}

// mailbox is a plain address (RFC 5280 section 4.2.1.6 has no comments or names).
var mailbox = regexp.MustCompile(`^[^@\s]{1,64}@[A-Za-z0-9]([-A-Za-z0-9.]{0,251}[A-Za-z0-9])?$`)

func (c *checker) certificateSubject(field string, s *policyv1.CertificateSubject) {
	given := 0
	for _, name := range []string{s.GetUri(), s.GetDnsName(), s.GetEmail()} {
		if name != "" {
			given++
		}
	}
	switch u, err := url.Parse(s.GetUri()); {
	case given != 1:
		c.fault(field, "wants exactly one of uri, dnsName and email")
	case s.GetUri() != "" && (err != nil || u.Scheme == "" || len(s.GetUri()) > 2048 || hasControl(s.GetUri())):
		c.fault(field+".uri", "%q is not an absolute URI, such as spiffe://example.org/ci", clip(s.GetUri()))
	case s.GetDnsName() != "" && (len(s.GetDnsName()) > 253 || !dnsSubdomain.MatchString(s.GetDnsName())):
		c.fault(field+".dnsName", "%q is not a host name in lower case, without wildcard", clip(s.GetDnsName()))
	case s.GetEmail() != "" && !mailbox.MatchString(s.GetEmail()):
		c.fault(field+".email", "%q is not an email address, such as ops@example.com", clip(s.GetEmail()))
	}
}
