package tokens

import "testing"

// BenchmarkToken is what a call costs whose token is in memory.
func BenchmarkToken(b *testing.B) {
	source := newSTS(b).source(b)
	defer source.Close()
	own, _ := selfSigned(b)
	for name, t := range map[string]Tokens{"source": source, "selfsigned": own} {
		mustToken(b, t, "orders")
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			ctx := b.Context()
			for b.Loop() {
				if _, err := t.Token(ctx, "orders"); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(name+"/parallel", func(b *testing.B) {
			b.ReportAllocs()
			ctx := b.Context()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := t.Token(ctx, "orders"); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
