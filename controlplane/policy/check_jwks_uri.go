package policy

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/netip"
	"net/url"
	"strings"
	"time"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Bounds of a JwksUri.
const (
	leastInterval, mostInterval = 10 * time.Second, 7 * 24 * time.Hour
	leastTimeout, mostTimeout   = time.Second, time.Minute
	mostURI                     = 2048 // bytes
)

func (c *checker) jwksURI(field string, u *policyv1.JwksUri) {
	if u == nil {
		return
	}
	c.fetchURI(field+".uri", u.GetUri(), len(u.GetAllowNetworks()) > 0)
	c.seconds(field+".interval", u.GetInterval(), leastInterval, mostInterval)
	c.seconds(field+".timeout", u.GetTimeout(), leastTimeout, mostTimeout)
	if u.GetCa() != "" {
		c.certificates(field+".ca", u.GetCa())
	}
	c.clientCertificate(field, u)
	c.proxy(field+".proxy", u.GetProxy())
	for i, network := range u.GetAllowNetworks() {
		c.network(index(field+".allowNetworks", i), network)
		c.once(field+".allowNetworks", u.GetAllowNetworks(), i)
	}
}

// fetchURI checks where a key set is. It shows nothing of a URI with a
// password.
func (c *checker) fetchURI(field, uri string, private bool) {
	u, err := url.Parse(uri)
	switch {
	case uri == "":
		c.fault(field, "is missing: the https URI of a JWK set")
	case err != nil || u.Hostname() == "" || u.Opaque != "" || len(uri) > mostURI || !portOf(u):
		c.fault(field, "is not a URI such as https://idp.example.com/jwks.json")
	case u.User != nil:
		c.fault(field, "has a user name or password, which would be stored and shown; use clientCertificate and clientKey")
	case u.Scheme == "http" && !private:
		c.fault(field, "%q: http can be changed on its way; use https, or name the network that it stays in under allowNetworks", clip(uri))
	case u.Scheme != "https" && u.Scheme != "http":
		c.fault(field, "%q: the scheme must be https", clip(uri))
	case u.Fragment != "":
		c.fault(field, "%q: a fragment (#...) is not sent; leave it out", clip(uri))
	}
}

// portOf says whether a URL has a port that can be, or none.
func portOf(u *url.URL) bool {
	if u.Port() == "" {
		return true
	}
	_, err := netip.ParseAddrPort("0.0.0.0:" + u.Port())
	return err == nil && u.Port() != "0"
}

// certificates checks PEM text that has certificates and nothing else.
func (c *checker) certificates(field, text string) {
	rest := []byte(strings.TrimSpace(text))
	for len(rest) > 0 {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil || block.Type != "CERTIFICATE" {
			c.fault(field, "wants certificates in PEM, blocks of -----BEGIN CERTIFICATE----- and nothing else")
			return
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			c.fault(field, "holds a certificate that can't be read: %v", err)
			return
		}
		rest = []byte(strings.TrimSpace(string(rest)))
	}
}

func (c *checker) clientCertificate(field string, u *policyv1.JwksUri) {
	cert, key := u.GetClientCertificate(), u.GetClientKey()
	switch {
	case cert == "" && key == "":
	case strings.Contains(key, Redacted):
		c.add([]Fault{redacted(field + ".clientKey")})
	case cert == "":
		c.fault(field+".clientCertificate", "is missing: clientKey is of no use without it")
	case key == "":
		c.fault(field+".clientKey", "is missing: clientCertificate is of no use without it")
	case strings.Contains(cert, "PRIVATE KEY-----"):
		c.fault(field+".clientCertificate", "holds a private key, which would be shown; it belongs into clientKey")
	default:
		if _, err := tls.X509KeyPair([]byte(cert), []byte(key)); err != nil {
			c.fault(field+".clientCertificate", "can't be used with clientKey: %s", strings.TrimPrefix(err.Error(), "tls: "))
		}
	}
}

func (c *checker) proxy(field, proxy string) {
	if proxy == "" {
		return
	}
	u, err := url.Parse(proxy)
	switch {
	case err == nil && u.User != nil:
		c.fault(field, "has a user name or password, which would be stored and shown; leave them out")
	case err != nil || u.Scheme != "http" || u.Hostname() == "" || u.Port() == "" || !portOf(u) || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		c.fault(field, "is not a proxy: http://HOST:PORT")
	}
}

func (c *checker) network(field, network string) {
	p, err := netip.ParsePrefix(network)
	switch {
	case err != nil:
		c.fault(field, "%q is not a network such as 10.0.0.0/8 or fd00::/8", clip(network))
	case p != p.Masked():
		c.fault(field, "%q has bits beyond its length; did you mean %q?", clip(network), p.Masked())
	}
}
