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
	message := errors.New(oneLine(s.Message()))
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
		return &failure{code: exitUnreachable, err: fmt.Errorf("%s refused the admin token: %w", o.address(), message),
			hint: "use the token of that control plane: --data-dir names its folder, --token-file the file"}
	case codes.PermissionDenied:
		return &failure{code: exitUnreachable, err: message, hint: "a SECURITY_OFFICER gives roles, by RoleBindings"}
	case codes.Unimplemented:
		return &failure{code: exitFailed, err: fmt.Errorf("%s does not know this call: %w", o.address(), message),
			hint: "it is another version; this is watchword " + buildVersion().Version}
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

// notReachable says what was tried, and how to have it there.
func (o *options) notReachable(message string) error {
	// gRPC puts its own layers before the cause.
	_, cause, dialing := strings.Cut(message, "Error while dialing: ")
	if dialing {
		message = strings.TrimSuffix(cause, `"`)
	} else if !strings.Contains(message, "error reading from server") && !strings.Contains(message, "connection error") {
		// It answered: what it needs itself is not there.
		return &failure{code: exitUnreachable, err: fmt.Errorf("the control plane at %s can't do this now: %s", o.address(), oneLine(message)),
			hint: "try again; the log of `watchword serve` may say more"}
	}
	f := &failure{code: exitUnreachable, err: fmt.Errorf("control plane not reachable at %s: %s", o.address(), oneLine(message))}
	switch {
	case strings.HasPrefix(o.address(), "unix:") && len(o.address()) > len("unix:")+100:
		f.hint = "the path of a Unix socket can't have more than about 100 bytes: use a shorter --data-dir, or --server HOST:PORT"
	case o.server != "":
		f.hint = "is `watchword serve` running there? --server or WATCHWORD_SERVER names another place"
	default:
		f.hint = fmt.Sprintf("is `watchword serve` running? start it with --data-dir %s, or name its folder with --data-dir or its address with --server", o.dataDir)
	}
	return f
}

// count is "1 fault" or "2 faults".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
