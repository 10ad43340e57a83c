package xds

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"
)

// noToken is the version of a secret without a token.
const noToken = "none"

// tokenVersion says when the token is to be renewed, in Unix seconds, and proves
// that we have said so to this instance, of a token of this key. So a data plane
// that comes back, to whichever replica, keeps the token that it holds, and no
// token has to be remembered. Nothing of the token is in it.
func (st *stream) tokenVersion(name string, renew time.Time, keyID string) string {
	at := strconv.FormatInt(renew.Unix(), 10)
	h := hmac.New(sha256.New, st.server.versionKey)
	for _, part := range []string{"token version", st.identity.Service, st.identity.Instance, name, at, keyID} {
		h.Write([]byte(strconv.Itoa(len(part)) + ":" + part))
	}
	return at + "-" + hex.EncodeToString(h.Sum(nil)[:12])
}

// claimToken takes a version that the data plane says it holds, if it is one of
// ours whose key is in use. What it holds of any other is replaced.
func (st *stream) claimToken(it *item, version string) {
	at, _, ok := strings.Cut(version, "-")
	seconds, err := strconv.ParseInt(at, 10, 64)
	keys := st.server.tokenKeys.Load()
	if !ok || err != nil || keys == nil {
		return
	}
	renew := time.Unix(seconds, 0)
	for _, keyID := range *keys {
		if hmac.Equal([]byte(st.tokenVersion(it.name, renew, keyID)), []byte(version)) {
			it.token.next, it.token.keyID = renew, keyID
			it.entry, it.want = &entry{version: version, secret: true}, version
			return
		}
	}
}
