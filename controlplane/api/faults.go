package api

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// mostFaults is how many faults one answer lists.
const mostFaults = 200

// faultStatus carries every fault as a detail, and the first in the message
// for clients that look no further.
func faultStatus(faults []policy.Fault) error {
	slices.SortStableFunc(faults, func(a, b policy.Fault) int {
		if c := strings.Compare(a.Source, b.Source); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
	detail := &adminv1.Faults{}
	for _, f := range faults[:min(len(faults), mostFaults)] {
		detail.Faults = append(detail.Faults, faultProto(f))
	}
	text := "nothing was changed: " + faultText(detail.Faults[0])
	if len(faults) > 1 {
		text = fmt.Sprintf("%d faults, nothing was changed; the first: %s", len(faults), faultText(detail.Faults[0]))
	}
	st := status.New(codes.InvalidArgument, text)
	with, err := st.WithDetails(detail)
	if err != nil {
		return st.Err()
	}
	return with.Err()
}

func faultProto(f policy.Fault) *adminv1.Fault {
	out := &adminv1.Fault{Source: f.Source, Line: int32(f.Line), Field: f.Field, Message: f.Message}
	if f.Key.Name != "" {
		out.Resource = f.Key.String()
	}
	return out
}

func faultText(f *adminv1.Fault) string {
	var parts []string
	if f.GetLine() > 0 {
		parts = append(parts, fmt.Sprintf("%s:%d", f.GetSource(), f.GetLine()))
	} else if f.GetSource() != "" {
		parts = append(parts, f.GetSource())
	}
	for _, p := range []string{f.GetResource(), f.GetField(), f.GetMessage()} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	return strings.Join(parts, ": ")
}
