package bench

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
)

// body is text like JSON, with keys in it, which do not compress, of a size and
// a version.
func body(size, version int) []byte {
	random := rand.New(rand.NewPCG(1, uint64(version)))
	b := fmt.Appendf(nil, "%08d", version)
	for len(b) < size {
		key := make([]byte, 64)
		for i := range key {
			key[i] = byte(random.Uint32())
		}
		b = append(b, `{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","x":"`...)
		b = base64.RawURLEncoding.AppendEncode(b, key)
		b = append(b, `"}`...)
	}
	return b[:max(size, 0)]
}
