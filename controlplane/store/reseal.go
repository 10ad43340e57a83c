package store

import (
	"encoding/json"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// sealedPrefixes are where sealed records are.
var sealedPrefixes = []string{metaKey, configPrefix, keysPrefix, casPrefix}

// sealedBox is the sealed part of a record; nil if it has none.
func sealedBox(name string, value []byte) (*sealed, error) {
	switch {
	case name == metaKey:
		var r metaRecord
		err := json.Unmarshal(value, &r)
		return &r.Pepper, err
	case strings.HasPrefix(name, keysPrefix+"."):
	case strings.HasPrefix(name, keysPrefix):
		var r keyRecord
		err := json.Unmarshal(value, &r)
		if err == nil && r.erased() {
			return nil, nil
		}
		return &r.Private, err
	case strings.HasPrefix(name, casPrefix):
		var r caRecord
		err := json.Unmarshal(value, &r)
		return &r.Private, err
	case strings.HasPrefix(name, configPrefix) && len(value) > 0 && value[0] == sealedResource:
		var box sealed
		err := json.Unmarshal(value[1:], &box)
		return &box, err
	}
	return nil, nil
}

// reseal is the record with its sealed part sealed anew.
func (s *Store) reseal(ring Keyring, name string, kv *mvccpb.KeyValue) ([]byte, error) {
	switch {
	case name == metaKey:
		var r metaRecord
		return resealed(ring, kv.Value, &r, &r.Pepper, func() string { return s.prefix + metaKey })
	case strings.HasPrefix(name, keysPrefix):
		var r keyRecord
		return resealed(ring, kv.Value, &r, &r.Private, func() string { return r.binding(s.prefix) })
	case strings.HasPrefix(name, casPrefix):
		var r caRecord
		return resealed(ring, kv.Value, &r, &r.Private, func() string { return r.binding(s.prefix) })
	}
	return s.resealResource(ring, name, kv)
}

// resealed reads a record and writes it again, with the box in it made anew.
func resealed(ring Keyring, value []byte, record any, box *sealed, binding func() string) ([]byte, error) {
	if err := json.Unmarshal(value, record); err != nil {
		return nil, err
	}
	plain, err := open(ring, *box, binding())
	if err != nil {
		return nil, err
	}
	if *box, err = seal(ring, plain, binding()); err != nil {
		return nil, err
	}
	return json.Marshal(record)
}

func (s *Store) resealResource(ring Keyring, name string, kv *mvccpb.KeyValue) ([]byte, error) {
	box, err := sealedBox(name, kv.Value)
	if err != nil {
		return nil, err
	}
	if box == nil {
		return nil, fmt.Errorf("it is not sealed")
	}
	plain, err := open(ring, *box, s.prefix+name)
	if err != nil {
		return nil, err
	}
	revision := kv.ModRevision
	if box.Revision > 0 {
		revision = box.Revision
	}
	again, err := sealAt(ring, plain, s.prefix+name, revision)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(again)
	return append([]byte{sealedResource}, text...), err
}
