package kong

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// change is what a write would store, and what it then answers.
type change struct {
	put    []*policyv1.Resource
	remove []policy.Key
	// credential is the index of the one that is written, in put[0]; -1 for none.
	credential int
	answer     answer
}

// carryOut plans against the current state and stores, again if the state has
// changed meanwhile. What is stored already is handed over all the same: who may
// not write must not learn by the answer whether a secret is the stored one.
func (c *call) carryOut(plan func(*directory) (change, *problem)) (answer, *problem) {
	select {
	case c.writing <- struct{}{}:
		defer func() { <-c.writing }()
	case <-c.ctx.Done():
		return answer{}, said(http.StatusServiceUnavailable, "the request was given up while others were writing")
	}
	for try := 1; ; try++ {
		d := c.directory()
		todo, p := plan(d)
		if p != nil {
			return answer{}, p
		}
		if len(todo.put)+len(todo.remove) == 0 {
			return todo.answer, nil
		}
		_, err := c.Resources.Change(c.ctx, c.method, todo.put, todo.remove)
		if err == nil {
			return todo.answer, nil
		}
		switch status.Code(err) {
		case codes.Aborted, codes.FailedPrecondition, codes.NotFound: // changed or gone meanwhile
			if try < attempts {
				continue
			}
		}
		return answer{}, c.refused(err, todo)
	}
}

// refused is Kong's answer for the error of a change.
func (c *call) refused(err error, todo change) *problem {
	st := status.Convert(err)
	switch st.Code() {
	case codes.InvalidArgument:
		return todo.faults(st)
	case codes.PermissionDenied:
		return said(http.StatusForbidden, "%s", st.Message())
	case codes.Unauthenticated:
		return said(http.StatusUnauthorized, "%s", st.Message())
	case codes.Aborted, codes.FailedPrecondition, codes.NotFound:
		return said(http.StatusConflict, "%s", st.Message())
	case codes.ResourceExhausted:
		return said(http.StatusTooManyRequests, "%s", st.Message())
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded:
		// Where a made secret can't be told any more, the credential is of no use.
		return said(http.StatusServiceUnavailable, "%s; look whether it was stored before you try again", st.Message())
	}
	c.Logger.Error("a change by Kong's admin API failed", "method", c.method, "error", st.Message())
	return said(http.StatusInternalServerError, "An unexpected error occurred")
}

// faults tells what the checks of resources have found, at the fields of Kong
// that it comes from.
func (t change) faults(st *status.Status) *problem {
	written := map[string]bool{}
	for _, r := range t.put {
		written[policy.KeyOf(r).String()] = true
	}
	var own violations
	var others []*adminv1.Fault
	for _, detail := range st.Details() {
		list, _ := detail.(*adminv1.Faults)
		for _, f := range list.GetFaults() {
			if !written[f.GetResource()] {
				others = append(others, f)
			} else if field := t.field(f); field != "" {
				own.add(field, "%s", f.GetMessage())
			} else {
				own.addEntity("%s: %s", f.GetField(), f.GetMessage())
			}
		}
	}
	if p := own.problem(); p != nil {
		return p
	}
	if len(others) > 0 {
		f := others[0]
		return &problem{http.StatusBadRequest, fault{foreignKeyViolation, "foreign key violation",
			fmt.Sprintf("an existing '%s' refers to this: %s: %s", f.GetResource(), f.GetField(), f.GetMessage()), map[string]any{"@referenced_by": f.GetResource()}}}
	}
	return said(http.StatusBadRequest, "%s", st.Message())
}

// field is the field of Kong that a field of a Consumer comes from; empty if it
// has none, or is another credential's.
func (t change) field(f *adminv1.Fault) string {
	rest, inside := strings.CutPrefix(f.GetField(), "spec.")
	if !inside || f.GetResource() != policy.KeyOf(t.put[0]).String() {
		return ""
	}
	if t.credential < 0 {
		return consumerFields[firstName(rest)]
	}
	rest, inside = strings.CutPrefix(rest, "credentials["+strconv.Itoa(t.credential)+"].")
	if !inside {
		return ""
	}
	switch {
	case strings.HasPrefix(rest, "keySet.secret"):
		return "secret"
	case strings.HasPrefix(rest, "keySet.pem"):
		return "rsa_public_key"
	}
	return credentialFields[firstName(rest)]
}

// Fields of ours that are fields of Kong.
var (
	consumerFields   = map[string]string{"username": "username", "customId": "custom_id", "id": "id", "tags": "tags", "createdAt": "created_at"}
	credentialFields = map[string]string{"key": "key", "id": "id", "algorithm": "algorithm", "tags": "tags", "createdAt": "created_at"}
)

// firstName is the first name of a field such as tags[1].
func firstName(field string) string {
	if i := strings.IndexAny(field, ".["); i >= 0 {
		return field[:i]
	}
	return field
}
