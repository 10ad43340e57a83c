package bench

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The environment of a server process. Standard input holds commands, standard
// output one line of answer each.
const (
	envServer   = "WATCHWORD_BENCH_SERVER" // a key of servers
	envListen   = "WATCHWORD_BENCH_LISTEN" // address
	envServices = "WATCHWORD_BENCH_SERVICES"
	envDir      = "WATCHWORD_BENCH_DIR"
	envSize     = "WATCHWORD_BENCH_SIZE"  // bytes of the floor's message
	envPlain    = "WATCHWORD_BENCH_PLAIN" // a floor without TLS
)

// server is what runs in the server process.
type server interface {
	// Start serves ADS on the address for that many services, and returns the
	// address. A second start on the same folder finds what the first has left.
	Start(address, dir string, services int) (string, error)
	// JoinTokens makes one for each service, for that many instances; none if
	// clients need no identity.
	JoinTokens(instances int) ([]string, error)
	// Admin is the address of the admin API, whose CA is ca.pem in the folder.
	Admin() string
	// Served returns when n streams hold everything.
	Served(n int) error
	// Change makes content current in which one key differs, and returns when
	// all n streams have confirmed it.
	Change(n int) error
}

// servers by name.
var servers = map[string]func() server{
	"bare enrolment": newBareEnrolment,
	"floor":          newFloor,
	"floor of calls": newFloorOfCalls,
	"watchword":      newWhole,
}

func TestMain(m *testing.M) {
	if name := os.Getenv(envServer); name != "" {
		if err := serve(name); err != nil {
			fmt.Fprintln(os.Stderr, "bench server:", err)
			os.Exit(1)
		}
		return
	}
	if to := os.Getenv(envReverseProxy); to != "" {
		address, upstream, _ := strings.Cut(to, " ")
		fmt.Fprintln(os.Stderr, "bench proxy:", reverseProxy(address, upstream))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// serve runs a server until standard input ends.
func serve(name string) error {
	if err := raiseFileLimit(); err != nil {
		return err
	}
	services, err := strconv.Atoi(os.Getenv(envServices))
	if err != nil {
		return fmt.Errorf("reading %s: %w", envServices, err)
	}
	srv := servers[name]()
	address, err := srv.Start(os.Getenv(envListen), os.Getenv(envDir), services)
	if err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	fmt.Println(address)
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		answer, err := command(srv, in.Text())
		if err != nil {
			return fmt.Errorf("%s: %w", in.Text(), err)
		}
		fmt.Println(answer)
	}
	return in.Err()
}

// command runs one line: "join N", "admin", "served N", "change N", "cpu", "usage" or
// "settle".
func command(srv server, line string) (string, error) {
	word, arg, _ := strings.Cut(line, " ")
	n, _ := strconv.Atoi(arg)
	switch word {
	case "join":
		tokens, err := srv.JoinTokens(n)
		return strings.Join(tokens, " "), err
	case "admin":
		return srv.Admin(), nil
	case "cpu":
		return strconv.FormatInt(int64(cpu()), 10), nil
	case "served":
		return "ok", srv.Served(n)
	case "change":
		before, start := cpu(), time.Now()
		err := srv.Change(n)
		return fmt.Sprintf("%d %d", time.Since(start), cpu()-before), err
	case "usage":
		resident, err := residentBytes()
		return strconv.FormatInt(resident, 10), err
	case "settle": // as a server is after minutes of quiet
		runtime.GC()
		debug.FreeOSMemory()
		return "ok", nil
	}
	return "", fmt.Errorf("unknown command")
}

// cpu is the time, user and system, that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err) // cannot fail with these arguments
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func residentBytes() (int64, error) {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	return pages * int64(os.Getpagesize()), err
}

func raiseFileLimit() error {
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	l.Cur = l.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l)
}
