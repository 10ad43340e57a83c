package controlplane

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
	"github.com/watchword-mesh/watchword/controlplane/rotation"
	"github.com/watchword-mesh/watchword/issuer/keyset"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// What an answer names of one key.
const (
	mostAudiences = 1000
	mostWaits     = 100
)

var keyStates = map[keyset.State]adminv1.SigningKey_State{
	keyset.Standby: adminv1.SigningKey_STANDBY, keyset.Active: adminv1.SigningKey_ACTIVE,
	keyset.Retiring: adminv1.SigningKey_RETIRING, keyset.Revoked: adminv1.SigningKey_REVOKED,
}

var keyEvents = map[rotation.Event]adminv1.SigningKey_Event{
	rotation.Signs: adminv1.SigningKey_SIGNS, rotation.HandsOver: adminv1.SigningKey_HANDS_OVER, rotation.Goes: adminv1.SigningKey_GOES,
}

// signingKeyList is what people are told of the keys at a moment. Equal moments give
// equal lists.
func signingKeyList(m rotation.Moment) *adminv1.SigningKeys {
	cluster := m.Observer.Cluster()
	resp := &adminv1.SigningKeys{
		Active: m.Keys.Open.Active, Audiences: int32(len(m.Mesh.Audiences)),
		Asked: timeProto(m.Keys.Open.Asked), Leader: cluster.Leader,
	}
	published := 0
	for _, k := range rotation.Show(m) {
		if k.State != keyset.Revoked {
			published++
		}
		if k.KeyID != m.Keys.Open.Active {
			resp.Behind += int32(len(k.Audiences))
		}
		resp.Keys = append(resp.Keys, signingKeyProto(k, cluster))
	}
	_, standby := m.Keys.Standby()
	resp.Full = !standby && published >= keyset.MaxPublished
	return resp
}

func signingKeyProto(k rotation.Key, in ledger.Cluster) *adminv1.SigningKey {
	out := &adminv1.SigningKey{
		Kid: k.KeyID, Algorithm: k.Algorithm, State: keyStates[k.State],
		Created: timeProto(k.Created), Activated: timeProto(k.Activated), Unsigned: timeProto(k.Unsigned),
		Audiences: k.Audiences[:min(len(k.Audiences), mostAudiences)], AudienceCount: int32(len(k.Audiences)),
		Next: keyEvents[k.Next], Due: timeProto(k.When), WaitCount: int32(len(k.Waits)),
	}
	for _, w := range k.Waits[:min(len(k.Waits), mostWaits)] {
		wait := waitProto(w.Wait, in)
		wait.Audience = w.Audience
		out.Waits = append(out.Waits, wait)
	}
	return out
}

func waitProto(w ledger.Wait, in ledger.Cluster) *adminv1.Wait {
	return &adminv1.Wait{
		Replica: w.Member, Host: in.Members[w.Member].Host, Service: w.Service,
		Count: int32(w.Held.Count), Gone: int32(w.Held.Gone), Who: w.Held.Who,
		Why: string(w.Why), Detail: w.Held.Why, Until: timeProto(w.Until),
	}
}

// timeProto is nil for the zero time.
func timeProto(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}
