package bundle

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
)

func quiet() *log.Logger { return log.New(io.Discard, "", 0) }

// world is a Manager with servers and a store that a test makes up, in the time
// of a synctest bubble.
type world struct {
	*Manager
	t        *testing.T
	registry *prometheus.Registry

	mu sync.Mutex
	// answer is what the server of an Issuer says.
	answer map[string]func(ctx context.Context, etag string) (response, error)
	asked  map[string][]time.Time
	etags  []string
	// atOnce is how many fetches run, most the largest number that there was.
	atOnce, most int

	sources  []Source
	records  map[string]Set
	revision int64
	writes   int
	broken   error // what the store says to each write
	deaf     bool  // the watch does not bring what is written
	hangs    bool  // DropBundle does not answer
	log      bytes.Buffer
}

// start runs a Manager until the test ends.
func start(t *testing.T) *world {
	w := &world{t: t, registry: prometheus.NewRegistry(), answer: map[string]func(context.Context, string) (response, error){}, asked: map[string][]time.Time{}, records: map[string]Set{}, revision: 100}
	w.Manager = New(Config{Keeper: w, Registerer: w.registry, Logger: hclog.New(&hclog.LoggerOptions{Output: &w.log})})
	w.Manager.fetch = w.serve
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v after its context ended", err)
		}
	})
	return w
}

func (w *world) serve(ctx context.Context, s Source, etag string) (response, error) {
	w.mu.Lock()
	w.asked[s.Issuer] = append(w.asked[s.Issuer], time.Now())
	w.etags = append(w.etags, etag)
	w.atOnce++
	w.most = max(w.most, w.atOnce)
	answer := w.answer[s.Issuer]
	w.mu.Unlock()
	defer func() { w.mu.Lock(); w.atOnce--; w.mu.Unlock() }()
	if answer == nil {
		return response{}, errors.New("there is no server")
	}
	return answer(ctx, etag)
}

// says makes the server of an issuer answer with keys.
func (w *world) says(issuer string, r response, err error) {
	w.serves(issuer, func(context.Context, string) (response, error) { return r, err })
}

func (w *world) serves(issuer string, answer func(ctx context.Context, etag string) (response, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer[issuer] = answer
}

func (w *world) KeepBundle(_ context.Context, s Set) (int64, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writes++
	if w.broken != nil {
		return 0, w.broken
	}
	if w.records[s.Issuer].Revision != s.Revision {
		return 0, ErrConflict
	}
	w.revision++
	s.Revision = w.revision
	w.records = maps.Clone(w.records)
	w.records[s.Issuer] = s
	if !w.deaf {
		go w.watch(w.revision, w.records)
	}
	return s.Revision, nil
}

func (w *world) DropBundle(ctx context.Context, issuer string, revision int64) error {
	if w.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.records[issuer].Revision != revision {
		return ErrConflict
	}
	w.remove(issuer)
	return nil
}

// remove takes a record away, as others may. The lock is held.
func (w *world) remove(issuer string) {
	w.revision++
	w.records = maps.Clone(w.records)
	delete(w.records, issuer)
	go w.watch(w.revision, w.records)
}

// watch is what the loop does with an event.
func (w *world) watch(revision int64, records map[string]Set) {
	w.mu.Lock()
	sources := w.sources
	w.mu.Unlock()
	w.SetSources(revision, sources, records)
}

// set changes the sources.
func (w *world) set(sources ...Source) {
	w.mu.Lock()
	w.sources = sources
	w.revision++
	revision, records := w.revision, w.records
	w.mu.Unlock()
	w.SetSources(revision, sources, records)
	synctest.Wait()
}

// times returns when an issuer was asked since the beginning, and forgets it.
func (w *world) times(issuer string) []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.asked[issuer]
	delete(w.asked, issuer)
	return out
}

func (w *world) written() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.writes
}

func (w *world) record(issuer string) Set {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.records[issuer]
}

func (w *world) status(issuer string) Status {
	w.t.Helper()
	s, ok := w.Status(issuer)
	if !ok {
		w.t.Fatalf("there is no source %q", issuer)
	}
	return s
}

// wait lets time go by.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func keys(list ...string) response { return response{body: []byte(set(list...))} }

// counted are the samples of a metric, by the values of its labels.
func (w *world) counted(name string) map[string]float64 {
	w.t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			if f.GetName() == name {
				out[strings.Join(labels, " ")] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return out
}
