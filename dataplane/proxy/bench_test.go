package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// BenchmarkForward compares the Proxy with a tuned httputil.ReverseProxy in one
// run, by the CPU time of the whole process for one request: client, server and
// upstream are the same for both, and are bare loops over bytes. x-reverseproxy is
// the time of ReverseProxy over that of the Proxy, "bare" what a server without
// any proxying takes; both are of the same run.
func BenchmarkForward(b *testing.B) {
	for _, size := range []int{2, 10 << 10} {
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			target := bareUpstream(b, size)
			own := serve(b, listen(b), newProxy(b, Config{Upstream: target}), ServerConfig{}).address
			reverse := serve(b, listen(b), reverseProxy(b, target), ServerConfig{}).address
			var spent, reverseSpent, bareSpent time.Duration
			// In turns, since the machine is not the same from second to second.
			const round = 500
			for done := 0; done < b.N; done += round {
				n := min(round, b.N-done)
				spent += load(b, own, n)
				reverseSpent += load(b, reverse, n)
				bareSpent += load(b, target, n)
			}
			per := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / float64(b.N) / 1e3 }
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(per(spent-bareSpent), "proxy-cpu-us/op")
			b.ReportMetric(per(reverseSpent-bareSpent), "reverseproxy-cpu-us/op")
			b.ReportMetric(per(bareSpent), "bare-cpu-us/op")
			b.ReportMetric(per(reverseSpent-bareSpent)/per(spent-bareSpent), "x-reverseproxy")
		})
	}
}

func reverseProxy(b *testing.B, target string) http.Handler {
	u := &url.URL{Scheme: "http", Host: target}
	t := &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true}
	b.Cleanup(t.CloseIdleConnections)
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(u)
			r.SetXForwarded()
		},
		Transport: t, BufferPool: bufferPool{},
	}
}

type bufferPool struct{}

func (bufferPool) Get() []byte  { return *buffers.Get().(*[]byte) }
func (bufferPool) Put(b []byte) { buffers.Put(&b) }

// bareUpstream answers whatever ends with an empty line.
func bareUpstream(b testing.TB, size int) string {
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: Mon, 30 Nov 2026 07:00:00 GMT\r\nContent-Length: %d\r\n\r\n%s", size, make([]byte, size))
	return newUpstream(b, func(_ int, c *peer) {
		_ = c.SetDeadline(time.Time{})
		for {
			for {
				line, err := c.br.ReadSlice('\n')
				if err != nil {
					return
				}
				if len(line) == 2 {
					break
				}
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	}).address
}

// load sends n requests over a few connections and returns the CPU time.
func load(b *testing.B, address string, n int) time.Duration {
	b.Helper()
	runtime.GC()
	before := cpu()
	var all sync.WaitGroup
	const callers = 4
	for i := range callers {
		all.Go(func() {
			c, err := net.Dial("tcp", address)
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			br := bufio.NewReaderSize(c, 32<<10)
			for range (n + i) / callers {
				if err := once(c, br); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	return cpu() - before
}

var request = []byte("GET /orders/7?x=1 HTTP/1.1\r\nHost: orders\r\nUser-Agent: bench\r\nAccept: */*\r\nAccept-Encoding: gzip\r\nX-Request-Id: 2fd4e1c67a2d28fced849ee1bb76e7391b93eb12\r\n\r\n")

func once(c net.Conn, br *bufio.Reader) error {
	if _, err := c.Write(request); err != nil {
		return err
	}
	resp, err := readHead(br, 1<<16)
	if err != nil {
		return err
	}
	head, err := parseHead(resp)
	if err != nil {
		return err
	}
	f, err := framingOf("GET", head)
	if err != nil || f.kind != exact {
		return fmt.Errorf("%q: %v, %v", resp, f, err)
	}
	_, err = io.CopyN(io.Discard, br, f.length)
	return err
}

func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
