package controlplane

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/watchword-mesh/watchword/controlplane/api"
	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/controlplane/revocation"
	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/internal/identity"
	"github.com/watchword-mesh/watchword/internal/jose"
	"github.com/watchword-mesh/watchword/issuer/sts"
	"github.com/watchword-mesh/watchword/issuer/token"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// revocations implements api.Revocations.
type revocations struct {
	store *store.Store
	loop  *loop
	now   func() time.Time
	// writing lets one be judged and written at a time; what guards the limit is the
	// condition of the write.
	writing sync.Mutex
}

// RevokeToken implements sts.Revoker: a client gives up a token of its own.
func (r *revocations) RevokeToken(ctx context.Context, t sts.RevokedToken) error {
	made, err := revocation.New(revocation.Entry{
		Kind: revocation.Token, Issuer: policy.BuiltinIssuer, Value: t.ID, Created: r.now().UTC().Truncate(time.Second),
		Ends: revocation.EndsAt(t.Expires, r.skew()), Reason: "given up by its client", Actor: "service:" + t.Service,
	})
	if err != nil {
		return err
	}
	e := audit.Entry{Time: r.now().UTC(), Actor: made.Actor, Source: t.Source, Method: "RFC 7009", Outcome: audit.Done}
	_, err = r.revoke(ctx, e, func(snap *store.Snapshot) (revocation.Entry, error) { return made, r.share(snap, made) })
	return err
}

// mostOfClient is how many tokens one client may have given up that are not over yet. A
// list is for all, and those who revoke for the mesh must find a place in it.
const mostOfClient = 500

// share says whether a client may give up one more.
func (r *revocations) share(snap *store.Snapshot, made revocation.Entry) error {
	if _, known := snap.Revocations[made.ID]; known {
		return nil
	}
	own := 0
	for _, e := range snap.Revocations {
		if e.Actor == made.Actor {
			own++
		}
	}
	if own >= mostOfClient {
		return fmt.Errorf("%s has given up %d tokens that are not over yet, as many as a client may", made.Actor, own)
	}
	for _, name := range r.loop.enforced.concerned(made) {
		if n := r.loop.enforced.of(name).accepted.Count(maps.Values(snap.Revocations)); n >= revocation.WarnEntries {
			return fmt.Errorf("service %q enforces %d revocations: the places that are left are not for clients", name, n)
		}
	}
	return nil
}

func (r *revocations) skew() time.Duration {
	most, _ := revocation.Skew(policy.BuiltinIssuer, r.loop.enforced.rulesets())
	return most
}

// revokeAttempts are against others who revoke, or write policies, at the same time.
const revokeAttempts = 10

// Revoke judges by one state, and writes if nobody has revoked anything, or changed
// resources, since.
func (r *revocations) Revoke(ctx context.Context, req *adminv1.RevokeRequest, e audit.Entry) (*adminv1.RevokeResponse, error) {
	return r.revoke(ctx, e, func(snap *store.Snapshot) (revocation.Entry, error) {
		made, err := r.entry(snap, req)
		made.Actor = e.Actor
		return made, err
	})
}

func (r *revocations) revoke(ctx context.Context, e audit.Entry, entry func(*store.Snapshot) (revocation.Entry, error)) (*adminv1.RevokeResponse, error) {
	resp, err := r.judged(ctx, e, entry)
	if err != nil {
		return nil, err
	}
	return resp, r.loop.inForce(ctx, resp.GetRevision(), "it is revoked")
}

// judged returns when it is written.
func (r *revocations) judged(ctx context.Context, e audit.Entry, entry func(*store.Snapshot) (revocation.Entry, error)) (*adminv1.RevokeResponse, error) {
	r.writing.Lock()
	defer r.writing.Unlock()
	for try := 1; ; try++ {
		snap := r.loop.current.Load()
		made, err := entry(snap)
		if err != nil {
			return nil, err
		}
		resp, err := r.write(ctx, snap, made, e)
		if !errors.Is(err, store.ErrConflict) {
			return resp, err
		}
		if try == revokeAttempts {
			return nil, errors.Join(api.ErrConflict, err)
		}
		if err := r.loop.reached(ctx, snap.Revision+1); err != nil {
			return nil, err
		}
	}
}

func (r *revocations) write(ctx context.Context, snap *store.Snapshot, made revocation.Entry, e audit.Entry) (*adminv1.RevokeResponse, error) {
	resp := &adminv1.RevokeResponse{Id: made.ID, Services: r.loop.enforced.concerned(made)}
	if _, known := snap.Revocations[made.ID]; !known {
		for _, name := range resp.GetServices() {
			switch n := 1 + r.loop.enforced.of(name).accepted.Count(maps.Values(snap.Revocations)); {
			case n > revocation.MaxEntries:
				return nil, api.Precondition(tooMany(name, n))
			case n >= revocation.WarnEntries:
				resp.Warnings = append(resp.Warnings, fmt.Sprintf("service %q enforces %d revocations now, of at most %d; subject, instance and issued-before stand for many tokens", name, n, revocation.MaxEntries))
			}
		}
	}
	if len(resp.GetServices()) == 0 {
		resp.Warnings = append(resp.Warnings, "no service accepts such tokens now; it is kept for one that will")
	}
	e.Subjects = []string{described(made)}
	kept, revision, err := r.store.Revoke(ctx, made, e, store.ResourcesAt(snap.Revision), store.RevocationsAt(snap.Revision))
	if err != nil {
		return nil, err
	}
	resp.Revision, resp.Revocation = revision, revocationProto(kept)
	return resp, nil
}

// described is for the audit.
func described(e revocation.Entry) string {
	text := "revoked " + string(e.Kind)
	if e.Issuer != "" {
		text += " of " + e.Issuer
	}
	if e.Value != "" {
		text += " " + e.Value
	}
	if e.IssuedBefore > 0 {
		text += " " + time.Unix(e.IssuedBefore, 0).UTC().Format(time.RFC3339)
	}
	if len(e.Audiences) > 0 {
		text += " for " + strings.Join(e.Audiences, ", ")
	}
	if e.Reason != "" {
		text += ": " + e.Reason
	}
	return text
}

// entry makes one of a request.
func (r *revocations) entry(snap *store.Snapshot, req *adminv1.RevokeRequest) (revocation.Entry, error) {
	now := r.now().UTC().Truncate(time.Second)
	e := revocation.Entry{Audiences: req.GetAudiences(), Reason: req.GetReason(), Created: now}
	var err error
	switch what := req.GetWhat().(type) {
	case *adminv1.RevokeRequest_Token:
		e, err = r.token(snap, e, what.Token)
	case *adminv1.RevokeRequest_Subject:
		e.Kind = revocation.Subject
		if e.Issuer, err = r.issuer(snap, what.Subject.GetIssuer()); err == nil {
			e.Value, err = subjectOf(snap, e.Issuer, what.Subject.GetSubject())
		}
	case *adminv1.RevokeRequest_Consumer:
		e.Kind, e.Value = revocation.Consumer, what.Consumer
		if snap.Config.Consumer(what.Consumer) == nil {
			err = fmt.Errorf("%w: Consumer %q", api.ErrUnknown, what.Consumer)
		}
	case *adminv1.RevokeRequest_Instance:
		e.Kind, e.Issuer = revocation.Instance, policy.BuiltinIssuer
		id := identity.ID{TrustDomain: trustDomain(snap.Config), Service: what.Instance.GetService(), Instance: what.Instance.GetInstance()}
		if !identity.IsName(id.Service) || !identity.IsName(id.Instance) {
			err = api.Invalid("instance: wants a service and the name of an instance, as `watchword instance list` has them")
		}
		e.Value = id.String()
	case *adminv1.RevokeRequest_IssuedBefore:
		e, err = r.issuedBefore(snap, e, what.IssuedBefore)
	default:
		err = api.Invalid("what: it names nothing to revoke")
	}
	if err != nil {
		return e, err
	}
	if e.Ends.IsZero() {
		e.Ends = r.ends(e, now)
	}
	if e, err = revocation.New(e); err != nil {
		return e, api.Invalid(err.Error())
	}
	return e, nil
}

// ends is when nothing can be valid any more that the entry is about; the zero time is
// never.
func (r *revocations) ends(e revocation.Entry, now time.Time) time.Time {
	most, bounded := revocation.Lifetime(e.Issuer, r.loop.enforced.rulesets())
	if e.Kind == revocation.Consumer {
		most, bounded = revocation.ConsumerLifetime(e.Value, r.loop.enforced.rulesets())
	}
	if !bounded {
		return time.Time{}
	}
	return revocation.EndsAt(now, most)
}

// issuer is the name of one that there is, or consumer/NAME.
func (r *revocations) issuer(snap *store.Snapshot, name string) (string, error) {
	name = cmp.Or(name, policy.BuiltinIssuer)
	if consumer, ok := strings.CutPrefix(name, "consumer/"); ok {
		if snap.Config.Consumer(consumer) == nil {
			return "", fmt.Errorf("%w: Consumer %q", api.ErrUnknown, consumer)
		}
		return name, nil
	}
	if snap.Config.Issuer(name) == nil {
		return "", fmt.Errorf("%w: Issuer %q", api.ErrUnknown, name)
	}
	return name, nil
}

// subjectOf is a sub: a service of the mesh may be named for its own.
func subjectOf(snap *store.Snapshot, issuer, subject string) (string, error) {
	if issuer != policy.BuiltinIssuer {
		return subject, nil
	}
	if identity.IsName(subject) {
		if snap.Config.Service(subject) == nil {
			return "", fmt.Errorf("%w: Service %q; give the whole spiffe:// ID of one that was deleted", api.ErrUnknown, subject)
		}
		return token.SubjectOf(trustDomain(snap.Config), subject), nil
	}
	if id, err := identity.Parse(subject); err != nil || id.TrustDomain != trustDomain(snap.Config) || id.Instance != "" {
		return "", api.Invalid("subject: wants the name of a service, or its spiffe:// ID in this trust domain; an issuer of its own needs to be named")
	}
	return subject, nil
}

func (r *revocations) issuedBefore(snap *store.Snapshot, e revocation.Entry, req *adminv1.IssuedBefore) (revocation.Entry, error) {
	e.Kind, e.IssuedBefore = revocation.IssuedBefore, e.Created.Unix()
	if req.GetTime() != nil {
		e.IssuedBefore = req.GetTime().AsTime().Unix()
	}
	if e.IssuedBefore > e.Created.Unix() || e.IssuedBefore <= 0 || req.GetTime().CheckValid() != nil && req.GetTime() != nil {
		return e, api.Invalid("issued_before: wants a time of the past")
	}
	var err error
	if e.Issuer, err = r.issuer(snap, req.GetIssuer()); err != nil || req.GetSubject() == "" {
		return e, err
	}
	e.Value, err = subjectOf(snap, e.Issuer, req.GetSubject())
	return e, err
}

// maxToken bounds a whole token, in bytes.
const maxToken = 16 << 10

// token is about one token. A whole one must be signed with a key of its issuer that is
// in force: nobody fills the list with what nobody accepts. Nothing of it but its jti is
// kept.
func (r *revocations) token(snap *store.Snapshot, e revocation.Entry, req *adminv1.TokenToRevoke) (_ revocation.Entry, err error) {
	e.Kind = revocation.Token
	if (req.GetToken() == "") == (req.GetJti() == "") {
		return e, api.Invalid("token: wants either a whole token or its jti")
	}
	if req.GetJti() != "" {
		e.Value = req.GetJti()
		e.Issuer, err = r.issuer(snap, req.GetIssuer())
		return e, err
	}
	t, err := r.verified(snap, req.GetToken())
	if err != nil {
		return e, err
	}
	if req.GetIssuer() != "" && req.GetIssuer() != t.issuer {
		return e, api.Invalid(fmt.Sprintf("token: it is of issuer %q", t.issuer))
	}
	e.Issuer, e.Value = t.issuer, t.ID
	skew, checked := revocation.Skew(t.issuer, r.loop.enforced.rulesets())
	if checked && t.Expiry > 0 {
		e.Ends = revocation.EndsAt(time.Unix(int64(t.Expiry), 0), skew)
	}
	return e, nil
}

// signedToken is what counts of a token that was verified.
type signedToken struct {
	issuer   string  // name of the Issuer
	Issuer   string  `json:"iss"`
	ID       string  `json:"jti"`
	ClientID string  `json:"client_id"`
	Subject  string  `json:"sub"`
	Expiry   float64 `json:"exp"`
}

func (r *revocations) verified(snap *store.Snapshot, text string) (signedToken, error) {
	var t signedToken
	if len(text) > maxToken {
		return t, api.Invalid(fmt.Sprintf("token: it has more than %d bytes", maxToken))
	}
	read, err := jose.ParseUnverified(text)
	if err != nil {
		return t, api.Invalid("token: it is no token that can be read")
	}
	if err := json.Unmarshal(read.Claims(), &t); err != nil {
		return t, api.Invalid("token: its claims are not of the right types")
	}
	keys := r.loop.verifying.Load()
	for _, name := range slices.Sorted(maps.Keys(keys.issuers)) {
		if iss := snap.Config.Issuer(name).GetIssuer(); iss == "" || iss != t.Issuer {
			continue
		}
		if _, err := read.Verify(keys.issuers[name], jose.VerifyOptions{}); err == nil {
			if t.issuer = name; t.ID == "" {
				return t, api.Invalid("token: it has no jti; revoke its subject, or what was issued before a time")
			}
			return t, nil
		}
	}
	return t, api.Invalid("token: no key of an issuer that has its iss verifies it; nothing accepts it, unless it is of a consumer or self-issued: give its jti then, with the issuer")
}

// ListRevocations is in order of their times, the newest first.
func (r *revocations) ListRevocations(service string) []*adminv1.Revocation {
	all := r.loop.current.Load().Revocations
	list := slices.Collect(maps.Values(all))
	if service != "" {
		list = r.loop.enforced.of(service).list(all)
	}
	slices.SortFunc(list, func(a, b revocation.Entry) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
	})
	var out []*adminv1.Revocation
	for _, e := range list {
		out = append(out, revocationProto(e))
	}
	return out
}

func (r *revocations) Revocation(id string) (*adminv1.Revocation, error) {
	e, ok := r.loop.current.Load().Revocations[id]
	if !ok {
		return nil, api.ErrUnknown
	}
	return revocationProto(e), nil
}

func (r *revocations) DeleteRevocation(ctx context.Context, id string, e audit.Entry) (*adminv1.DeleteRevocationResponse, error) {
	var services []string
	if known, ok := r.loop.current.Load().Revocations[id]; ok {
		services = r.loop.enforced.concerned(known)
	}
	revision, err := r.store.DeleteRevocation(ctx, id, e)
	if errors.Is(err, store.ErrNoRevocation) {
		return nil, errors.Join(api.ErrUnknown, err)
	}
	if err != nil {
		return nil, err
	}
	return &adminv1.DeleteRevocationResponse{Revision: revision, Services: services}, r.loop.inForce(ctx, revision, "the revocation is taken back")
}

func revocationProto(e revocation.Entry) *adminv1.Revocation {
	out := &adminv1.Revocation{
		Id: e.ID, Kind: string(e.Kind), Issuer: e.Issuer, Value: e.Value, Audiences: e.Audiences,
		Created: timestamppb.New(e.Created), Reason: e.Reason, Actor: e.Actor,
	}
	if e.IssuedBefore > 0 {
		out.IssuedBefore = timestamppb.New(time.Unix(e.IssuedBefore, 0))
	}
	if !e.Ends.IsZero() {
		out.Ends = timestamppb.New(e.Ends)
	}
	return out
}
