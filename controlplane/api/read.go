package api

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/watchword-mesh/watchword/controlplane/access"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// kindOf finds a kind whatever the case of its letters; an unknown one stays.
func kindOf(name string) policy.Kind {
	i := slices.IndexFunc(policy.Kinds, func(k policy.Kind) bool { return strings.EqualFold(string(k), name) })
	if i < 0 {
		return policy.Kind(name)
	}
	return policy.Kinds[i]
}

// List implements adminv1.AdminServiceServer.
func (s *Server) List(ctx context.Context, req *adminv1.ListRequest) (*adminv1.ListResponse, error) {
	if err := s.meets(ctx, adminv1.AdminService_List_FullMethodName); err != nil {
		return nil, err
	}
	kind := kindOf(req.GetKind())
	if kind != "" && !slices.Contains(policy.Kinds, kind) {
		return nil, status.Errorf(codes.InvalidArgument, "unknown kind %q; the kinds are %s", req.GetKind(), policy.KindNames())
	}
	state, revision := s.Configuration.Current()
	resp := &adminv1.ListResponse{Revision: revision}
	actor := access.From(ctx)
	for _, k := range state.Keys() {
		if actor.SeesResource(state[k]) && (kind == "" || k.Kind == kind) && (req.GetName() == "" || k.Name == req.GetName()) {
			item := policy.Manifest(state[k])
			if err := s.addStatus(item, k); err != nil {
				return nil, status.Error(codes.Internal, err.Error())
			}
			resp.Items = append(resp.Items, item)
		}
	}
	if req.GetName() != "" && len(resp.Items) == 0 {
		return nil, status.Errorf(codes.NotFound, "there is no %s %q", kind, req.GetName())
	}
	return resp, nil
}

// addStatus adds the member `status` to a manifest that has one: what the
// control plane found, which apply takes and ignores.
func (s *Server) addStatus(item *structpb.Struct, k policy.Key) error {
	if k.Kind != policy.KindIssuer || s.KeySets == nil {
		return nil
	}
	found := s.KeySets.Status(k.Name)
	if found == nil {
		return nil
	}
	text, err := protojson.Marshal(found)
	if err != nil {
		return err
	}
	out := &structpb.Struct{}
	if err := protojson.Unmarshal(text, out); err != nil {
		return err
	}
	item.Fields["status"] = structpb.NewStructValue(out)
	return nil
}

// ListDataPlanes implements adminv1.AdminServiceServer.
func (s *Server) ListDataPlanes(ctx context.Context, req *adminv1.ListDataPlanesRequest) (*adminv1.ListDataPlanesResponse, error) {
	if err := s.allow(ctx, adminv1.AdminService_ListDataPlanes_FullMethodName, req.GetService()); err != nil {
		return nil, err
	}
	list, revision := s.DataPlanes.List(req.GetService())
	return &adminv1.ListDataPlanesResponse{DataPlanes: seen(ctx, list), Revision: revision}, nil
}

// GetDataPlaneConfig implements adminv1.AdminServiceServer. Who may not see the
// service of a node is not told that it is there; the audit is.
func (s *Server) GetDataPlaneConfig(ctx context.Context, req *adminv1.GetDataPlaneConfigRequest) (*adminv1.GetDataPlaneConfigResponse, error) {
	const method = adminv1.AdminService_GetDataPlaneConfig_FullMethodName
	if err := s.meets(ctx, method); err != nil {
		return nil, err
	}
	resp, err := s.DataPlanes.Config(req.GetNode())
	if actor := access.From(ctx); !actor.SeesAll() {
		// What this service is called is for the audit alone.
		hidden := s.allow(ctx, method, resp.GetDataPlane().GetService())
		if err == nil {
			s.noteDenied(ctx, shortName(method), hidden)
		}
		if hidden != nil || err != nil {
			err = ErrUnknown
		}
	}
	if errors.Is(err, ErrUnknown) {
		return nil, status.Errorf(codes.NotFound, "no data plane %q is connected; `watchword status` lists those that are", req.GetNode())
	}
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return resp, nil
}

// Bounds of WaitInSync.
const (
	defaultWait = 30 * time.Second
	mostWait    = time.Hour
	// reportPause is the least time between two reports of a wait. The last
	// one, which says done, never waits.
	reportPause = 100 * time.Millisecond
)

// WaitInSync implements adminv1.AdminServiceServer.
func (s *Server) WaitInSync(req *adminv1.WaitInSyncRequest, stream grpc.ServerStreamingServer[adminv1.WaitInSyncResponse]) error {
	if err := s.mayWait(stream.Context(), req.GetServices()); err != nil {
		return err
	}
	timeout := defaultWait
	if d := req.GetTimeout(); d != nil {
		timeout = min(d.AsDuration(), mostWait)
	}
	ctx, cancel := context.WithTimeout(stream.Context(), timeout)
	defer cancel()
	only := !access.From(ctx).SeesAll() // how many there are of others is not for an owner
	began := s.written.since(req.GetRevision(), time.Now())
	reported := time.Time{}
	for {
		resp, changed := s.DataPlanes.Progress(req.GetRevision(), req.GetServices(), only)
		resp.Waiting, resp.Waits = seen(ctx, resp.GetWaiting()), seenWaits(ctx, resp.GetWaits())
		resp.Elapsed = durationpb.New(time.Since(began))
		if resp.GetDone() && req.GetReceipt() {
			s.addReceipt(ctx, req, resp, began)
		}
		if resp.GetDone() || time.Since(reported) >= reportPause {
			if err := stream.Send(resp); err != nil || resp.GetDone() {
				return err
			}
			reported = time.Now()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return s.notInSync(req, resp, stream, timeout)
		}
	}
}

// mayWait: who may not see everything names the services that it waits for.
func (s *Server) mayWait(ctx context.Context, services []string) error {
	const method = adminv1.AdminService_WaitInSync_FullMethodName
	if err := s.meets(ctx, method); err != nil || access.From(ctx).SeesAll() {
		return err
	}
	if len(services) == 0 {
		return status.Error(codes.PermissionDenied, "services is missing: a SERVICE_OWNER waits for its own services, by name")
	}
	for _, service := range services {
		if err := s.allow(ctx, method, service); err != nil {
			return err
		}
	}
	return nil
}

// notInSync ends a wait: the last report names who is not in sync.
func (s *Server) notInSync(req *adminv1.WaitInSyncRequest, last *adminv1.WaitInSyncResponse, stream grpc.ServerStreamingServer[adminv1.WaitInSyncResponse], timeout time.Duration) error {
	if stream.Context().Err() == nil {
		began := s.written.since(req.GetRevision(), time.Now().Add(-timeout))
		last.Elapsed = durationpb.New(time.Since(began))
		if req.GetReceipt() {
			s.addReceipt(stream.Context(), req, last, began)
		}
		if err := stream.Send(last); err != nil {
			return err
		}
	}
	return status.Errorf(codes.DeadlineExceeded, "%d of %d data planes have revision %d after %s", last.GetInSync(), last.GetTotal(), req.GetRevision(), timeout)
}

// addReceipt adds who has the revision, how long that took since it was asked for, and
// of whom it is not known.
func (s *Server) addReceipt(ctx context.Context, req *adminv1.WaitInSyncRequest, last *adminv1.WaitInSyncResponse, began time.Time) {
	confirmed, unknown := s.DataPlanes.Receipt(req.GetRevision(), req.GetServices(), !access.From(ctx).SeesAll())
	last.Confirmed = seen(ctx, confirmed)
	for _, c := range last.GetConfirmed() {
		c.Elapsed = durationpb.New(max(c.GetTime().AsTime().Sub(began), 0))
	}
	last.Unknown = seenWaits(ctx, unknown)
}

// seenWaits leaves what the caller may see. Who waits for its own services is told of
// replicas, too: its data planes may be connected to any of them.
func seenWaits(ctx context.Context, list []*adminv1.Wait) []*adminv1.Wait {
	a := access.From(ctx)
	return slices.DeleteFunc(slices.Clone(list), func(w *adminv1.Wait) bool { return w.GetService() != "" && !a.Sees(w.GetService()) })
}
