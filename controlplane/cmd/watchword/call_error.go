package main

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// explain turns the status of a call into words and an exit code. Errors that
// have both already stay as they are.
func (o *options) explain(err error) error {
	var f *failure
	var usage usageError
	if err == nil || errors.As(err, &f) || errors.As(err, &usage) {
		return err
	}
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	message := errors.New(oneLine(plainWords(s.Message())))
	switch s.Code() {
	case codes.InvalidArgument:
		return refusal(s, message)
	case codes.ResourceExhausted:
		return &failure{code: exitRefused, err: message, hint: "if it is too large, apply fewer documents at once"}
	case codes.FailedPrecondition, codes.Aborted, codes.AlreadyExists:
		return &failure{code: exitConflict, err: message, hint: conflictHint(s.Message())}
	case codes.Unavailable:
		return o.notReachable(s.Message())
	case codes.DeadlineExceeded:
		return &failure{code: exitUnreachable, err: fmt.Errorf("no answer from %s in %s", o.address(), o.timeout),
			hint: "see the log of `watchword serve`, or allow more time with --timeout"}
	case codes.Unauthenticated:
		return o.notKnown(message)
	case codes.PermissionDenied:
		return &failure{code: exitDenied, err: message,
			hint: "`watchword whoami` shows who you are to the control plane, and your roles; docs/roles.md says which role each call needs, and how a SECURITY_OFFICER gives it"}
	case codes.Unimplemented:
		return &failure{code: exitFailed, err: fmt.Errorf("%s does not know this call: %w", o.address(), message),
			hint: "it is another version (this is watchword " + buildVersion().Version + "), or another port of the control plane: that of the admin API is 7400 by default"}
	case codes.Canceled:
		return &failure{code: exitFailed, err: errors.New("interrupted")}
	}
	return &failure{code: exitFailed, err: message}
}

// refusal lists the faults of an INVALID_ARGUMENT, one a line.
func refusal(s *status.Status, message error) error {
	for _, detail := range s.Details() {
		if faults, ok := detail.(*adminv1.Faults); ok && len(faults.GetFaults()) > 0 {
			return faultList(faults.GetFaults())
		}
	}
	return &failure{code: exitRefused, err: message}
}

func faultList(faults []*adminv1.Fault) error {
	f := &failure{code: exitRefused, err: fmt.Errorf("%s; nothing was changed", count(len(faults), "fault"))}
	for _, fault := range faults {
		f.lines = append(f.lines, faultLine(fault))
	}
	return f
}

// faultLine is file:line: Kind/name: field: message, without what is unknown.
func faultLine(f *adminv1.Fault) string {
	var parts []string
	place := f.GetSource()
	if place != "" && f.GetLine() > 0 {
		place = fmt.Sprintf("%s:%d", place, f.GetLine())
	}
	for _, part := range []string{place, f.GetResource(), f.GetField(), f.GetMessage()} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ": ")
}

// conflictHint is the way out of an old revision; other conflicts say theirs
// themselves.
func conflictHint(message string) string {
	if strings.Contains(message, "revision") {
		return "read it again with `watchword get KIND NAME -o yaml`; without metadata.revision the last writer wins"
	}
	return ""
}

// count is "1 fault" or "2 faults".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
