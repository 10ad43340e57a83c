package store

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Plugin is a program of the operator's that keeps a key-encryption key, such as
// in front of a key management service. It is started for each request, gets one
// JSON object on its standard input and answers with one on its standard output:
//
//	{"op":"wrap",   "key":BASE64, "binding":TEXT}             -> {"id":ID, "key":BASE64}
//	{"op":"unwrap", "key":BASE64, "binding":TEXT, "id":ID}    -> {"id":ID, "key":BASE64}
//	any                                                       -> {"error":TEXT}
//
// ID is its own name of its key; it gets the one that it answered "wrap" with.
// It must refuse to unwrap with another binding. It is asked only at a start and
// at a rotation: it wraps one key of ours, and that key seals records. It gets our
// environment, without the secrets of ours that are in it.
type Plugin struct {
	// Command is the program and its arguments; no shell reads it.
	Command []string
	// Logger gets what it writes on its standard error; nil is silent.
	Logger hclog.Logger
}

const (
	pluginTimeout  = 10 * time.Second
	maxPluginBytes = 64 << 10
)

type pluginRequest struct {
	Op      string `json:"op"`
	Key     []byte `json:"key"`
	Binding string `json:"binding"`
	ID      string `json:"id,omitempty"`
}

type pluginAnswer struct {
	ID    string `json:"id"`
	Key   []byte `json:"key"`
	Error string `json:"error"`
}

// ask runs the program once. No error holds what it was given or has answered
// as a key: it may have failed with either in the wrong place.
func (p Plugin) ask(ctx context.Context, req pluginRequest) (pluginAnswer, error) {
	stdin, err := json.Marshal(req)
	if err != nil {
		return pluginAnswer{}, err
	}
	stdout, stderr, err := p.run(ctx, stdin)
	var raw pluginAnswer
	_ = json.Unmarshal(stdout, &raw) // for what to hide; readAnswer judges it
	hide := hider(req.Key, raw.Key)
	p.log(hide(stderr))
	answer, err := readAnswer(stdout, err, hide)
	if err != nil {
		return pluginAnswer{}, fmt.Errorf("the key-encryption program %s (--kek-exec), asked to %s: %w", p.name(), req.Op, err)
	}
	return answer, nil
}

// readAnswer judges what a program wrote, and how it ended.
func readAnswer(stdout []byte, ended error, hide func(string) string) (pluginAnswer, error) {
	var answer pluginAnswer
	decoded := json.Unmarshal(stdout, &answer)
	switch {
	case errors.Is(ended, context.DeadlineExceeded):
		return pluginAnswer{}, fmt.Errorf("it did not end within %s", pluginTimeout)
	case decoded == nil && answer.Error != "":
		return pluginAnswer{}, fmt.Errorf("it says %q", clip(hide(answer.Error)))
	case ended != nil:
		return pluginAnswer{}, fmt.Errorf("%w (what it wrote on its standard error is in the log)", ended)
	case decoded != nil:
		return pluginAnswer{}, errors.New("its answer is not one JSON object with id and key, or error")
	case answer.ID == "" || len(answer.Key) == 0:
		return pluginAnswer{}, errors.New("its answer has no id or no key")
	}
	return answer, nil
}

func (p Plugin) name() string {
	if len(p.Command) == 0 {
		return `""`
	}
	return p.Command[0]
}

func (p Plugin) run(ctx context.Context, stdin []byte) (stdout []byte, stderr string, err error) {
	if len(p.Command) == 0 {
		return nil, "", errors.New("no program was given")
	}
	ctx, cancel := context.WithTimeout(ctx, pluginTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.Command[0], p.Command[1:]...)
	out, errs := &head{}, &head{}
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = bytes.NewReader(stdin), out, errs, pluginEnvironment(os.Environ())
	// A group of its own, so that what a script has started ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return endGroup(cmd.Process.Pid) }
	// A child of its own that keeps the pipes must not keep us.
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	switch {
	case errors.Is(err, exec.ErrWaitDelay):
		err = nil // it has ended well, and only a child keeps its pipes
	case err != nil && ctx.Err() != nil:
		err = ctx.Err()
	}
	return out.Bytes(), errs.String(), err
}

func endGroup(leader int) error {
	err := syscall.Kill(-leader, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// pluginEnvironment is all but the secrets of ours that a program has no use for.
func pluginEnvironment(all []string) []string {
	return slices.DeleteFunc(all, func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return name == "WATCHWORD_KEK" || name == "WATCHWORD_JOIN_TOKEN"
	})
}

func (p Plugin) log(stderr string) {
	if p.Logger == nil {
		return
	}
	for line := range strings.Lines(stderr) {
		if line = strings.TrimSpace(line); line != "" {
			p.Logger.Warn("the key-encryption program says", "program", p.name(), "line", clip(line))
		}
	}
}

// keyLike is what could be a key of 32 bytes in base64.
var keyLike = regexp.MustCompile(`[A-Za-z0-9+/]{40,}={0,2}`)

// hider takes keys out of a text, and what looks like one.
func hider(keys ...[]byte) func(string) string {
	var pairs []string
	for _, k := range keys {
		if len(k) > 0 {
			pairs = append(pairs, string(k), "[key]", hex.EncodeToString(k), "[key]",
				base64.StdEncoding.EncodeToString(k), "[key]", base64.URLEncoding.EncodeToString(k), "[key]",
				base64.RawStdEncoding.EncodeToString(k), "[key]", base64.RawURLEncoding.EncodeToString(k), "[key]")
		}
	}
	known := strings.NewReplacer(pairs...)
	return func(text string) string { return keyLike.ReplaceAllString(known.Replace(text), "[key]") }
}

func clip(text string) string {
	if len(text) > 300 {
		return strings.ToValidUTF8(text[:300], "") + "..."
	}
	return text
}

// head keeps the first part of what is written to it.
type head struct{ bytes.Buffer }

func (b *head) Write(p []byte) (int, error) {
	if room := maxPluginBytes - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
