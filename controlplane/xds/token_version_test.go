package xds

import (
	"testing"
	"time"
)

// No version but our own, for this instance, name and key, counts as a token that
// a data plane holds.
func FuzzClaimToken(f *testing.F) {
	s := New(Config{VersionKey: testKey})
	s.tokenKeys.Store(&[]string{"k1", "k2"})
	st := &stream{server: s, identity: orders1}
	renew := time.Unix(2000000000, 0)
	own := st.tokenVersion("token/stock", renew, "k2")
	for _, seed := range []string{own, "", "-", "none", "2000000000-", "2000000000-00", own + "0", "0" + own, "+" + own,
		st.tokenVersion("token/stock", renew, "k3"), st.tokenVersion("token/other", renew, "k2"),
		(&stream{server: s, identity: orders2}).tokenVersion("token/stock", renew, "k2")} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, version string) {
		it := &item{name: "token/stock", token: new(tokenItem), want: absent}
		st.claimToken(it, version)
		if held := it.entry != nil; held != (version == own) {
			t.Errorf("version %q: counts as held: %v, want only %q to", version, held, own)
		}
		if version == own && (it.token.next != renew || it.token.keyID != "k2" || it.want != own) {
			t.Errorf("version %q: got %+v, want a renewal at %v of key k2", version, it.token, renew)
		}
	})
}
