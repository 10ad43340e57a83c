package xds

import (
	"bytes"
	"fmt"
	"testing"
)

// BenchmarkVersion is what a changed resource of the size of a filter chain costs
// to be named.
func BenchmarkVersion(b *testing.B) {
	for _, size := range []int{0, 8 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			r := filter("mesh.inbound/orders", string(bytes.Repeat([]byte("x"), size)))
			b.ReportAllocs()
			for b.Loop() {
				version(testKey, r)
			}
		})
	}
}
