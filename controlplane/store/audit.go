package store

import (
	"context"
	"crypto/rand"
	"fmt"
	"math"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/watchword-mesh/watchword/controlplane/audit"
)

// newAuditID is the time in nanoseconds, so that IDs sort by time, and four
// characters, so that two of the same moment differ.
func newAuditID(t time.Time) string { return fmt.Sprintf("%016x%s", t.UnixNano(), rand.Text()[:4]) }

const auditTimeDigits = 16

// auditName, without its prefix, turns the time of an ID around: the newest has the first name, since
// etcd reads a part of a range without reading the whole only from its front.
func auditName(id string) (string, bool) {
	if len(id) < auditTimeDigits {
		return "", false
	}
	t, err := strconv.ParseInt(id[:auditTimeDigits], 16, 64)
	if err != nil || t < 0 {
		return "", false
	}
	return fmt.Sprintf("%016x%s", math.MaxInt64-t, id[auditTimeDigits:]), true
}

// auditEnd is behind all names.
const auditEnd = "g"

// auditID is the reverse of auditName.
func auditID(rest string) string {
	if len(rest) < auditTimeDigits {
		return ""
	}
	t, _ := strconv.ParseInt(rest[:auditTimeDigits], 16, 64)
	return fmt.Sprintf("%016x%s", math.MaxInt64-t, rest[auditTimeDigits:])
}

// auditOps are the operations that store an entry: none for one without a
// method, which is that of a write by nobody.
func (s *Store) auditOps(e audit.Entry) ([]clientv3.Op, error) {
	if e.Method == "" {
		return nil, nil
	}
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	e.Time = e.Time.UTC()
	if e.Outcome == "" {
		e.Outcome = audit.Done
	}
	// Always a new one: an entry that stands for several transactions is stored
	// with each.
	e.ID = newAuditID(e.Time)
	name, ok := auditName(e.ID)
	if !ok {
		return nil, fmt.Errorf("an audit entry can't be of the time %s", e.Time)
	}
	value, err := encodeJSON(bounded(e))
	if err != nil {
		return nil, err
	}
	prefix := auditPrefix
	if e.Outcome == audit.Refused {
		prefix = refusedPrefix
	}
	return []clientv3.Op{clientv3.OpPut(s.prefix+prefix+name, value)}, nil
}

// maxAuditSubjects is more than one transaction changes.
const maxAuditSubjects = 200

// bounded is an entry that fits beside the largest change.
func bounded(e audit.Entry) audit.Entry {
	for _, text := range []*string{&e.Actor, &e.Source, &e.Method, &e.Reason} {
		*text = clip(*text)
	}
	var subjects []string
	for n, subject := range e.Subjects {
		if n == maxAuditSubjects {
			subjects = append(subjects, fmt.Sprintf("and %d more", len(e.Subjects)-n))
			break
		}
		subjects = append(subjects, clip(subject))
	}
	e.Subjects = subjects
	return e
}

// Record stores an entry that no other write carries, such as of an attempt that
// was refused.
func (s *Store) Record(ctx context.Context, e audit.Entry) error {
	if e.Method == "" {
		return fmt.Errorf("an audit entry needs a method")
	}
	_, err := s.write(ctx, e, nil)
	return err
}
