package bench

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/test/meshtest"
)

// child is a server process.
type child struct {
	b       *testing.B
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Scanner
	address string
}

// launch starts a server process; address may end in :0.
func launch(b *testing.B, name, address string, services int, env ...string) *child {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envServer+"="+name, envListen+"="+address, envServices+"="+strconv.Itoa(services))
	cmd.Env = append(cmd.Env, env...)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	c := &child{b: b, cmd: cmd, in: in, out: bufio.NewScanner(out)}
	c.out.Buffer(nil, 1<<20) // the join tokens of all services are one line
	c.address = c.read()
	return c
}

func (c *child) read() string {
	c.b.Helper()
	if !c.out.Scan() {
		c.b.Fatalf("the server process ended: %v", c.out.Err())
	}
	return c.out.Text()
}

func (c *child) ask(command string, args ...any) string {
	c.b.Helper()
	if _, err := fmt.Fprintf(c.in, command+"\n", args...); err != nil {
		c.b.Fatalf("asking the server process: %v", err)
	}
	return c.read()
}

// stop kills the process, as a crash would.
func (c *child) stop() {
	_ = c.cmd.Process.Kill()
	_ = c.cmd.Wait()
}

func (c *child) bytes() float64 {
	c.b.Helper()
	n, err := strconv.ParseFloat(c.ask("usage"), 64)
	if err != nil {
		c.b.Fatal(err)
	}
	return n
}

// used is the CPU time of the process since its start.
func (c *child) used() time.Duration {
	c.b.Helper()
	n, err := strconv.ParseInt(c.ask("cpu"), 10, 64)
	if err != nil {
		c.b.Fatal(err)
	}
	return time.Duration(n)
}

// side is one server with its fleet and what was measured of it.
type side struct {
	*child
	fleet         *fleet
	empty, filled float64 // resident bytes
	elapsed, cpu  []time.Duration
}

// newSide starts a server and its fleet. The clients have enrolled before
// anything is measured.
func newSide(b *testing.B, name string, m mesh, env ...string) *side {
	b.Helper()
	s := &side{child: launch(b, name, "127.0.0.1:0", m.services, env...)}
	as, err := s.enrol(m)
	if err != nil {
		b.Fatal(err)
	}
	s.ask("settle")
	s.empty = s.bytes()
	if s.fleet, err = startFleet(s.address, m, as); err != nil {
		b.Fatal(err)
	}
	s.ask("served %d", m.streams)
	return s
}

// mesh is how many data planes there are, spread over how many services. With
// one service a change is one message to all, as at the floor; with more, each
// service is compiled and has a message of its own.
type mesh struct {
	streams, services int
	// perInstance is how many streams share an identity; 0 is sharing. Each has
	// its own connection and handshake all the same.
	perInstance int
}

// sharing keeps enrolling short, and is half of what one instance may have.
const sharing = 16

func (m mesh) sharing() int {
	if m.perInstance > 0 {
		return m.perInstance
	}
	return sharing
}

// instances is how many each service needs.
func (m mesh) instances() int {
	streams := (m.streams + m.services - 1) / m.services
	return (streams + m.sharing() - 1) / m.sharing()
}

func (s *side) change(streams int) {
	s.b.Helper()
	var elapsed, cpu time.Duration
	if _, err := fmt.Sscan(s.ask("change %d", streams), &elapsed, &cpu); err != nil {
		s.b.Fatal(err)
	}
	s.elapsed, s.cpu = append(s.elapsed, elapsed), append(s.cpu, cpu)
}

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}

func (s *side) close() {
	s.fleet.stop()
	s.stop()
}

// inFolder is the environment of a server with data of its own.
func inFolder(b *testing.B) string { b.Helper(); return envDir + "=" + meshtest.ShortDir(b) }

// BenchmarkFanout measures one changed key from its apply to the last ACK, with
// the write to etcd and its fsync, and what it costs the server; the floor is a
// bare gRPC server that sends as many bytes, encoded once, to as many streams,
// over the same TLS with a certificate of each client: what TLS costs is on both
// sides of the ratio, and BenchmarkTLS has it alone. Both run at once and take
// turns.
func BenchmarkFanout(b *testing.B) {
	for _, m := range []mesh{{streams: 100, services: 1}, {streams: 1000, services: 1}, {streams: 3000, services: 1}, {streams: 1000, services: 100}, {streams: 3000, services: 300}} {
		b.Run(fmt.Sprintf("streams=%d/services=%d", m.streams, m.services), func(b *testing.B) { fanout(b, m) })
	}
}

// pushes of each side; the first ones warm up and are not counted.
const (
	pushes  = 31
	warmups = 3
)

// takeTurns pushes to the sides in turn, and weighs them in the end.
func takeTurns(streams int, sides ...*side) {
	for i := range warmups + pushes {
		for _, s := range sides {
			if i == warmups {
				s.elapsed, s.cpu = nil, nil
			}
			s.change(streams)
		}
	}
	for _, s := range sides {
		s.ask("settle")
		s.filled = s.bytes()
	}
}

func ms(d time.Duration) float64 { return float64(d) / 1e6 }

func fanout(b *testing.B, m mesh) {
	if err := raiseFileLimit(); err != nil {
		b.Fatal(err)
	}
	own := newSide(b, "watchword", m, inFolder(b))
	defer own.close()
	floor := newSide(b, "floor", m, fmt.Sprintf("%s=%d", envSize, own.fleet.largest.Load()))
	defer floor.close()
	for b.Loop() {
		takeTurns(m.streams, floor, own)
	}
	b.ReportMetric(float64(own.fleet.largest.Load()), "B/message")
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(median(own.elapsed)), "ms/push")
	b.ReportMetric(ms(median(floor.elapsed)), "floor-ms/push")
	b.ReportMetric(ms(median(own.elapsed))/ms(median(floor.elapsed)), "x-floor")
	b.ReportMetric(median(own.cpu).Seconds()*1000/float64(m.streams), "cpu-s/1000streams")
	b.ReportMetric(median(floor.cpu).Seconds()*1000/float64(m.streams), "floor-cpu-s/1000streams")
	b.ReportMetric((own.filled-own.empty)/1024/float64(m.streams), "KiB/stream")
	b.ReportMetric((floor.filled-floor.empty)/1024/float64(m.streams), "floor-KiB/stream")
}
