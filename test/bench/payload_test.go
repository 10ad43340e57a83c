package bench

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
)

// bodySize is that of a mesh.inbound filter chain with three issuers, two keys
// each, a few rules and header mutations.
const bodySize = 6 << 10

// template is text like JSON, with keys in it, which do not compress.
var template = func() []byte {
	random := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 0, bodySize+128)
	for len(b) < bodySize {
		key := make([]byte, 64)
		for i := range key {
			key[i] = byte(random.Uint32())
		}
		b = append(b, `{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","x":"`...)
		b = base64.RawURLEncoding.AppendEncode(b, key)
		b = append(b, `"}`...)
	}
	return b[:bodySize]
}()

// body is the content of a service at a version.
func body(service, version int) []byte {
	b := make([]byte, bodySize)
	copy(b, fmt.Sprintf("%08d/%08d", service, version))
	copy(b[17:], template)
	return b
}
