package access

import (
	"cmp"
	"crypto/x509"
	"slices"
	"strconv"
	"strings"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Evidence is what a caller has proved of itself. Whoever gathers it has verified
// all of it: signatures, expiry, revocation.
type Evidence struct {
	// Source is the network address, without port; empty for the admin socket.
	Source string
	// Unix is who is at the other end of the admin socket. It counts only if
	// nothing else is given: who sends a credential there wants to be its owner.
	Unix *UnixUser
	// AdminToken says that the admin token was given.
	AdminToken bool
	// Services are those that a certificate of an enrolled instance, or a token of
	// the built-in issuer for the admin API, was of; more than one only if both
	// were given.
	Services    []string
	Token       *Token
	Certificate *Certificate
}

// UnixUser is the process at the other end of a Unix socket.
type UnixUser struct {
	// Name of the user; empty if it has none.
	Name string
	UID  uint32
	// Owner says that it is root, or whom the control plane runs as: who can read
	// the key-encryption key anyway.
	Owner bool
}

// UnixPeer makes a UnixUser; own is the effective user ID of this process.
func UnixPeer(name string, uid, own uint32) *UnixUser {
	return &UnixUser{Name: name, UID: uid, Owner: uid == 0 || uid == own}
}

// Token is a verified token of an Issuer other than the built-in one.
type Token struct {
	// Issuer is the name of the Issuer whose keys verified it.
	Issuer    string
	Subject   string
	Audiences []string
	Claims    map[string]any
}

// Certificate holds the subject alternative names (RFC 5280 section 4.2.1.6) of a
// verified client certificate of the CA for people and machines.
type Certificate struct {
	URIs, DNSNames, Emails []string
}

// CertificateOf takes the names out of a verified certificate.
func CertificateOf(c *x509.Certificate) *Certificate {
	out := &Certificate{DNSNames: c.DNSNames, Emails: c.EmailAddresses}
	for _, u := range c.URIs {
		out.URIs = append(out.URIs, u.String())
	}
	return out
}

// TokenIssuers are the names of the Issuers whose tokens RoleBindings are about,
// in order: no other's need to be verified.
func TokenIssuers(state policy.State) []string {
	var out []string
	for _, b := range bindings(state) {
		for _, s := range b.GetSubjects() {
			if s.GetToken() != nil {
				out = append(out, s.GetToken().GetIssuer())
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Unproven says why it is not known who calls. It may be shown to the caller.
type Unproven string

// Error implements error.
func (u Unproven) Error() string { return string(u) }

// The reasons why it is not known who calls.
const (
	NoCredential  Unproven = "no credential"
	BadCredential Unproven = "the credential is not valid"
	Disagreement  Unproven = "two credentials of different owners: give one of them"
	WrongAudience Unproven = "the token is for another audience than the admin API"
	NoName        Unproven = "the credential names nobody"
)

// AdminTokenName is the name of the actor with the admin token.
const AdminTokenName = "admin-token"

// Resolve names the actor and finds its roles. The error is Unproven. Who is
// known and has no role is no error.
func Resolve(state policy.State, ev Evidence) (Actor, error) {
	names, err := ev.names(state)
	if err != nil {
		return Actor{Source: ev.Source}, err
	}
	switch {
	case len(names) > 1:
		return Actor{Source: ev.Source}, Disagreement
	case len(names) == 0 && ev.Unix == nil:
		return Actor{Source: ev.Source}, NoCredential
	case len(names) == 0:
		names = []string{"unix:" + cmp.Or(ev.Unix.Name, strconv.FormatUint(uint64(ev.Unix.UID), 10))}
	}
	return Actor{Name: names[0], Source: ev.Source, Roles: ev.roles(state), evidence: &ev}, nil
}

// names are those that the credentials give, each once.
func (ev *Evidence) names(state policy.State) ([]string, error) {
	var names []string
	if ev.AdminToken {
		names = append(names, AdminTokenName)
	}
	for _, s := range ev.Services {
		names = append(names, "service:"+s)
	}
	if t := ev.Token; t != nil {
		if !nameable(t.Subject) || t.Issuer == "" {
			return nil, NoName
		}
		if !t.admitted(state) {
			return nil, WrongAudience
		}
		names = append(names, "token:"+t.Issuer+"/"+t.Subject)
	}
	if c := ev.Certificate; c != nil {
		name := c.name()
		if name == "" {
			return nil, NoName
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// explicit says whether a credential was given, rather than only a socket used.
func (ev *Evidence) explicit() bool {
	return ev.AdminToken || len(ev.Services) > 0 || ev.Token != nil || ev.Certificate != nil
}

// nameable says whether a text can stand in lists and logs as a name.
func nameable(text string) bool {
	return text != "" && len(text) <= 512 && !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// name is the first that the certificate has, as it has no other order of worth.
func (c *Certificate) name() string {
	for _, list := range []struct {
		prefix string
		names  []string
	}{{"uri:", c.URIs}, {"dns:", c.DNSNames}, {"email:", c.Emails}} {
		if len(list.names) > 0 && nameable(list.names[0]) {
			return "certificate:" + list.prefix + list.names[0]
		}
	}
	return ""
}

// admitted says whether some RoleBinding takes tokens of the issuer for one of
// the audiences: others were made for somebody else, who may have sent it on.
func (t *Token) admitted(state policy.State) bool {
	for _, name := range state.RoleBindings() {
		for _, s := range state.RoleBinding(name).GetSubjects() {
			if s.GetToken() != nil && t.isFor(s.GetToken()) {
				return true
			}
		}
	}
	return false
}

func (t *Token) isFor(s *policyv1.TokenSubject) bool {
	audiences := s.GetAudiences()
	if len(audiences) == 0 {
		audiences = []string{policy.AdminAudience}
	}
	return s.GetIssuer() == t.Issuer && slices.ContainsFunc(t.Audiences, func(a string) bool { return slices.Contains(audiences, a) })
}
