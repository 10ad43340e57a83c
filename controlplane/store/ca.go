package store

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/issuer/ca"
)

// caRecord is the stored form of a CA.
type caRecord struct {
	ID          string    `json:"id"`
	State       ca.State  `json:"state"`
	Created     time.Time `json:"created"`
	Certificate []byte    `json:"certificate"`
	Private     sealed    `json:"private"`
}

// binding is what the sealed private key is bound to: moved to another place, or
// beside another state or certificate, it can't be opened.
func (r caRecord) binding(prefix string) string {
	return strings.Join([]string{prefix + casPrefix + r.ID, string(r.State), r.Created.UTC().Format(time.RFC3339Nano),
		base64.StdEncoding.EncodeToString(r.Certificate)}, "|")
}

func (s *Store) decodeCA(name string, value []byte) (ca.Record, error) {
	var r caRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return ca.Record{}, err
	}
	if name != casPrefix+r.ID {
		return ca.Record{}, fmt.Errorf("it holds %s%s", casPrefix, r.ID)
	}
	private, err := open(s.kek.ring(), r.Private, r.binding(s.prefix))
	if err != nil {
		return ca.Record{}, err
	}
	return ca.Record{ID: r.ID, State: r.State, Created: r.Created, Certificate: r.Certificate, PrivatePKCS8: private}, nil
}

// AddFirstCA stores a CA if there is none yet, and says whether it did.
func (s *Store) AddFirstCA(ctx context.Context, c ca.Record) (bool, error) {
	ring, done := s.kek.begin()
	defer done()
	r := caRecord{ID: c.ID, State: c.State, Created: c.Created.UTC(), Certificate: c.Certificate}
	var err error
	if r.Private, err = seal(ring, c.PrivatePKCS8, r.binding(s.prefix)); err != nil {
		return false, err
	}
	value, err := encodeJSON(r)
	if err != nil {
		return false, err
	}
	none := clientv3.Compare(clientv3.CreateRevision(s.prefix+casPrefix).WithPrefix(), "=", 0)
	_, err = s.write(ctx, audit.Entry{}, []clientv3.Cmp{none}, clientv3.OpPut(s.prefix+casPrefix+c.ID, value))
	if errors.Is(err, ErrConflict) {
		return false, nil
	}
	return err == nil, err
}
