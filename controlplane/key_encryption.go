package controlplane

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/api"
	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/store"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// keyEncryption implements api.KEK.
type keyEncryption struct {
	store  *store.Store
	config Config
	// rotating is held over a whole rotation: what it does to the file, and what it
	// reads from there, belong together with what it seals.
	rotating sync.Mutex
	// lifetime ends with the replica, and end ends it.
	lifetime context.Context
	end      context.CancelFunc
}

func newKeyEncryption(s *store.Store, c Config) *keyEncryption {
	k := &keyEncryption{store: s, config: c.withDefaults()}
	k.lifetime, k.end = context.WithCancel(context.Background())
	return k
}

// close breaks a rotation off, waits until it has ended, and lets none begin.
func (k *keyEncryption) close() {
	k.end()
	k.rotating.Lock()
}

// RotateKEK reads the source of the key-encryption key anew; that of the data
// folder, which nobody else looks after, gets a new key first, and loses the old
// ones when nothing is sealed with them any more. It goes on if who asked is gone,
// and ends with the replica.
func (k *keyEncryption) RotateKEK(ctx context.Context, e audit.Entry, progress func(*adminv1.RotateKEKResponse) error) error {
	if !k.rotating.TryLock() {
		return api.Precondition(store.ErrRotating.Error())
	}
	defer k.rotating.Unlock()
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(k.lifetime, cancel)()
	next, begun, err := k.begin(ctx, e)
	if err != nil && !begun {
		return err
	}
	last := &adminv1.RotateKEKResponse{Kek: next.ID()}
	if err == nil {
		err = k.seal(ctx, next, func(done, total int64) {
			last = &adminv1.RotateKEKResponse{Kek: next.ID(), Done: done, Total: total}
			_ = progress(last) // who asked may be gone; the work goes on
		})
	}
	if err := errors.Join(err, k.noteEnd(ctx, e, last, err)); err != nil {
		return err
	}
	return progress(&adminv1.RotateKEKResponse{Kek: next.ID(), Done: last.GetDone(), Total: last.GetTotal(), Finished: true})
}

// begin finds the keys to go on with, and writes down that it has begun. Where it
// is for us to make a key, a rotation that was broken off is gone on with instead.
func (k *keyEncryption) begin(ctx context.Context, e audit.Entry) (next store.Keyring, begun bool, err error) {
	current := k.store.Keyring().ID()
	complete, err := k.complete(ctx, current)
	if err != nil {
		return next, false, err
	}
	e.Subjects = []string{"began to replace the key-encryption key " + current}
	if k.config.KEKExec != "" && complete {
		// The new key is in etcd with the entry, or not at all.
		if _, err := k.store.AddPluginKEK(ctx, k.config.plugin(), e); err != nil {
			return next, false, err
		}
		next, err = k.store.PluginKeyring(ctx, k.config.plugin())
		return next, true, err
	}
	switch {
	case k.config.KEKExec != "":
		next, err = k.store.PluginKeyring(ctx, k.config.plugin())
		next = next.With(k.store.Keyring()) // such as a key in a file, from before there was the program
	case k.own() && complete:
		next, err = k.add(current)
	default:
		next, err = k.config.keyring(false)
		if err == nil && complete && next.ID() == current {
			err = k.unchanged(current)
		}
	}
	if err != nil {
		return next, false, err
	}
	e.Subjects = append(e.Subjects, "kek/"+next.ID())
	err = k.store.Record(ctx, e)
	return next, err == nil, err
}

// complete says that nothing is sealed with another key.
func (k *keyEncryption) complete(ctx context.Context, id string) (bool, error) {
	sealed, err := k.store.SealedWith(ctx)
	delete(sealed, id)
	return len(sealed) == 0, err
}

// add makes a key in the data folder, and gives what the file holds then: nothing
// may be sealed with a key that is not there.
func (k *keyEncryption) add(current string) (store.Keyring, error) {
	held, err := k.config.keyring(false)
	if err == nil && !slices.Contains(held.IDs(), current) {
		err = fmt.Errorf("%s does not hold the key-encryption key %s any more, which everything is sealed with: put it back from a copy before the next start, and rotate then", k.path(), current)
	}
	if err != nil {
		return held, err
	}
	added, err := store.AddKEK(k.path())
	if err != nil {
		return added, err
	}
	held, err = k.config.keyring(false)
	if err == nil && held.ID() != added.ID() {
		err = fmt.Errorf("nothing was sealed anew, since somebody else has changed %s at the same time: look at it, and rotate again", k.path())
	}
	return held, err
}

// unchanged is the answer where the new key is not there yet.
func (k *keyEncryption) unchanged(current string) error {
	where := "the file " + k.config.KEKFile
	if k.config.KEKFile == "" {
		where = "WATCHWORD_KEK, and restart"
	}
	return api.Precondition(fmt.Sprintf("everything is sealed with the key-encryption key %s already, and that is still the first: put the new key as a line of its own in front of it into %s; then rotate again", current, where))
}

// seal seals everything anew. In the data folder the older keys go when that is
// done, and not before.
func (k *keyEncryption) seal(ctx context.Context, next store.Keyring, report func(done, total int64)) error {
	if err := k.store.RotateKEK(ctx, next, report); err != nil || !k.own() {
		return err
	}
	complete, err := k.complete(ctx, next.ID())
	if err == nil && !complete {
		err = fmt.Errorf("not everything is sealed with the key-encryption key %s: all keys stay in %s; rotate again", next.ID(), k.path())
	}
	if err != nil {
		return err
	}
	return store.DropKEKs(k.path(), next.ID())
}

// noteEnd writes down how it has ended, also if that is because the replica stops.
func (k *keyEncryption) noteEnd(ctx context.Context, e audit.Entry, last *adminv1.RotateKEKResponse, ended error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	e.Time = time.Now()
	e.Subjects = []string{"sealed everything with another key-encryption key", "kek/" + last.GetKek()}
	if ended != nil {
		e.Subjects = []string{fmt.Sprintf("replacing the key-encryption key broke off after %d of %d records: %s", last.GetDone(), last.GetTotal(), ended)}
		k.config.Logger.Error("key-encryption key: rotation broke off; everything can still be read", "done", last.GetDone(), "of", last.GetTotal(), "error", ended)
	} else {
		k.config.Logger.Info("key-encryption key: rotation ended", "kek", last.GetKek(), "records", last.GetDone())
	}
	if err := k.store.Record(ctx, e); err != nil {
		return fmt.Errorf("how the rotation ended is not in the audit: %w", err)
	}
	return nil
}

// own says whether the key is that of the data folder.
func (k *keyEncryption) own() bool {
	return k.config.KEKFile == "" && k.config.KEK == "" && k.config.KEKExec == ""
}

func (k *keyEncryption) path() string { return filepath.Join(k.config.DataDir, kekFile) }
