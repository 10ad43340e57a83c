package main

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

const (
	fakeToken  = "fake-admin-token"
	fakeSecret = "s3cret/with+signs"
)

// fakeAdmin is a control plane that stores documents in memory, and has canned
// answers for what a real one says seldom. The mode chooses among them.
type fakeAdmin struct {
	adminv1.UnimplementedAdminServiceServer
	// hanging is the file that is made when a call hangs.
	hanging string

	mu       sync.Mutex
	mode     string
	revision int64
	items    map[resourceName]item
}

func newFakeAdmin(dir string) *fakeAdmin {
	return &fakeAdmin{hanging: filepath.Join(dir, "hanging"), revision: 41, items: map[resourceName]item{}}
}

// serve answers on the listeners until the returned function is called; on
// secure with TLS.
func (f *fakeAdmin) serve(config *tls.Config, secure net.Listener, plain ...net.Listener) (stop func()) {
	var running sync.WaitGroup
	start := func(l net.Listener, options ...grpc.ServerOption) *grpc.Server {
		server := grpc.NewServer(append(options, grpc.UnaryInterceptor(f.unary), grpc.StreamInterceptor(f.stream))...)
		adminv1.RegisterAdminServiceServer(server, f)
		running.Go(func() { _ = server.Serve(l) })
		return server
	}
	servers := []*grpc.Server{start(secure, grpc.Creds(credentials.NewTLS(config)))}
	for _, l := range plain {
		servers = append(servers, start(l))
	}
	return func() {
		for _, s := range servers {
			s.Stop()
		}
		running.Wait()
	}
}

func (f *fakeAdmin) unary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
	if err := f.admit(ctx); err != nil {
		return nil, err
	}
	return handle(ctx, request)
}

func (f *fakeAdmin) stream(server any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	if err := f.admit(stream.Context()); err != nil {
		return err
	}
	return handle(server, stream)
}

// admit checks the credential of a call; some modes refuse every call.
func (f *fakeAdmin) admit(ctx context.Context) error {
	if _, err := fakeActor(ctx); err != nil {
		return err
	}
	switch f.is() {
	case "denied":
		return status.Error(codes.PermissionDenied, "this needs the role SECURITY_OFFICER")
	case "unimplemented":
		return status.Error(codes.Unimplemented, "unknown method")
	case "internal":
		return status.Error(codes.Internal, "the disk is full")
	case "no-store":
		return status.Error(codes.Unavailable, "reading etcd: rpc error: code = Unavailable desc = no leader")
	case "large":
		return status.Error(codes.ResourceExhausted, "the request is larger than 4 MiB")
	case "hang":
		_ = os.WriteFile(f.hanging, nil, 0o600)
		<-ctx.Done()
		return status.FromContextError(ctx.Err()).Err()
	}
	return nil
}

// fakeActor is who calls, by the one credential that there may be.
func fakeActor(ctx context.Context) (string, error) {
	var actors []string
	md, _ := metadata.FromIncomingContext(ctx)
	for _, given := range md.Get("authorization") {
		if given != "Bearer "+fakeToken {
			return "", status.Error(codes.Unauthenticated, "the credential is not valid")
		}
		actors = append(actors, "admin-token")
	}
	p, _ := peer.FromContext(ctx)
	if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.PeerCertificates) > 0 {
		actors = append(actors, "certificate:dns:"+info.State.PeerCertificates[0].DNSNames[0])
	}
	switch {
	case len(actors) > 1:
		return "", status.Error(codes.Unauthenticated, "two credentials of different owners: give one of them")
	case len(actors) == 1:
		return actors[0], nil
	case p.Addr.Network() == "unix":
		return "unix:root", nil
	}
	return "", status.Error(codes.Unauthenticated, "no credential")
}

func (f *fakeAdmin) is() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mode
}

func (f *fakeAdmin) setMode(mode string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mode = mode
}

func (f *fakeAdmin) Apply(_ context.Context, r *adminv1.ApplyRequest) (*adminv1.ApplyResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mode == "faults" {
		return nil, fakeFaults(r)
	}
	next := f.revision + 1
	given := map[resourceName]item{}
	response := &adminv1.ApplyResponse{Transactions: 1}
	for _, d := range r.GetDocuments() {
		if strings.Contains(d.GetContent(), "warn-me") {
			response.Warnings = append(response.Warnings, d.GetSource()+": that will not last")
		}
		for _, i := range fakeParse(d.GetContent()) {
			name := i.resourceName()
			given[name] = i
			change, err := f.change(name, i, next)
			if err != nil {
				return nil, err
			}
			response.Changes = append(response.Changes, change)
			if name.kind == "Consumer" && change.GetAction() != adminv1.Change_UNCHANGED {
				response.Generated = append(response.Generated, fakeGenerated("Consumer/"+name.name, r.GetDryRun())...)
			}
		}
	}
	if r.GetPrune() {
		response.Changes = append(response.Changes, f.pruned(given, r.GetPruneSelector())...)
	}
	if f.mode == "transactions" {
		response.Transactions = 2
	}
	response.Revision = f.revision
	changed := slices.ContainsFunc(response.Changes, func(c *adminv1.Change) bool { return c.GetAction() != adminv1.Change_UNCHANGED })
	if changed && !r.GetDryRun() {
		f.store(response.Changes, given, next)
		response.Revision = f.revision
	}
	return response, nil
}

func fakeGenerated(resource string, dryRun bool) []*adminv1.Generated {
	key, secret := "9fKq", "h8Zr"
	if dryRun {
		key, secret = "(generated)", "(generated)"
	}
	return []*adminv1.Generated{
		{Resource: resource, Field: "spec.credentials[0].key", Value: key},
		{Resource: resource, Field: "spec.credentials[0].keySet.secret.keys[0].secret", Value: secret},
	}
}

func fakeFaults(r *adminv1.ApplyRequest) error {
	s, _ := status.New(codes.InvalidArgument, "3 faults").WithDetails(&adminv1.Faults{Faults: []*adminv1.Fault{
		{Source: r.GetDocuments()[0].GetSource(), Line: 14, Resource: "Service/orders", Field: "spec.audiences[0]", Message: `"*" is not allowed; name each audience`},
		{Source: r.GetDocuments()[0].GetSource(), Line: 20, Message: "unknown kind \"Srvice\"; did you mean Service?"},
		{Resource: "Issuer/corp", Message: "no key set\nat all"},
	}})
	return s.Err()
}

func fakeParse(content string) []item {
	var items []item
	decoder := yaml.NewDecoder(strings.NewReader(content))
	for {
		var i map[string]any
		if decoder.Decode(&i) != nil {
			return items
		}
		// By way of JSON, so that maps and numbers have the types of JSON.
		text, _ := json.Marshal(i)
		var out item
		_ = json.Unmarshal(text, &out)
		items = append(items, out)
	}
}

func (f *fakeAdmin) change(name resourceName, i item, next int64) (*adminv1.Change, error) {
	old, there := f.items[name]
	c := &adminv1.Change{Kind: name.kind, Name: name.name, Action: adminv1.Change_CREATED}
	if wanted := i.object("metadata").text("revision"); wanted != "" && there && wanted != old.object("metadata").text("revision") {
		return nil, status.Errorf(codes.Aborted, "%s is at revision %s, the document names %s", name, old.object("metadata").text("revision"), wanted)
	}
	switch {
	case there && fakeSpec(old) == fakeSpec(i):
		c.Action = adminv1.Change_UNCHANGED
		return c, nil
	case there:
		c.Action = adminv1.Change_UPDATED
	}
	c.Diff = fmt.Sprintf("--- %s\n+++ %s at revision %d\n@@ -1 +1 @@\n-%s\n+%s\n", name, name, next, fakeSpec(old), fakeSpec(i))
	return c, nil
}

func fakeSpec(i item) string {
	text, _ := json.Marshal(i["spec"])
	return string(text)
}

func (f *fakeAdmin) pruned(given map[resourceName]item, selector map[string]string) []*adminv1.Change {
	var changes []*adminv1.Change
	for name, i := range f.items {
		_, stays := given[name]
		for k, v := range selector {
			stays = stays || i.object("metadata").object("labels").text(k) != v
		}
		if !stays {
			changes = append(changes, &adminv1.Change{Kind: name.kind, Name: name.name, Action: adminv1.Change_DELETED, Diff: "-" + fakeSpec(i) + "\n"})
		}
	}
	slices.SortFunc(changes, func(a, b *adminv1.Change) int { return strings.Compare(a.GetName(), b.GetName()) })
	return changes
}

func (f *fakeAdmin) store(changes []*adminv1.Change, given map[resourceName]item, revision int64) {
	f.revision = revision
	for _, c := range changes {
		name := resourceName{c.GetKind(), c.GetName()}
		switch c.GetAction() {
		case adminv1.Change_DELETED:
			delete(f.items, name)
		case adminv1.Change_CREATED, adminv1.Change_UPDATED:
			given[name].object("metadata")["revision"] = float64(revision)
			f.items[name] = given[name]
		}
	}
}

func (f *fakeAdmin) List(_ context.Context, r *adminv1.ListRequest) (*adminv1.ListResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	response := &adminv1.ListResponse{Revision: f.revision}
	for name, i := range f.items {
		if r.GetKind() != "" && r.GetKind() != name.kind || r.GetName() != "" && r.GetName() != name.name {
			continue
		}
		s, err := structpb.NewStruct(i)
		if err != nil {
			return nil, err
		}
		response.Items = append(response.Items, s)
	}
	slices.SortFunc(response.Items, func(a, b *structpb.Struct) int {
		return strings.Compare(item(a.AsMap()).resourceName().String(), item(b.AsMap()).resourceName().String())
	})
	return response, nil
}

func (f *fakeAdmin) Delete(_ context.Context, r *adminv1.DeleteRequest) (*adminv1.DeleteResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	response := &adminv1.DeleteResponse{}
	for _, ref := range r.GetReferences() {
		name := resourceName{ref.GetKind(), ref.GetName()}
		i, there := f.items[name]
		if !there {
			return nil, status.Errorf(codes.NotFound, "%s is not there", name)
		}
		if at := i.object("metadata").text("revision"); ref.GetRevision() != 0 && at != fmt.Sprint(ref.GetRevision()) {
			return nil, status.Errorf(codes.FailedPrecondition, "%s is at revision %s, not %d", name, at, ref.GetRevision())
		}
		response.Changes = append(response.Changes, &adminv1.Change{Kind: name.kind, Name: name.name, Action: adminv1.Change_DELETED})
	}
	f.store(response.Changes, nil, f.revision+1)
	response.Revision = f.revision
	return response, nil
}

// fakePlanes are one data plane in sync, and one whose words try to take over
// the terminal.
func fakePlanes() []*adminv1.DataPlane {
	now := time.Now()
	return []*adminv1.DataPlane{
		{Node: "orders-1", Service: "orders", Kind: "envoy", Revision: 57, InSync: true, Since: timestamppb.New(now.Add(-5*time.Minute - time.Second)), Address: "127.0.0.1:5000", Instance: "kq3v6c7dwyzaevb5mz2ggqzlxi"},
		{Node: "node-7", Service: "payments", Kind: "envoy", Revision: 40, Reason: "refused mesh.inbound/payments: \x1b[31mno such\nfield", Since: timestamppb.New(now.Add(-50 * time.Hour))},
	}
}

func (f *fakeAdmin) ListDataPlanes(_ context.Context, r *adminv1.ListDataPlanesRequest) (*adminv1.ListDataPlanesResponse, error) {
	response := &adminv1.ListDataPlanesResponse{Revision: 57}
	for _, p := range fakePlanes() {
		if r.GetService() == "" || r.GetService() == p.GetService() {
			response.DataPlanes = append(response.DataPlanes, p)
		}
	}
	if f.is() == "twins" {
		response.DataPlanes = append(response.DataPlanes, &adminv1.DataPlane{Node: "orders-2", Service: "orders", Instance: "kq3vvvvvwyzaevb5mz2ggqzlxi"})
	}
	return response, nil
}

func (f *fakeAdmin) GetDataPlaneConfig(_ context.Context, r *adminv1.GetDataPlaneConfigRequest) (*adminv1.GetDataPlaneConfigResponse, error) {
	body, _ := structpb.NewStruct(map[string]any{"name": "mesh.inbound/payments", "port": 8080})
	for _, p := range fakePlanes() {
		if p.GetNode() == r.GetNode() || p.GetInstance() != "" && p.GetInstance() == r.GetNode() {
			return &adminv1.GetDataPlaneConfigResponse{DataPlane: p, Resources: []*adminv1.SentResource{
				{TypeUrl: "type.googleapis.com/envoy.config.listener.v3.Listener", Name: "inbound", Version: "0123456789abcdef", AckedVersion: "0123456789abcdef", Body: body},
				{TypeUrl: "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig", Name: "mesh.inbound/payments", Version: "fedcba9876543210", AckedVersion: "aaaa", Refusal: "no such\nfield", Body: body},
				{TypeUrl: "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig", Name: "mesh.revoked/payments", Version: "77"},
			}}, nil
		}
	}
	return nil, status.Errorf(codes.NotFound, "no data plane %q is connected", r.GetNode())
}

func (f *fakeAdmin) WaitInSync(r *adminv1.WaitInSyncRequest, stream grpc.ServerStreamingServer[adminv1.WaitInSyncResponse]) error {
	half := &adminv1.WaitInSyncResponse{Total: 2, InSync: 1, Waiting: fakePlanes()[1:], Elapsed: durationpb.New(7 * time.Millisecond)}
	switch f.is() {
	case "untouched":
		return stream.Send(&adminv1.WaitInSyncResponse{Done: true, Elapsed: durationpb.New(0)})
	case "stuck":
		_ = stream.Send(half)
		return status.Error(codes.DeadlineExceeded, "not in sync in time")
	case "many-stuck":
		half.Total = 200
		_ = stream.Send(half)
		return status.Error(codes.DeadlineExceeded, "not in sync in time")
	case "broken":
		return stream.Send(half)
	case "lost":
		half.Confirmed, half.Unknown = fakeReceipt()
		half.Waits = fakeKeys("").GetKeys()[1].GetWaits()[:1]
		_ = stream.Send(half)
		return status.Error(codes.DeadlineExceeded, "not in sync in time")
	case "slow":
		_ = stream.Send(half)
		select {
		case <-stream.Context().Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
	_ = stream.Send(half)
	done := &adminv1.WaitInSyncResponse{Total: 2, InSync: 2, Done: true, Elapsed: durationpb.New(31 * time.Millisecond)}
	if r.GetReceipt() {
		done.Confirmed, done.Unknown = fakeReceipt()
	}
	return stream.Send(done)
}

// ListRefusals has one caller whose words try to take over the terminal.
func (f *fakeAdmin) ListRefusals(_ context.Context, r *adminv1.ListRefusalsRequest) (*adminv1.ListRefusalsResponse, error) {
	now := time.Now()
	ago := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(now.Add(-d - time.Second)) }
	response := &adminv1.ListRefusalsResponse{Since: ago(3 * time.Hour)}
	switch r.GetService() {
	case "quiet":
		return response, nil
	case "nope":
		return nil, status.Error(codes.NotFound, `there is no Service "nope"`)
	}
	shop := &adminv1.Refusal_Caller{Issuer: "http://sts", Subject: "spiffe://mesh.local/shop"}
	if r.GetEnforcement() != adminv1.Refusal_OBSERVED {
		response.Counts = append(response.Counts,
			&adminv1.RefusalCount{Service: "orders", Reason: "token_missing", Enforcement: adminv1.Refusal_ENFORCED, Count: 12345678901, LastSeen: ago(5 * time.Minute)},
			&adminv1.RefusalCount{Service: "orders", Caller: shop, Reason: "consumer_denied", Enforcement: adminv1.Refusal_ENFORCED, Count: 2, LastSeen: ago(time.Minute)},
			&adminv1.RefusalCount{Service: "orders", Caller: &adminv1.Refusal_Caller{Other: true}, Reason: "consumer_denied", Enforcement: adminv1.Refusal_ENFORCED, Count: 1, LastSeen: ago(time.Hour)})
		if r.GetSample() {
			response.Sample = append(response.Sample, &adminv1.Refusal{Time: ago(time.Minute), Service: "orders", Node: "orders-1", Peer: "10.0.0.9", Route: "write", Method: "DELETE", Path: "/orders/\x1b[31m7", Status: 403,
				Caller: shop, Reason: "consumer_denied", Rule: "no-delete/0", Enforcement: adminv1.Refusal_ENFORCED})
		}
	}
	if r.GetEnforcement() != adminv1.Refusal_ENFORCED {
		acme := &adminv1.Refusal_Caller{Consumer: "acme", Issuer: "http://idp", Subject: "\x1b[31m\n7"}
		response.Counts = append(response.Counts, &adminv1.RefusalCount{Service: "payments", Caller: acme, Reason: "claim_missing", Enforcement: adminv1.Refusal_OBSERVED, Count: 1, LastSeen: ago(2 * time.Hour)})
		if r.GetSample() {
			response.Sample = append(response.Sample, &adminv1.Refusal{Time: ago(2 * time.Hour), Service: "payments", Node: "payments-1", Peer: "10.0.0.7", Method: "GET", Path: "/", Caller: acme, Reason: "claim_missing", Enforcement: adminv1.Refusal_OBSERVED})
		}
	}
	return response, nil
}

// Explain answers by the token, and tells of the request what it got.
func (f *fakeAdmin) Explain(_ context.Context, r *adminv1.ExplainRequest) (*adminv1.ExplainResponse, error) {
	if r.GetService() == "nope" {
		return nil, status.Error(codes.NotFound, `there is no Service "nope"`)
	}
	request := fmt.Sprintf("%s %s%s %v %v", r.GetMethod(), r.GetHost(), r.GetPath(), pairs(r.GetHeaders()), pairs(r.GetForm()))
	response := &adminv1.ExplainResponse{
		Revision: 57, Time: timestamppb.New(time.Unix(1_800_000_000, 0)), Route: "admin", DataPlanes: fakePlanes(),
		Steps: []*adminv1.ExplainStep{{Name: "route", Outcome: "selected", Detail: request}},
	}
	switch r.GetToken() {
	case "good":
		response.Allowed, response.Observed, response.ObservedRule = true, "consumer_denied", "later/0"
		response.Caller = &adminv1.ExplainCaller{Issuer: "watchword", Iss: "http://sts", Subject: "spiffe://mesh.local/web"}
		response.Steps = append(response.Steps,
			&adminv1.ExplainStep{Name: "signature", Outcome: "ok", Detail: `verified by key "k1" (ES256)`},
			&adminv1.ExplainStep{Name: "forward", Outcome: "added", Detail: `header x-watchword-caller: "\x1b[31m"`})
		response.DataPlanes = response.DataPlanes[:1]
	case "idle":
		response.Allowed, response.DataPlanes = true, nil
	default:
		response.Reason, response.Rule = "consumer_denied", "admin/1"
		response.Refusal = &adminv1.ExplainRefusal{Status: 403, Body: "{}", Headers: []*adminv1.ExplainField{{Name: "content-type", Value: "application/json"}, {Name: "x-watchword-reason", Value: "consumer_denied"}}}
	}
	return response, nil
}

func pairs(list []*adminv1.ExplainField) []string {
	var out []string
	for _, f := range list {
		out = append(out, f.GetName()+"="+f.GetValue())
	}
	return out
}

func (f *fakeAdmin) CreateClientSecret(_ context.Context, r *adminv1.CreateClientSecretRequest) (*adminv1.CreateClientSecretResponse, error) {
	return &adminv1.CreateClientSecretResponse{ClientId: r.GetService(), ClientSecret: fakeSecret}, nil
}

func (f *fakeAdmin) IssueToken(_ context.Context, r *adminv1.IssueTokenRequest) (*adminv1.IssueTokenResponse, error) {
	if f.is() == "no-call" {
		return nil, status.Errorf(codes.FailedPrecondition, "service %q may not call %q; add it to its calls", r.GetService(), r.GetAudience())
	}
	return &adminv1.IssueTokenResponse{AccessToken: fakeJWT("admin", r.GetService(), r.GetAudience(), r.GetScope()), ExpiresIn: durationpb.New(5 * time.Minute), Scope: r.GetScope()}, nil
}

// fakeJWT has a number that a float64 can't hold, and no signature.
func fakeJWT(by, service, audience, scope string) string {
	encode := base64.RawURLEncoding.EncodeToString
	claims := fmt.Sprintf(`{"by":%q,"client_id":%q,"aud":%q,"scope":%q,"iat":9007199254740993}`, by, service, audience, scope)
	return encode([]byte(`{"typ":"at+jwt","alg":"ES256"}`)) + "." + encode([]byte(claims)) + "." + encode([]byte("signature"))
}

// fakeTokenEndpoint is RFC 6749 section 4.4 for one client.
func fakeTokenEndpoint(w http.ResponseWriter, r *http.Request) {
	answer := func(code int, body string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
	// client_secret_basic form-encodes both (RFC 6749 section 2.3.1).
	id, secret, _ := r.BasicAuth()
	switch {
	case r.URL.Path == "/moved":
		http.Redirect(w, r, "/token", http.StatusTemporaryRedirect)
	case r.URL.Path != "/token":
		http.NotFound(w, r)
	case id != "shop" || secret != "s3cret%2Fwith%2Bsigns":
		answer(http.StatusUnauthorized, `{"error":"invalid_client","error_description":"wrong secret"}`)
	case r.PostFormValue("audience") != "orders":
		answer(http.StatusBadRequest, `{"error":"invalid_target","error_description":"shop may not call it"}`)
	default:
		answer(http.StatusOK, fmt.Sprintf(`{"access_token":%q,"token_type":"Bearer","expires_in":300,"scope":%q}`,
			fakeJWT(r.PostFormValue("grant_type"), id, r.PostFormValue("audience"), r.PostFormValue("scope")), r.PostFormValue("scope")))
	}
}
