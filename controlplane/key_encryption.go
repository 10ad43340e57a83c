package controlplane

import (
	"context"
	"path/filepath"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/store"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// keyEncryption implements api.KEK.
type keyEncryption struct {
	store  *store.Store
	config Config
}

// RotateKEK reads the source of the key-encryption key anew; that of the data
// folder, which nobody else looks after, gets a new key first, and loses the old
// ones when nothing is sealed with them any more.
func (k *keyEncryption) RotateKEK(ctx context.Context, e audit.Entry, progress func(*adminv1.RotateKEKResponse) error) error {
	next, err := k.next(ctx, e)
	if err != nil {
		return err
	}
	last := &adminv1.RotateKEKResponse{Kek: next.ID()}
	report := func(done, total int64) {
		last = &adminv1.RotateKEKResponse{Kek: next.ID(), Done: done, Total: total}
		_ = progress(last) // who asked may be gone; the work goes on
	}
	if err := k.store.RotateKEK(ctx, next, e, report); err != nil {
		return err
	}
	if k.own() {
		if err := store.DropKEKs(k.path(), next.ID()); err != nil {
			return err
		}
	}
	return progress(&adminv1.RotateKEKResponse{Kek: next.ID(), Done: last.GetDone(), Total: last.GetTotal(), Finished: true})
}

// own says whether the key is that of the data folder.
func (k *keyEncryption) own() bool {
	return k.config.KEKFile == "" && k.config.KEK == "" && k.config.KEKExec == ""
}

func (k *keyEncryption) path() string { return filepath.Join(k.config.DataDir, kekFile) }

// next is the key to go on with. Where it is for us to make one, a rotation that was
// broken off is gone on with instead.
func (k *keyEncryption) next(ctx context.Context, e audit.Entry) (store.Keyring, error) {
	sealed, err := k.store.SealedWith(ctx)
	if err != nil {
		return store.Keyring{}, err
	}
	delete(sealed, k.store.Keyring().ID())
	switch complete := len(sealed) == 0; {
	case k.config.KEKExec != "":
		return k.store.PluginKeyring(ctx, k.config.plugin(), complete, e)
	case k.own() && complete:
		return store.AddKEK(k.path())
	}
	return k.config.keyring(false)
}
