package tokens

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"

	"golang.org/x/sync/singleflight"
)

const wellKnown = "/.well-known/oauth-authorization-server"

// discovery finds the token endpoint of an issuer (RFC 8414).
type discovery struct {
	issuer string
	fetch  func(ctx context.Context, from string) ([]byte, error)
	group  singleflight.Group

	mu    sync.Mutex
	known string
}

// tokenURL is the one that was found before, or reads the document.
func (d *discovery) tokenURL(ctx context.Context) (string, error) {
	d.mu.Lock()
	known := d.known
	d.mu.Unlock()
	if known != "" {
		return known, nil
	}
	found, err, _ := d.group.Do("", func() (any, error) { return d.read(ctx) })
	if err != nil {
		return "", fmt.Errorf("reading the metadata of issuer %s: %w", d.issuer, err)
	}
	return found.(string), nil
}

// forget makes the next request read the document: the endpoint may have moved.
func (d *discovery) forget() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known = ""
}

func (d *discovery) read(ctx context.Context) (string, error) {
	from, err := metadataURL(d.issuer)
	if err != nil {
		return "", err
	}
	body, err := d.fetch(ctx, from)
	if err != nil {
		return "", err
	}
	found, err := parseMetadata(body, d.issuer)
	if err != nil {
		return "", err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known = found
	return found, nil
}

// metadataURL puts the well-known part between host and path (RFC 8414 section 3.1).
func metadataURL(issuer string) (string, error) {
	u, err := url.Parse(issuer)
	if err != nil {
		return "", errors.New("it is not a URL")
	}
	path := strings.TrimSuffix(u.EscapedPath(), "/")
	return u.Scheme + "://" + u.Host + wellKnown + path, nil
}

// parseMetadata gives the token endpoint. Another issuer than was asked for is
// refused (RFC 8414 section 3.3).
func parseMetadata(body []byte, issuer string) (string, error) {
	m, err := members(body)
	if err != nil {
		return "", err
	}
	if got, ok := text(m["issuer"]); !ok || got != issuer {
		return "", errors.New("they are of another issuer")
	}
	found, ok := text(m["token_endpoint"])
	if !ok {
		return "", errors.New("they have no token_endpoint")
	}
	return found, checkURL("token_endpoint", found)
}
