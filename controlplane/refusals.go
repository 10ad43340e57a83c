package controlplane

import (
	"math"
	"sync"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/watchword-mesh/watchword/controlplane/accesslog"
	"github.com/watchword-mesh/watchword/controlplane/envoy"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// refusals implements api.Refusals over what data planes have reported.
type refusals struct {
	log *accesslog.Server
}

func (r refusals) List(service string) *adminv1.ListRefusalsResponse {
	report := r.log.Report(service)
	resp := &adminv1.ListRefusalsResponse{Since: timestamppb.New(report.Since)}
	for _, c := range report.Counts {
		resp.Counts = append(resp.Counts, &adminv1.RefusalCount{
			Service:     c.Service,
			Caller:      callerProto(c.Caller),
			Reason:      string(c.Reason),
			Enforcement: enforcementProto(c.Observed),
			Count:       int64(min(c.Count, math.MaxInt64)),
			LastSeen:    timestamppb.New(c.Last),
		})
	}
	for _, f := range report.Sample {
		resp.Sample = append(resp.Sample, &adminv1.Refusal{
			Time:        timestamppb.New(f.Time),
			Service:     f.Service,
			Node:        f.Node,
			Peer:        f.Peer,
			Route:       f.Route,
			Method:      f.Method,
			Path:        f.Path,
			Status:      int32(f.Status),
			Caller:      callerProto(f.Caller),
			Reason:      string(f.Reason),
			Rule:        f.Rule,
			Enforcement: enforcementProto(f.Observed),
		})
	}
	return resp
}

// callerProto is nil for nobody that is known.
func callerProto(c accesslog.Caller) *adminv1.Refusal_Caller {
	if c == (accesslog.Caller{}) {
		return nil
	}
	return &adminv1.Refusal_Caller{Consumer: c.Consumer, Issuer: c.Issuer, Subject: c.Subject, Other: c.Other}
}

func enforcementProto(observed bool) adminv1.Refusal_Enforcement {
	if observed {
		return adminv1.Refusal_OBSERVED
	}
	return adminv1.Refusal_ENFORCED
}

// hasService says whether there is a service of that name.
func (l *loop) hasService(name string) bool {
	s := l.current.Load()
	return s != nil && s.Config.Service(name) != nil
}

// forgetRefusals forgets those of services that are gone. It must come after
// hasService says so, or what is reported meanwhile would stay for good.
func (l *loop) forgetRefusals(state policy.State, services []string) {
	if l.refusals == nil {
		return
	}
	for _, name := range services {
		if state.Service(name) == nil {
			l.refusals.Forget(name)
		}
	}
}

// routeNames are the names of the routes of each service, as last published.
type routeNames struct {
	services sync.Map // service -> []string
}

// set replaces those of a service; none forgets it.
func (n *routeNames) set(service string, routes []*dataplanev1.Route) {
	if len(routes) == 0 {
		n.services.Delete(service)
		return
	}
	names := make([]string, len(routes))
	for i, r := range routes {
		names[i] = r.GetName()
	}
	n.services.Store(service, names)
}

// name finds a route by the id that Envoys know it by.
func (n *routeNames) name(service, id string) (string, bool) {
	names, _ := n.services.Load(service)
	list, _ := names.([]string)
	if i, ok := envoy.RouteIndex(id); ok && i < len(list) {
		return list[i], true
	}
	return "", false
}
