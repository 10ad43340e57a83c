package bench

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/dataplane/lastgood"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// What a request costs in the sidecar, against a tuned httputil.ReverseProxy without
// any authentication and a real Envoy with our chain, each in a process of its own and
// in front of the same bare service, in turns of the same minute:
//
//	us/req       CPU of the sidecar for a request
//	x-proxy      the same as a multiple of the ReverseProxy
//	x-envoy      ... and of the Envoy
//	req/s, p99-us of the sidecar; envoy-req/s, envoy-p99-us
//
// with one token that repeats, and with 1,000 that take turns.
func BenchmarkSidecar(b *testing.B) {
	s := meshtest.NewSigner(b, "ES256")
	rs := issuerRuleset(s)
	up := bareService(b)
	proxies := []target{startSidecar(b, rs, up), startReverseProxy(b, up), startEnvoyTo(b, rs, up)}
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprintf("%d-tokens", n), func(b *testing.B) {
			tokens := make([]string, n)
			for i := range tokens {
				tokens[i] = s.Token(b, meshtest.NewClaims("https://a.example", "alice", "orders"))
			}
			var costs, took [3]time.Duration
			var waits [3][]time.Duration
			done := 0
			for b.Loop() {
				for i, p := range proxies {
					began := time.Now()
					cost, w := p.cost(b, tokens, requestsPerRound/4)
					costs[i] += cost
					took[i] += time.Since(began)
					waits[i] = append(waits[i], w...)
				}
				done += requestsPerRound / 4
			}
			us := func(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e3 / float64(done) }
			p99 := func(w []time.Duration) float64 {
				slices.Sort(w)
				return float64(w[len(w)*99/100].Microseconds())
			}
			b.ReportMetric(us(costs[0]), "us/req")
			b.ReportMetric(us(costs[1]), "proxy-us/req")
			b.ReportMetric(us(costs[2]), "envoy-us/req")
			b.ReportMetric(float64(costs[0])/float64(costs[1]), "x-proxy")
			b.ReportMetric(float64(costs[0])/float64(costs[2]), "x-envoy")
			b.ReportMetric(float64(done)/took[0].Seconds(), "req/s")
			b.ReportMetric(float64(done)/took[2].Seconds(), "envoy-req/s")
			b.ReportMetric(p99(waits[0]), "p99-us")
			b.ReportMetric(p99(waits[2]), "envoy-p99-us")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkSidecarMemory is what connections take in the sidecar, in bytes each: idle
// ones, and those that have a request on its way.
func BenchmarkSidecarMemory(b *testing.B) {
	s := meshtest.NewSigner(b, "ES256")
	token := s.Token(b, meshtest.NewClaims("https://a.example", "alice", "orders"))
	up := slowService(b)
	const connections = 2000
	var idle, active float64
	for b.Loop() {
		p := startSidecar(b, issuerRuleset(s), up)
		before := p.resident(b)
		conns := make([]net.Conn, connections)
		for i := range conns {
			c, err := net.Dial("tcp", p.address)
			if err != nil {
				b.Fatal(err)
			}
			conns[i] = c
			if _, err := ask(c, bufio.NewReaderSize(c, 512), "/", token); err != nil {
				b.Fatal(err)
			}
		}
		idle = float64(p.resident(b)-before) / connections
		for _, c := range conns {
			if _, err := io.WriteString(c, requestText("/slow", token)); err != nil {
				b.Fatal(err)
			}
		}
		time.Sleep(time.Second) // until all are under way
		active = float64(p.resident(b)-before) / connections
		for _, c := range conns {
			_ = c.Close()
		}
		p.end()
	}
	b.ReportMetric(idle, "B/idle-conn")
	b.ReportMetric(active, "B/active-conn")
	b.ReportMetric(0, "ns/op")
}

// target is a proxy in a process of its own.
type target struct {
	address string
	pid     int
	end     func()
}

func (p target) cpu(b *testing.B) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:])) // proc_pid_stat(5)
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * time.Second / 100 // USER_HZ
}

func (p target) resident(b *testing.B) int64 {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.pid))
	if err != nil {
		b.Fatal(err)
	}
	pages, _ := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// cost sends n requests over a few connections, all of which must be let in.
func (p target) cost(b *testing.B, tokens []string, n int) (time.Duration, []time.Duration) {
	b.Helper()
	before := p.cpu(b)
	var wg sync.WaitGroup
	errs, waits := make([]error, loadConnections), make([][]time.Duration, loadConnections)
	for i := range loadConnections {
		wg.Go(func() {
			c, err := net.Dial("tcp", p.address)
			if err != nil {
				errs[i] = err
				return
			}
			defer c.Close()
			r := bufio.NewReader(c)
			for j := range n / loadConnections {
				began := time.Now()
				status, err := ask(c, r, "/r7/x", tokens[(i+j)%len(tokens)])
				if err == nil && status != http.StatusOK {
					err = fmt.Errorf("status %d", status)
				}
				if errs[i] = err; err != nil {
					return
				}
				waits[i] = append(waits[i], time.Since(began))
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			b.Fatal(err)
		}
	}
	return p.cpu(b) - before, slices.Concat(waits...)
}

func requestText(path, token string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: orders\r\nUser-Agent: bench\r\nAccept: */*\r\nAuthorization: Bearer " + token + "\r\n\r\n"
}

func ask(c net.Conn, r *bufio.Reader, path, token string) (int, error) {
	if _, err := io.WriteString(c, requestText(path, token)); err != nil {
		return 0, err
	}
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, err
}

// bareService answers whatever ends with an empty line.
func bareService(b *testing.B) string {
	return service(b, func(c net.Conn, _ string) { _, _ = io.WriteString(c, answerText) })
}

// slowService lets those wait who ask for /slow.
func slowService(b *testing.B) string {
	return service(b, func(c net.Conn, first string) {
		if strings.Contains(first, "/slow") {
			time.Sleep(5 * time.Second)
		}
		_, _ = io.WriteString(c, answerText)
	})
}

const answerText = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"

func service(b *testing.B, answer func(c net.Conn, firstLine string)) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r, first := bufio.NewReader(c), ""
				for {
					line, err := r.ReadSlice('\n')
					if err != nil {
						return
					}
					if first == "" {
						first = string(line)
					}
					if len(line) == 2 {
						answer(c, first)
						first = ""
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

// startSidecar runs the real program, which finds its ruleset in the file of an earlier
// run and no control plane.
func startSidecar(b *testing.B, rs *dataplanev1.Ruleset, upstream string) target {
	b.Helper()
	dir := b.TempDir()
	binary, cache := filepath.Join(dir, "sidecar"), filepath.Join(dir, "cache")
	build := exec.Command("go", "build", "-o", binary, "./dataplane/cmd/watchword-sidecar")
	build.Dir = meshtest.Root()
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%s: %v\n%s", build, err, out)
	}
	body, err := proto.Marshal(rs)
	if err != nil {
		b.Fatal(err)
	}
	file, err := lastgood.Open(cache)
	if err != nil {
		b.Fatal(err)
	}
	err = file.Save(lastgood.Content{Service: "orders", Saved: time.Now(), Resources: []lastgood.Resource{
		{TypeURL: "type.googleapis.com/watchword.dataplane.v1.Ruleset", Name: "orders", Body: body},
	}})
	if err != nil {
		b.Fatal(err)
	}
	address := meshtest.FreeAddress(b)
	cmd := exec.Command(binary, "--service", "orders", "--ads", "127.0.0.1:1", "--cache-file", cache, "--ops-listen", "", "--log-level", "error",
		"--listen", address, "--upstream", upstream)
	// A token that nobody has given out: there is nobody who could look at it.
	cmd.Env = append(os.Environ(), "WATCHWORD_JOIN_TOKEN=wwjt_"+strings.Repeat("A", 13)+"."+strings.Repeat("B", 52)+"."+strings.Repeat("A", 43))
	return startProcess(b, cmd, address)
}

// envReverseProxy has the test binary be the proxy that the sidecar is compared with.
const envReverseProxy = "WATCHWORD_BENCH_REVERSE_PROXY"

func startReverseProxy(b *testing.B, upstream string) target {
	b.Helper()
	address := meshtest.FreeAddress(b)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envReverseProxy+"="+address+" "+upstream)
	return startProcess(b, cmd, address)
}

// reverseProxy is tuned as one would be that has to be fast: enough idle connections,
// its own buffers, nothing that is not needed.
func reverseProxy(address, upstream string) error {
	to := &url.URL{Scheme: "http", Host: upstream}
	return http.ListenAndServe(address, &httputil.ReverseProxy{
		Rewrite:    func(r *httputil.ProxyRequest) { r.SetURL(to); r.SetXForwarded() },
		Transport:  &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true},
		BufferPool: new(buffers),
	})
}

type buffers struct{ pool sync.Pool }

func (p *buffers) Get() []byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, 32<<10)
}

func (p *buffers) Put(b []byte) { p.pool.Put(&b) }

func startProcess(b *testing.B, cmd *exec.Cmd, address string) target {
	b.Helper()
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	end := sync.OnceFunc(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	b.Cleanup(end)
	meshtest.Eventually(b, func() error {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
	return target{address, cmd.Process.Pid, end}
}

// startEnvoyTo is an Envoy with one worker and the chain of the ruleset.
func startEnvoyTo(b *testing.B, rs *dataplanev1.Ruleset, upstream string) target {
	b.Helper()
	e := &meshtest.Envoy{Service: "bench", Admin: meshtest.FreeAddress(b), Concurrency: 2}
	address := meshtest.FreeAddress(b)
	port := func(address string) string { _, p, _ := net.SplitHostPort(address); return p }
	e.YAML = strings.NewReplacer("ADMIN", port(e.Admin), "PORT", port(address), "UP", port(upstream), "FILTER", chainOf(b, rs)).Replace(`
admin: {address: {socket_address: {address: 127.0.0.1, port_value: ADMIN}}}
static_resources:
  clusters:
  - name: service
    load_assignment: {cluster_name: service, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: UP}}}}]}]}
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: PORT}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          use_remote_address: true
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: service}}]}]}
          http_filters:
          FILTER
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
`)
	e.Start(b)
	return target{address, e.PID(), e.Stop}
}
