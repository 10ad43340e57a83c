package transport

import (
	"crypto/tls"
	"sync"
	"time"
)

// Issued is a certificate that is made in memory and made anew, on demand, when
// half of its life is over.
type Issued struct {
	// Issue makes one, with Leaf set.
	Issue func(now time.Time) (*tls.Certificate, error)
	Now   func() time.Time

	mu      sync.Mutex
	current *tls.Certificate
}

// Certificate is the one in force. If a new one can't be made the last serves on
// until it ends.
func (i *Issued) Certificate() (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := i.Now()
	if c := i.current; c != nil && now.Before(halfLife(c)) {
		return c, nil
	}
	c, err := i.Issue(now)
	if err == nil {
		i.current = c
	} else if i.current != nil && now.Before(i.current.Leaf.NotAfter) {
		return i.current, nil
	}
	return c, err
}

func halfLife(c *tls.Certificate) time.Time {
	return c.Leaf.NotBefore.Add(c.Leaf.NotAfter.Sub(c.Leaf.NotBefore) / 2)
}
