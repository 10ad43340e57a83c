package store

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// guard decides what a fatal log line of etcd does, which by itself would end
// the process in the middle of whatever it does. It ends the goroutine that
// wrote the line and reports: to start until that has returned, then to fatal,
// so that the process can stop in order.
type guard struct {
	fatal   func(error)
	failed  chan error
	started atomic.Bool
	dead    atomic.Bool
}

func newGuard(fatal func(error)) *guard { return &guard{fatal: fatal, failed: make(chan error, 1)} }

// OnWrite implements zapcore.CheckWriteHook.
func (g *guard) OnWrite(ce *zapcore.CheckedEntry, fields []zapcore.Field) {
	err := fatalError(ce.Message, fields)
	first := !g.dead.Swap(true)
	switch {
	case !first:
	case !g.started.Load():
		g.failed <- err
	case g.fatal != nil:
		g.fatal(fmt.Errorf("the etcd inside this process stopped: %w", err))
	}
	runtime.Goexit()
}

func fatalError(message string, fields []zapcore.Field) error {
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok {
			return fmt.Errorf("%s: %w", message, explain(err))
		}
	}
	return errors.New(message)
}

// bridge sends etcd's log to hclog.
func bridge(log hclog.Logger, g *guard) *zap.Logger {
	return zap.New(&core{log: log}, zap.WithFatalHook(g), zap.WithPanicHook(g))
}

// core implements zapcore.Core. etcd says much at info that is only of
// interest to who looks into etcd; it goes to debug.
type core struct {
	log    hclog.Logger
	fields []zapcore.Field
}

var levels = map[zapcore.Level]hclog.Level{
	zapcore.DebugLevel: hclog.Trace,
	zapcore.InfoLevel:  hclog.Debug,
	zapcore.WarnLevel:  hclog.Debug,
}

func level(l zapcore.Level) hclog.Level {
	if h, ok := levels[l]; ok {
		return h
	}
	return hclog.Error
}

func (c *core) Enabled(l zapcore.Level) bool {
	return c.log.GetLevel() <= level(l) || l >= zapcore.DPanicLevel
}

func (c *core) With(f []zapcore.Field) zapcore.Core {
	return &core{log: c.log, fields: append(append([]zapcore.Field{}, c.fields...), f...)}
}

func (c *core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range append(append([]zapcore.Field{}, c.fields...), fields...) {
		f.AddTo(enc)
	}
	l := level(e.Level)
	if text, _ := enc.Fields["error"].(string); l == hclog.Error && harmless(text) {
		l = hclog.Debug
	}
	var args []any
	for k, v := range enc.Fields {
		args = append(args, k, v)
	}
	c.log.Log(l, e.Message, args...)
	return nil
}

// harmless are errors that every orderly stop, and every first start before
// the first snapshot, have.
func harmless(text string) bool {
	return strings.Contains(text, "use of closed network connection") || strings.Contains(text, "missing term information")
}

func (c *core) Sync() error { return nil }
