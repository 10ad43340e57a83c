package main

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// The keys of the fake: kids are thumbprints, and one begins like a flag.
const (
	fakeActive  = "9fXaQQ12aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	fakeStandby = "kq3v6c7dbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	fakeOld     = "-fXaQQ12ccccccccccccccccccccccccccccccccccc"
	fakeTwin    = "9fXaZZZZddddddddddddddddddddddddddddddddddd"
)

// fakeKeys are keys between two rotations: the next one lacks a data plane whose words
// try to take over the terminal, and a replica.
func fakeKeys(mode string) *adminv1.SigningKeys {
	now := time.Now()
	behind := func(audience string) *adminv1.Wait {
		return &adminv1.Wait{Audience: audience, Replica: "0b8a7d6c-1111", Host: "cp-1", Service: "payments", Count: 2, Gone: 1, Who: []string{"node-7 (aaaa6c7d)"}, Why: "behind", Detail: "refused: \x1b[31mno"}
	}
	gone := &adminv1.Wait{Audience: "orders", Replica: "ffff7d6c-2222", Host: "cp-2", Why: "departed", Until: fakeTime(now, 40*time.Second)}
	standby := &adminv1.SigningKey{Kid: fakeStandby, Algorithm: "ES256", State: adminv1.SigningKey_STANDBY, Created: fakeTime(now, -23*time.Hour),
		Next: adminv1.SigningKey_SIGNS, Due: fakeTime(now, time.Hour), Waits: []*adminv1.Wait{behind("payments"), behind("billing"), gone}, WaitCount: 3}
	active := &adminv1.SigningKey{Kid: fakeActive, Algorithm: "ES256", State: adminv1.SigningKey_ACTIVE, Created: fakeTime(now, -47*time.Hour), Activated: fakeTime(now, -23*time.Hour),
		Audiences: []string{"billing", "orders", "payments"}, AudienceCount: 3, Next: adminv1.SigningKey_HANDS_OVER, Due: fakeTime(now, time.Hour)}
	old := &adminv1.SigningKey{Kid: fakeOld, Algorithm: "RS256", State: adminv1.SigningKey_RETIRING, Created: fakeTime(now, -71*time.Hour), Activated: fakeTime(now, -47*time.Hour),
		Unsigned: fakeTime(now, -time.Minute), Next: adminv1.SigningKey_GOES, Due: fakeTime(now, 5*time.Minute)}
	r := &adminv1.SigningKeys{Keys: []*adminv1.SigningKey{active, standby, old}, Active: fakeActive, Audiences: 3, Leader: "0b8a7d6c-1111"}
	switch mode {
	case "confirmed":
		standby.Waits, standby.WaitCount = nil, 0
	case "by-hand":
		standby.Due, active.Due, active.Next = nil, nil, adminv1.SigningKey_EVENT_UNSPECIFIED
	case "at-once":
		standby.Due, active.Due, r.Asked = nil, nil, fakeTime(now, -time.Second)
	case "full":
		r.Keys = []*adminv1.SigningKey{active, {Kid: fakeTwin, Algorithm: "ES256", State: adminv1.SigningKey_RETIRING}, old}
		r.Full, r.Leader = true, ""
	case "twins":
		r.Keys = append(r.Keys, &adminv1.SigningKey{Kid: fakeTwin, State: adminv1.SigningKey_REVOKED})
	}
	return r
}

func (f *fakeAdmin) ListSigningKeys(context.Context, *adminv1.ListSigningKeysRequest) (*adminv1.ListSigningKeysResponse, error) {
	return &adminv1.ListSigningKeysResponse{SigningKeys: fakeKeys(f.is())}, nil
}

// WatchSigningKeys tells of a rotation: begun, half done, done.
func (f *fakeAdmin) WatchSigningKeys(_ *adminv1.WatchSigningKeysRequest, stream grpc.ServerStreamingServer[adminv1.WatchSigningKeysResponse]) error {
	send := func(keys *adminv1.SigningKeys) error {
		return stream.Send(&adminv1.WatchSigningKeysResponse{SigningKeys: keys})
	}
	half := fakeKeys("")
	half.Active, half.Behind = fakeStandby, 1
	half.Keys[0].Waits, half.Keys[0].WaitCount = half.GetKeys()[1].GetWaits()[:1], 1
	half.Keys[1].State, half.Keys[1].Waits = adminv1.SigningKey_ACTIVE, nil
	done := fakeKeys("")
	done.Active = fakeStandby
	_ = send(fakeKeys("at-once"))
	switch f.is() {
	case "not-begun", "full":
		if f.is() == "full" {
			_ = send(fakeKeys("full"))
		}
		<-stream.Context().Done()
		return stream.Context().Err()
	case "half":
		_ = send(half)
		<-stream.Context().Done()
		return stream.Context().Err()
	case "broken":
		return status.Error(codes.Unavailable, "reading etcd: no leader")
	case "early":
		return nil
	case "longest":
		return status.Error(codes.DeadlineExceeded, "context deadline exceeded")
	}
	_ = send(half)
	return send(done)
}

func (f *fakeAdmin) RotateSigningKey(context.Context, *adminv1.RotateSigningKeyRequest) (*adminv1.RotateSigningKeyResponse, error) {
	switch f.is() {
	case "full":
		return &adminv1.RotateSigningKeyResponse{Active: fakeActive}, nil
	case "not-now":
		return nil, status.Error(codes.FailedPrecondition, "the control plane stops")
	}
	return &adminv1.RotateSigningKeyResponse{Active: fakeActive, Next: fakeStandby}, nil
}

func (f *fakeAdmin) RevokeSigningKey(_ context.Context, r *adminv1.RevokeSigningKeyRequest) (*adminv1.RevokeSigningKeyResponse, error) {
	response := &adminv1.RevokeSigningKeyResponse{Revision: 58, Revoked: []string{r.GetKid()}, Active: fakeStandby, Services: []string{"orders", "payments"}}
	switch {
	case r.GetAll():
		response.Revoked, response.Active = []string{fakeActive, fakeStandby, fakeOld}, fakeTwin
	case r.GetKid() == fakeTwin:
		response.Revoked = nil
	case r.GetKid() != fakeActive && r.GetKid() != fakeStandby && r.GetKid() != fakeOld:
		return nil, status.Errorf(codes.NotFound, "there is no signing key %q", r.GetKid())
	}
	return response, nil
}

// fakeReceipt is of two data planes, one of which had nothing to confirm, and of two of
// whom it is not known.
func fakeReceipt() ([]*adminv1.Confirmed, []*adminv1.Wait) {
	end := timestamppb.New(time.Unix(1_800_000_000, 0))
	return []*adminv1.Confirmed{
			{Node: "orders-1", Service: "orders", Instance: "kq3v6c7dwyzaevb5mz2ggqzlxi", Replica: "0b8a7d6c-1111", Time: end, Elapsed: durationpb.New(0)},
			{Node: "node-\x1b[31m7", Service: "payments", Time: end, Elapsed: durationpb.New(31 * time.Millisecond)},
		}, []*adminv1.Wait{
			{Replica: "ffff7d6c-2222", Host: "cp-2", Why: "departed", Until: end},
			{Replica: "0b8a7d6c-1111", Host: "cp-1", Service: "payments", Gone: 2, Who: []string{"node-9 (bbbb6c7d)"}, Why: "behind", Detail: "it is gone"},
		}
}
