package store

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/watchword-mesh/watchword/controlplane/audit"
)

// newAuditID is the time in nanoseconds, so that IDs sort by time, and four
// characters, so that two of the same moment differ.
func newAuditID(t time.Time) string { return fmt.Sprintf("%016x%s", t.UnixNano(), rand.Text()[:4]) }

const auditTimeDigits = 16

// auditName turns the time of an ID around: the newest has the first name, since
// etcd reads a part of a range without reading the whole only from its front.
func auditName(id string) (string, bool) {
	if len(id) < auditTimeDigits {
		return "", false
	}
	t, err := strconv.ParseInt(id[:auditTimeDigits], 16, 64)
	if err != nil || t < 0 {
		return "", false
	}
	return fmt.Sprintf("%s%016x%s", auditPrefix, math.MaxInt64-t, id[auditTimeDigits:]), true
}

// auditID is the reverse of auditName.
func auditID(name string) string {
	rest := strings.TrimPrefix(name, auditPrefix)
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
	return []clientv3.Op{clientv3.OpPut(s.prefix+name, value)}, nil
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

// AuditQuery says which entries to list.
type AuditQuery struct {
	// Limit is how many at most; 0 is DefaultAuditLimit.
	Limit int
	// Before is the ID of an entry: only older ones. Empty begins with the newest.
	Before string
	// Actor, if not empty, is whose entries alone.
	Actor string
	// Refused asks for refused attempts alone.
	Refused bool
}

// DefaultAuditLimit is how many entries a query without a limit gets.
const DefaultAuditLimit = 100

func (q AuditQuery) matches(e audit.Entry) bool {
	return (q.Actor == "" || e.Actor == q.Actor) && (!q.Refused || e.Outcome == audit.Refused)
}

// ListAudit lists entries, the newest first. It reads as far as it must.
func (s *Store) ListAudit(ctx context.Context, q AuditQuery) ([]audit.Entry, error) {
	from := s.prefix + auditPrefix
	end := clientv3.GetPrefixRangeEnd(from)
	if q.Before != "" {
		name, ok := auditName(q.Before)
		if !ok {
			return nil, fmt.Errorf("%q is not the ID of an audit entry: take it from a list", q.Before)
		}
		from = s.prefix + name + "\x00"
	}
	if q.Limit <= 0 {
		q.Limit = DefaultAuditLimit
	}
	var entries []audit.Entry
	for {
		kvs, more, err := s.page(ctx, from, end, pageSize)
		if err != nil {
			return nil, err
		}
		for _, kv := range kvs {
			if e := s.decodeAudit(kv); q.matches(e) {
				entries = append(entries, e)
			}
			if len(entries) == q.Limit {
				return entries, nil
			}
			from = string(kv.Key) + "\x00"
		}
		if !more {
			return entries, nil
		}
	}
}

// decodeAudit gives an entry that says so for a record that can't be read: one
// bad record must not hide all others, nor itself.
func (s *Store) decodeAudit(kv *mvccpb.KeyValue) audit.Entry {
	var e audit.Entry
	name := strings.TrimPrefix(string(kv.Key), s.prefix)
	err := json.Unmarshal(kv.Value, &e)
	if known, ok := auditName(e.ID); err == nil && (!ok || known != name) {
		err = fmt.Errorf("it says that it is %q", e.ID)
	}
	if err != nil {
		s.log.Error("an audit entry can't be read", "key", string(kv.Key), "revision", kv.ModRevision, "error", err)
		return audit.Entry{ID: auditID(name), Reason: "this entry can't be read: it was damaged, or changed by somebody who writes to etcd", Revision: kv.ModRevision}
	}
	if e.Outcome == audit.Done {
		// What was refused made no revision.
		e.Revision = kv.ModRevision
	}
	return e
}
