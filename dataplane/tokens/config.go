package tokens

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
)

// Defaults of a Config.
const (
	DefaultMaxAge       = time.Hour
	DefaultMaxAudiences = 256
)

// Config says who asks which STS.
type Config struct {
	// TokenURL is the token endpoint (RFC 6749 section 3.2). Empty: the one in the
	// metadata of Issuer (RFC 8414), which are read when it is needed first, and
	// again after it has failed.
	TokenURL string
	// Issuer is the `iss` of the STS; not used if there is a TokenURL.
	Issuer string
	// Assertion makes the client assertion (RFC 7523 section 2.2) of one request,
	// such as enrolment.Identity.Assertion. It is called concurrently.
	Assertion func(now time.Time) (string, error)
	// Authorities are CAs that the STS may have its certificate from, besides those
	// of the system; asked for each connection. Its host name counts in any case.
	// nil: those of the system alone. Not used if there is an HTTPClient.
	Authorities func() []*x509.Certificate
	// HTTPClient makes the requests, without following redirects. nil: one with
	// Authorities and without a proxy.
	HTTPClient *http.Client
	// MaxAge is how long a token is used at most, whatever the STS says; 0 means
	// DefaultMaxAge.
	MaxAge time.Duration
	// MaxAudiences is how many there may be at the same time; 0 means
	// DefaultMaxAudiences.
	MaxAudiences int
	// Logger: nil means none.
	Logger hclog.Logger
	// Registerer takes the metrics; nil means that they are not published.
	Registerer prometheus.Registerer
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

func (c Config) withDefaults() Config {
	if c.MaxAge <= 0 {
		c.MaxAge = DefaultMaxAge
	}
	if c.MaxAudiences <= 0 {
		c.MaxAudiences = DefaultMaxAudiences
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

func (c Config) check() error {
	if c.Assertion == nil {
		return errors.New("token source: there is no Assertion, so the STS would not know who asks")
	}
	if c.TokenURL != "" {
		return checkURL("TokenURL", c.TokenURL)
	}
	if c.Issuer == "" {
		return errors.New("token source: there is neither TokenURL nor Issuer")
	}
	return checkURL("Issuer", c.Issuer)
}

// checkURL refuses where an assertion or a token could be read on the way. The
// text is not shown if it is no URL: it may be anything.
func checkURL(what, text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("token source: %s is not a URL of a host without user, query and fragment", what)
	case u.Scheme == "https", u.Scheme == "http" && loopback(u.Hostname()):
		return nil
	}
	return fmt.Errorf("token source: %s is %s: it must be https, or http of a loopback address, else tokens could be read on the way", what, u)
}
