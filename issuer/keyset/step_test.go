package keyset_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/watchword-mesh/watchword/issuer/keyset"
)

var rewrite = flag.Bool("rewrite", false, "write what the scripts in testdata print into them")

// The scripts in testdata are the life of keys, told over time: what happens, and
// what Step makes of it. Each begins with what it is there for.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("scripts: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(t, string(text))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(text), got); diff != "" {
				t.Errorf("%s (-file +run; -rewrite takes over what is printed):\n%s", file, diff)
			}
		})
	}
}

// A script is a sequence of commands, each on a line; what it prints comes below it,
// indented. The names of keys are k1, k2 ... in the order in which they were made.
//
//	at DURATION              since the start
//	every DURATION           how long a key signs
//	alg ALG                  of new keys
//	lifetime, skew DURATION  of tokens, and of verifiers
//	audiences A B ...        that tokens are issued for
//	confirm A ...            verifiers of A have what is published now
//	applied                  all who sign go by what is open now
//	ask                      somebody asks for a rotation
//	step                     until nothing more is to be written
//	revoke K, revoke-all     in an emergency
type script struct {
	t         *testing.T
	keys      keyset.Keys
	facts     keyset.Facts
	names     map[string]string // key ID to name
	confirmed map[string]int64
	applied   int64
	revision  int64
	out       strings.Builder
}

var start = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

func runScript(t *testing.T, text string) string {
	s := &script{t: t, names: map[string]string{}, confirmed: map[string]int64{}}
	s.keys = keyset.Keys{Records: map[string]keyset.Record{}}
	s.facts = keyset.Facts{
		Now: start, Algorithm: "ES256", Every: 24 * time.Hour,
		Lifetime: 5 * time.Minute, Skew: time.Minute, ClockError: time.Second,
		Gate:     func(published int64, audience string) bool { return s.confirmed[audience] >= published },
		Unsigned: func(revision int64) bool { return s.applied >= revision },
	}
	first := s.make("ES256")
	first.State, first.Activated = keyset.Active, start
	s.write(keyset.Change{Put: []keyset.Record{first}, Open: &keyset.Open{Active: first.KeyID}})
	for _, line := range strings.SplitAfter(text, "\n") {
		if strings.HasPrefix(line, "    ") {
			continue // printed by an earlier run
		}
		s.out.WriteString(line)
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			command, rest, _ := strings.Cut(line, " ")
			s.run(command, strings.Fields(rest))
		}
	}
	return s.out.String()
}

func (s *script) run(command string, args []string) {
	switch command {
	case "at":
		s.facts.Now = start.Add(s.duration(args))
	case "every":
		s.facts.Every = s.duration(args)
	case "lifetime":
		s.facts.Lifetime = s.duration(args)
	case "skew":
		s.facts.Skew = s.duration(args)
	case "alg":
		s.facts.Algorithm = args[0]
	case "audiences":
		s.facts.Audiences = args
	case "confirm":
		for _, a := range args {
			s.confirmed[a] = s.revision
		}
	case "applied":
		s.applied = s.revision
	case "ask":
		s.revision++
		s.keys.Open.Asked, s.keys.Open.Revision = s.facts.Now, s.revision
	case "step":
		s.step()
	case "revoke":
		for kid, name := range s.names {
			if name == args[0] {
				s.emergency(keyset.Revoke(s.keys, kid, s.spares(), s.facts.Now))
			}
		}
	case "revoke-all":
		s.emergency(keyset.RevokeAll(s.keys, s.spares(), s.facts.Now), nil)
	default:
		s.t.Fatalf("unknown command %q", command)
	}
}

func (s *script) duration(args []string) time.Duration {
	d, err := time.ParseDuration(args[0])
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

// make is a new key. Step looks at no key material, so there is none.
func (s *script) make(alg string) keyset.Record {
	kid := fmt.Sprintf("kid-%d", len(s.names)+1)
	s.names[kid] = fmt.Sprintf("k%d", len(s.names)+1)
	return keyset.Record{KeyID: kid, Algorithm: alg, State: keyset.Standby, Created: s.facts.Now.Add(time.Duration(len(s.names)))}
}

func (s *script) spares() [2]keyset.Record {
	return [2]keyset.Record{s.make(s.facts.Algorithm), s.make(s.facts.Algorithm)}
}

func (s *script) emergency(c keyset.Change, err error) {
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(c)
	s.print()
}

func (s *script) step() {
	for range 10 {
		c := keyset.Step(s.keys, s.facts)
		if c.Empty() {
			s.print()
			return
		}
		s.write(c)
	}
	s.t.Fatal("Step never comes to an end")
}

// write stores a change as etcd would.
func (s *script) write(c keyset.Change) {
	s.revision++
	records := maps.Clone(s.keys.Records)
	if c.Publish != "" {
		c.Put = append(c.Put, s.make(c.Publish))
	}
	for _, r := range c.Put {
		if r.Revision = s.revision; r.Published == 0 {
			r.Published = s.revision
		}
		records[r.KeyID] = r
	}
	for _, kid := range c.Delete {
		delete(records, kid)
	}
	s.keys.Records = records
	if c.Open != nil {
		s.keys.Open = *c.Open
		s.keys.Open.Revision = s.revision
	}
	s.check()
}

// check is what holds at each moment.
func (s *script) check() {
	published := 0
	for _, r := range s.keys.Records {
		if r.State != keyset.Revoked {
			published++
		}
	}
	if published > keyset.MaxPublished {
		s.t.Errorf("%d keys are published, at most %d may be:\n%s", published, keyset.MaxPublished, s.out.String())
	}
	for _, a := range append(s.facts.Audiences, "new") {
		if r := s.keys.Records[s.keys.Open.For(a)]; r.State != keyset.Active {
			s.t.Errorf("%s is signed for with %q, which is %q:\n%s", a, s.names[r.KeyID], r.State, s.out.String())
		}
	}
}

func (s *script) print() {
	for _, kid := range slices.SortedFunc(maps.Keys(s.keys.Records), func(a, b string) int {
		return s.keys.Records[a].Created.Compare(s.keys.Records[b].Created)
	}) {
		r := s.keys.Records[kid]
		line := fmt.Sprintf("    %s %s %s", s.names[kid], r.Algorithm, r.State)
		var signs []string
		for _, a := range s.facts.Audiences {
			if s.keys.Open.For(a) == kid {
				signs = append(signs, a)
			}
		}
		if len(signs) > 0 {
			line += ", signs for " + strings.Join(signs, " ")
		}
		if !r.Unsigned.IsZero() {
			line += ", unsigned since " + r.Unsigned.Sub(start).String()
		}
		s.out.WriteString(line + "\n")
	}
}
