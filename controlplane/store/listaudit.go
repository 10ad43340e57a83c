package store

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/watchword-mesh/watchword/controlplane/audit"
)

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

// maxAuditRead bounds the entries that one query looks at, however few match.
const maxAuditRead = 10 * pageSize

// ListAudit lists entries, the newest first. It may return fewer than the limit, or
// none, although there are more: next, if not empty, is the Before that goes on. A
// Before that is none is audit.ErrNoID.
func (s *Store) ListAudit(ctx context.Context, q AuditQuery) (entries []audit.Entry, next string, err error) {
	walk, err := s.walkAudit(q)
	if err != nil {
		return nil, "", err
	}
	if q.Limit <= 0 {
		q.Limit = DefaultAuditLimit
	}
	last := ""
	for looked := 0; ; looked++ {
		name, kv, err := walk.next(ctx)
		switch {
		case err != nil:
			return nil, "", err
		case kv == nil:
			return entries, "", nil
		case looked == maxAuditRead || len(entries) == q.Limit:
			return entries, auditID(last), nil
		}
		last = name
		if e := s.decodeAudit(name, kv); q.Actor == "" || e.Actor == q.Actor {
			entries = append(entries, e)
		}
	}
}

// auditWalk goes through what was done and what was refused, together in the order
// of time.
type auditWalk []*auditCursor

// auditCursor is the place in one of them.
type auditCursor struct {
	store             *Store
	prefix, from, end string
	page              []*mvccpb.KeyValue
	more              bool
}

func (s *Store) walkAudit(q AuditQuery) (auditWalk, error) {
	from := ""
	if q.Before != "" {
		name, ok := auditName(q.Before)
		if !ok {
			return nil, fmt.Errorf("%q: %w", q.Before, audit.ErrNoID)
		}
		from = name + "\x00"
	}
	prefixes := []string{auditPrefix, refusedPrefix}
	if q.Refused {
		prefixes = prefixes[1:]
	}
	var walk auditWalk
	for _, p := range prefixes {
		walk = append(walk, &auditCursor{store: s, prefix: s.prefix + p, from: s.prefix + p + from, end: s.prefix + p + auditEnd, more: true})
	}
	return walk, nil
}

// next is the newest that is left; nil is the end.
func (w auditWalk) next(ctx context.Context) (name string, kv *mvccpb.KeyValue, err error) {
	var of *auditCursor
	for _, c := range w {
		if err := c.fill(ctx); err != nil {
			return "", nil, err
		}
		if len(c.page) > 0 && (of == nil || c.name() < name) {
			of, name = c, c.name()
		}
	}
	if of == nil {
		return "", nil, nil
	}
	kv, of.page = of.page[0], of.page[1:]
	return name, kv, nil
}

func (c *auditCursor) name() string { return strings.TrimPrefix(string(c.page[0].Key), c.prefix) }

func (c *auditCursor) fill(ctx context.Context) (err error) {
	if len(c.page) > 0 || !c.more {
		return nil
	}
	c.page, c.more, err = c.store.page(ctx, c.from, c.end, pageSize)
	if n := len(c.page); n > 0 {
		c.from = string(c.page[n-1].Key) + "\x00"
	}
	return err
}

// decodeAudit gives an entry that says so for a record that can't be read: one
// bad record must not hide all others, nor itself.
func (s *Store) decodeAudit(name string, kv *mvccpb.KeyValue) audit.Entry {
	var e audit.Entry
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
