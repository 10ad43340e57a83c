package store

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/controlplane/bundle"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/issuer/ca"
	"github.com/watchword-mesh/watchword/issuer/clientauth"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

const (
	auditPrefix      = "audit/"
	refusedPrefix    = "audit/refused/" // behind all of auditPrefix, whose names are hexadecimal
	bundlesPrefix    = "bundles/"
	casPrefix        = "ca/"
	configPrefix     = "config/"
	enrolmentsPrefix = "enrolments/"
	instancesPrefix  = "instances/"
	joinTokensPrefix = "jointokens/"
	revokedPrefix    = "revoked/"
	keksPrefix       = "kek/"
	keysPrefix       = "keys/"
	secretsPrefix    = "secrets/"

	adminTokenKey = "admintoken"
	// fenceKey is no resource: their kinds begin with a letter.
	fenceKey = configPrefix + ".fence"
)

// First byte of a stored resource.
const (
	plainResource  = 'p'
	sealedResource = 's'
)

// secretRecord is the stored form of a client secret.
type secretRecord struct {
	ID      string    `json:"id"`
	Service string    `json:"service"`
	Hash    []byte    `json:"hash"`
	Created time.Time `json:"created"`
}

// configName is the reverse of configKey.
func configName(name string) (policy.Key, bool) {
	rest, ok := strings.CutPrefix(name, configPrefix)
	kind, resource, both := strings.Cut(rest, "/")
	return policy.Key{Kind: policy.Kind(kind), Name: resource}, ok && both
}

func configKey(k policy.Key) string { return configPrefix + string(k.Kind) + "/" + k.Name }

// decode puts one key-value pair where it belongs.
func (s *Store) decode(snap *Snapshot, kv *mvccpb.KeyValue) error {
	name := strings.TrimPrefix(string(kv.Key), s.prefix)
	var err error
	switch {
	case strings.HasPrefix(name, configPrefix+"."):
	case strings.HasPrefix(name, configPrefix):
		var res *policyv1.Resource
		if res, err = s.decodeResource(name, kv); err == nil {
			snap.Config[policy.KeyOf(res)] = res
		}
	case strings.HasPrefix(name, keysPrefix):
		err = s.decodeKeys(snap, name, kv)
	case strings.HasPrefix(name, secretsPrefix):
		var r secretRecord
		if err = json.Unmarshal(kv.Value, &r); err == nil {
			snap.Secrets[strings.TrimPrefix(name, secretsPrefix)] = clientauth.Secret(r)
		}
	case strings.HasPrefix(name, bundlesPrefix):
		var b bundle.Set
		if b, err = decodeBundle(name, kv); err == nil {
			snap.Bundles[b.Issuer] = b
		}
	default:
		err = s.decodeIdentity(snap, name, kv)
	}
	if err != nil {
		return unreadable(kv, err)
	}
	return nil
}

// decodeIdentity is decode for what says who is who.
func (s *Store) decodeIdentity(snap *Snapshot, name string, kv *mvccpb.KeyValue) (err error) {
	switch {
	case strings.HasPrefix(name, casPrefix):
		var c ca.Record
		if c, err = s.decodeCA(name, kv.Value); err == nil {
			snap.CAs[c.ID] = c
		}
	case strings.HasPrefix(name, instancesPrefix):
		var i Instance
		if i, err = decodeInstance(name, kv); err == nil {
			snap.Instances.set(i)
		}
	case strings.HasPrefix(name, enrolmentsPrefix):
		var t time.Time
		if t, err = decodeEnrolments(kv.Value); err == nil {
			snap.RevokedBefore[strings.TrimPrefix(name, enrolmentsPrefix)] = t
		}
	case name == adminTokenKey:
		var t AdminTokenState
		if t, err = decodeAdminToken(kv); err == nil {
			snap.AdminToken = t
		}
	}
	return err
}

func (s *Store) decodeResource(name string, kv *mvccpb.KeyValue) (*policyv1.Resource, error) {
	if len(kv.Value) == 0 {
		return nil, fmt.Errorf("it is empty")
	}
	body, revision := kv.Value[1:], kv.ModRevision
	switch kv.Value[0] {
	case plainResource:
	case sealedResource:
		var box sealed
		if err := json.Unmarshal(body, &box); err != nil {
			return nil, err
		}
		var err error
		if body, err = open(s.kek.ring(), box, s.prefix+name); err != nil {
			return nil, err
		}
		if box.Revision > 0 {
			revision = box.Revision
		}
	default:
		return nil, fmt.Errorf("it has the unknown form %q", kv.Value[0])
	}
	res := &policyv1.Resource{}
	if err := proto.Unmarshal(body, res); err != nil {
		return nil, err
	}
	if got := configKey(policy.KeyOf(res)); got != name {
		return nil, fmt.Errorf("it holds %s", got)
	}
	// The revision is etcd's own; what is stored of it is of the time before.
	res.Metadata.Revision = revision
	return res, nil
}

func (s *Store) encodeResource(ring Keyring, res *policyv1.Resource) ([]byte, error) {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(res)
	if err != nil {
		return nil, err
	}
	if !policy.HasSecrets(res) {
		return append([]byte{plainResource}, body...), nil
	}
	box, err := seal(ring, body, s.prefix+configKey(policy.KeyOf(res)))
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(box)
	return append([]byte{sealedResource}, text...), err
}
