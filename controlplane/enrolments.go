package controlplane

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/watchword-mesh/watchword/controlplane/api"
	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/enrolment"
	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/controlplane/xds"
	"github.com/watchword-mesh/watchword/internal/jointoken"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// enrolments implements api.Enrolments.
type enrolments struct {
	store  *store.Store
	loop   *loop
	xds    *xds.Server
	pepper []byte
}

func (e *enrolments) CreateJoinToken(ctx context.Context, t api.NewJoinToken, entry audit.Entry) (string, *adminv1.JoinToken, error) {
	token, now := jointoken.New(e.loop.authority().Pin()), time.Now().UTC()
	kept := store.JoinToken{
		ID: token.ID, Service: t.Service, Hash: enrolment.Hash(e.pepper, t.Service, token), Uses: int(t.Uses),
		Created: now, Expires: now.Add(t.TTL), CreatedBy: t.CreatedBy,
	}
	entry.Subjects = []string{"created join token " + t.Service + "/" + token.ID}
	if err := e.store.AddJoinToken(ctx, kept, entry, store.ResourcesAt(t.Judged)); err != nil {
		return "", nil, conflicting(unknown(err))
	}
	return token.Text(), joinTokenProto(kept), nil
}

func (e *enrolments) ListJoinTokens(ctx context.Context, service string) ([]*adminv1.JoinToken, error) {
	all, err := e.store.ListJoinTokens(ctx, service)
	var out []*adminv1.JoinToken
	for _, t := range all {
		out = append(out, joinTokenProto(t))
	}
	return out, err
}

func (e *enrolments) JoinTokenService(ctx context.Context, id string) (string, error) {
	t, err := e.store.FindJoinToken(ctx, id)
	return t.Service, unknown(err)
}

func (e *enrolments) RevokeJoinToken(ctx context.Context, id string, entry audit.Entry) error {
	t, err := e.store.FindJoinToken(ctx, id)
	if err == nil {
		err = e.store.RevokeJoinToken(ctx, t.Service, id, entry)
	}
	return unknown(err)
}

func (e *enrolments) ListInstances(_ context.Context, service string) ([]*adminv1.Instance, error) {
	var out []*adminv1.Instance
	for i := range e.loop.current.Load().Instances.All() {
		if service == "" || i.Service == service {
			out = append(out, &adminv1.Instance{
				Service: i.Service, Id: i.ID, Node: i.Node, AttestedBy: i.AttestedBy, Streams: int32(e.xds.Streams(i.Service, i.ID)),
				Enrolled: timestamppb.New(i.Enrolled), Renewed: timestamppb.New(i.Renewed), Expires: timestamppb.New(i.Expires),
			})
		}
	}
	return out, nil
}

// RevokeInstances returns when the streams are cut.
func (e *enrolments) RevokeInstances(ctx context.Context, service string, instances []string, entry audit.Entry) (*adminv1.RevokeInstancesResponse, error) {
	for _, id := range instances {
		if _, err := e.store.Instance(ctx, service, id); err != nil {
			return nil, unknown(err)
		}
	}
	revoked, tokens, revision, err := e.store.RevokeInstances(ctx, service, instances, entry)
	resp := &adminv1.RevokeInstancesResponse{Revision: revision, Instances: revoked, JoinTokens: tokens}
	if err != nil && len(revoked) > 0 {
		err = fmt.Errorf("only %d of %d instances are revoked: %w", len(revoked), len(instances), err)
	}
	if err != nil {
		return resp, unknown(err)
	}
	return resp, e.loop.inForce(ctx, revision, "the instances are revoked")
}

func joinTokenProto(t store.JoinToken) *adminv1.JoinToken {
	return &adminv1.JoinToken{
		Id: t.ID, Service: t.Service, Uses: int32(t.Uses), Instances: t.Instances, CreatedBy: t.CreatedBy,
		Created: timestamppb.New(t.Created), Expires: timestamppb.New(t.Expires),
	}
}

// unknown says in the words of the API that something is not there.
func unknown(err error) error {
	if errors.Is(err, store.ErrUnknown) || errors.Is(err, store.ErrNoService) {
		return errors.Join(api.ErrUnknown, err)
	}
	return err
}

// clientSecrets implements api.Secrets.
type clientSecrets struct {
	store *store.Store
	loop  *loop
}

func (c *clientSecrets) ListClientSecrets(_ context.Context, service string) ([]*adminv1.ClientSecret, error) {
	var out []*adminv1.ClientSecret
	for _, s := range c.loop.current.Load().Secrets {
		if service == "" || s.Service == service {
			out = append(out, &adminv1.ClientSecret{Id: s.ID, Service: s.Service, Created: timestamppb.New(s.Created)})
		}
	}
	return out, nil
}

func (c *clientSecrets) DeleteClientSecret(ctx context.Context, service, id string, entry audit.Entry) error {
	revision, err := c.store.DeleteSecret(ctx, service, id, entry)
	if err != nil {
		return unknown(err)
	}
	return c.loop.inForce(ctx, revision, "the client secret is deleted")
}

// auditLog implements api.AuditLog.
type auditLog struct {
	store *store.Store
}

func (a auditLog) ListAudit(ctx context.Context, q api.AuditQuery) ([]audit.Entry, string, error) {
	return a.store.ListAudit(ctx, store.AuditQuery(q))
}

// instanceName is the key of an instance in events of the store.
func instanceName(key string) (service, instance string) {
	service, instance, _ = strings.Cut(key, "/")
	return service, instance
}
