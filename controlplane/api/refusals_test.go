package api

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// reported is a Refusals with one of each enforcement, but none of quiet and nope.
type reported struct{}

func (reported) List(service string) *adminv1.ListRefusalsResponse {
	resp := new(adminv1.ListRefusalsResponse)
	if service == "quiet" || service == "nope" {
		return resp
	}
	for _, e := range []adminv1.Refusal_Enforcement{adminv1.Refusal_ENFORCED, adminv1.Refusal_OBSERVED} {
		resp.Counts = append(resp.Counts, &adminv1.RefusalCount{Service: service, Enforcement: e})
		resp.Sample = append(resp.Sample, &adminv1.Refusal{Service: service, Enforcement: e})
	}
	return resp
}

// ListRefusals selects by service and enforcement, and has a sample if asked.
func TestListRefusals(t *testing.T) {
	s, _ := open(t, serviceYAML("quiet", "x"))
	s.Refusals = reported{}
	for _, tt := range []struct {
		req  *adminv1.ListRefusalsRequest
		want string
	}{
		{&adminv1.ListRefusalsRequest{}, "counts [/ENFORCED /OBSERVED], sample []"},
		{&adminv1.ListRefusalsRequest{Service: "a", Sample: true}, "counts [a/ENFORCED a/OBSERVED], sample [a/ENFORCED a/OBSERVED]"},
		{&adminv1.ListRefusalsRequest{Service: "a", Sample: true, Enforcement: adminv1.Refusal_OBSERVED}, "counts [a/OBSERVED], sample [a/OBSERVED]"},
		{&adminv1.ListRefusalsRequest{Enforcement: adminv1.Refusal_ENFORCED}, "counts [/ENFORCED], sample []"},
		{&adminv1.ListRefusalsRequest{Service: "quiet", Sample: true}, "counts [], sample []"},
		{&adminv1.ListRefusalsRequest{Service: "a", Enforcement: 7}, "counts [], sample []"}, // counted, though of no such Service
		{&adminv1.ListRefusalsRequest{Enforcement: 7}, "counts [], sample []"},
	} {
		resp, err := s.ListRefusals(root(), tt.req)
		if err != nil {
			t.Errorf("ListRefusals(%v): %v", tt.req, err)
			continue
		}
		counts, sample := []string{}, []string{}
		for _, c := range resp.GetCounts() {
			counts = append(counts, c.GetService()+"/"+c.GetEnforcement().String())
		}
		for _, r := range resp.GetSample() {
			sample = append(sample, r.GetService()+"/"+r.GetEnforcement().String())
		}
		if got := fmt.Sprintf("counts %v, sample %v", counts, sample); got != tt.want {
			t.Errorf("ListRefusals(%v) = %s, want %s", tt.req, got, tt.want)
		}
	}
	resp, err := s.ListRefusals(root(), &adminv1.ListRefusalsRequest{Service: "nope"})
	if status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), `there is no Service "nope"`) {
		t.Errorf("ListRefusals(nope) = %v, %v, want NotFound", resp, err)
	}
}
