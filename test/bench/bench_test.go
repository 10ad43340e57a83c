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

// side is one server with its fleet and what was measured of it.
type side struct {
	*child
	fleet         *fleet
	empty, filled float64 // resident bytes
	elapsed, cpu  []time.Duration
}

func newSide(b *testing.B, name string, m mesh, env ...string) *side {
	b.Helper()
	s := &side{child: launch(b, name, "127.0.0.1:0", m.services, env...)}
	s.ask("settle")
	s.empty = s.bytes()
	var err error
	if s.fleet, err = startFleet(s.address, m.streams, m.services); err != nil {
		b.Fatal(err)
	}
	s.ask("served %d", m.streams)
	return s
}

// mesh is how many data planes there are, spread over how many services. With
// one service a change is one message to all, as at the floor; with more, each
// service is compiled and has a message of its own.
type mesh struct{ streams, services int }

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

// inFolder is the environment of a control plane with data of its own.
func inFolder(b *testing.B) string {
	b.Helper()
	dir, err := os.MkdirTemp("", "ww") // short, for the socket in it
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	return envDir + "=" + dir
}

// BenchmarkFanout measures one changed key from its apply to the last ACK, with
// the write to etcd and its fsync, and what it costs the server; the floor is a
// bare gRPC server that sends as many bytes, encoded once, to as many streams.
// Both run at once and take turns.
func BenchmarkFanout(b *testing.B) {
	for _, m := range []mesh{{100, 1}, {1000, 1}, {3000, 1}, {1000, 100}, {3000, 300}} {
		b.Run(fmt.Sprintf("streams=%d/services=%d", m.streams, m.services), func(b *testing.B) { fanout(b, m) })
	}
}

// pushes of each side; the first ones warm up and are not counted.
const (
	pushes  = 31
	warmups = 3
)

func fanout(b *testing.B, m mesh) {
	if err := raiseFileLimit(); err != nil {
		b.Fatal(err)
	}
	own := newSide(b, "watchword", m, inFolder(b))
	defer own.close()
	floor := newSide(b, "floor", m, fmt.Sprintf("%s=%d", envSize, own.fleet.largest.Load()))
	defer floor.close()
	for b.Loop() {
		for i := range warmups + pushes {
			for _, s := range []*side{floor, own} {
				if i == warmups {
					s.elapsed, s.cpu = nil, nil
				}
				s.change(m.streams)
			}
		}
	}
	for _, s := range []*side{floor, own} {
		s.ask("settle")
		s.filled = s.bytes()
	}
	b.ReportMetric(float64(own.fleet.largest.Load()), "B/message")
	ms := func(d time.Duration) float64 { return float64(d) / 1e6 }
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(median(own.elapsed)), "ms/push")
	b.ReportMetric(ms(median(floor.elapsed)), "floor-ms/push")
	b.ReportMetric(ms(median(own.elapsed))/ms(median(floor.elapsed)), "x-floor")
	b.ReportMetric(median(own.cpu).Seconds()*1000/float64(m.streams), "cpu-s/1000streams")
	b.ReportMetric(median(floor.cpu).Seconds()*1000/float64(m.streams), "floor-cpu-s/1000streams")
	b.ReportMetric((own.filled-own.empty)/1024/float64(m.streams), "KiB/stream")
	b.ReportMetric((floor.filled-floor.empty)/1024/float64(m.streams), "floor-KiB/stream")
}

// BenchmarkRestart measures from the kill of a server, whose successor starts at
// once, until all streams are served again. Clients come back after 0.1 s, with
// jitter, and claim what they hold; all of it is still current.
func BenchmarkRestart(b *testing.B) {
	m := mesh{streams: 3000, services: 300}
	b.Run(fmt.Sprintf("streams=%d/services=%d", m.streams, m.services), func(b *testing.B) {
		if err := raiseFileLimit(); err != nil {
			b.Fatal(err)
		}
		folder := inFolder(b)
		s := newSide(b, "watchword", m, folder)
		defer func() { s.close() }()
		var took []time.Duration
		for b.Loop() {
			for range restarts {
				start := time.Now()
				s.stop()
				s.child = launch(b, "watchword", s.address, m.services, folder)
				s.ask("served %d", m.streams)
				took = append(took, time.Since(start))
			}
		}
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(median(took).Seconds(), "s/restart")
	})
}

const restarts = 3
