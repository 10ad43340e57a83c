package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

func TestTook(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0:                       "0 ms",
		31 * time.Millisecond:   "31 ms",
		999 * time.Millisecond:  "999 ms",
		1250 * time.Millisecond: "1.2 s",
		// Rounded up it would be 60.0 s.
		59990 * time.Millisecond: "59.9 s",
		125 * time.Second:        "2m5s",
	} {
		if got := took(d); got != want {
			t.Errorf("took(%s) = %q, want %q", d, got, want)
		}
	}
}

// A time in the future, as of a clock that is ahead, is now.
func TestAge(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for ago, want := range map[time.Duration]string{
		-time.Minute:     "0s",
		59 * time.Second: "59s",
		5 * time.Minute:  "5m",
		23 * time.Hour:   "23h",
		50 * time.Hour:   "2d",
	} {
		if got := age(now.Add(-ago), now); got != want {
			t.Errorf("age(%s ago) = %q, want %q", ago, got, want)
		}
	}
	if got := age(time.Time{}, now); got != "" {
		t.Errorf("age(zero) = %q, want nothing", got)
	}
}

// A revision is a number in JSON, and must be readable when it is large.
func TestTextOfLargeRevision(t *testing.T) {
	if got := text(float64(12345678901)); got != "12345678901" {
		t.Errorf("text = %q, want 12345678901", got)
	}
}

// Without TLS nothing leaves the machine, and nothing but an address is one.
func TestParseEndpoint(t *testing.T) {
	for text, want := range map[string]string{
		"unix:/run/w/admin.sock":        "unix:///run/w/admin.sock",
		"unix:///run/w/admin.sock":      "unix:///run/w/admin.sock",
		"127.0.0.1:7400":                "tls passthrough:///127.0.0.1:7400",
		"mesh.example:7400":             "tls passthrough:///mesh.example:7400",
		"https://mesh.example:7400":     "tls passthrough:///mesh.example:7400",
		"[2001:db8::1]:7400":            "tls passthrough:///[2001:db8::1]:7400",
		"http://127.9.9.9:7400":         "passthrough:///127.9.9.9:7400",
		"http://[::1]:7400":             "passthrough:///[::1]:7400",
		"http://localhost:7400":         "passthrough:///localhost:7400",
		"http://[::ffff:127.0.0.1]:740": "passthrough:///[::ffff:127.0.0.1]:740",
		"http://0.0.0.0:7400":           "",
		"http://:7400":                  "",
		"http://10.0.0.1:7400":          "",
		"http://localhost.evil:7400":    "",
		"http://127.0.0.1.evil:7400":    "",
		"http://127.0.0.1:7400/":        "",
		"http://https://127.0.0.1:7400": "",
		":7400":                         "",
		"mesh.example":                  "",
		"mesh.example:":                 "",
		"mesh.example:0":                "",
		"mesh.example:99999":            "",
		"mesh.example:7400/v1":          "",
		"user@mesh.example:7400":        "",
		"dns:///localhost:7400":         "",
		"xds:///w":                      "",
		"":                              "",
	} {
		got := ""
		e, err := parseEndpoint(text)
		if err == nil {
			got = e.target()
		}
		if err == nil && e.tls() {
			got = "tls " + got
		}
		if got != want {
			t.Errorf("parseEndpoint(%q) = %q, %v, want %q", text, got, err, want)
		}
	}
}

// A name that turns out to be another machine's is not connected to without TLS.
func TestDialLoopback(t *testing.T) {
	for _, address := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		if _, err := dialLoopback(t.Context(), address); err == nil || !strings.Contains(err.Error(), "is not loopback") {
			t.Errorf("dialLoopback(%s) = %v, want a refusal", address, err)
		}
	}
}

func TestTokenURL(t *testing.T) {
	for url, ok := range map[string]bool{
		"http://127.0.0.1:7402/token":    true,
		"http://[::1]:7402/token":        true,
		"http://localhost/token":         true,
		"https://sts.example/token":      true,
		"http://sts.example/token":       false,
		"http://127.0.0.1.example/token": false,
		"https://user:pw@sts.example/":   false,
		"ftp://127.0.0.1/":               false,
		"/token":                         false,
		"":                               false,
	} {
		if err := checkTokenURL(url); (err == nil) != ok {
			t.Errorf("checkTokenURL(%q) = %v, want ok: %t", url, err, ok)
		}
	}
}

// The socket of a deep folder can't be dialled, and the operating system only
// says "invalid argument".
func TestLongSocketPath(t *testing.T) {
	o := &options{dataDir: "/" + strings.Repeat("d", 120)}
	f, ok := o.notReachable("connection error: desc = \"transport: Error while dialing: dial unix: invalid argument\"").(*failure)
	if !ok || !strings.Contains(f.hint, "shorter --data-dir") {
		t.Errorf("notReachable = %+v, want a hint at the length of the path", f)
	}
}

// Each way in which a connection fails has its own way out.
func TestWayThere(t *testing.T) {
	handshake := `connection error: desc = "transport: authentication handshake failed: %s"`
	preface := `connection error: desc = "error reading server preface: %s"`
	for _, c := range []struct{ server, message, text, hint string }{
		{"m:1", fmt.Sprintf(handshake, "tls: failed to verify certificate: x509: certificate signed by unknown authority"), "at m:1: tls: failed to verify certificate: x509: certificate signed by unknown authority", "--ca-file"},
		{"m:1", fmt.Sprintf(handshake, "x509: cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs"), "IP SANs", "--tls-names"},
		{"m:1", fmt.Sprintf(handshake, "x509: certificate has expired or is not yet valid"), "at m:1: x509: certificate has expired", "clocks"},
		{"m:1", fmt.Sprintf(preface, "remote error: tls: certificate required"), "at m:1: remote error: tls: certificate required", "--client-cert-file"},
		{"m:1", "write tcp 127.0.0.1:2->127.0.0.1:1: write: broken pipe", "not reachable at m:1: write tcp", "--client-cert-file"},
		{"http://localhost:1", fmt.Sprintf(preface, "EOF"), "at http://localhost:1: EOF", "leave http:// out"},
		{"unix:/s", `connection error: desc = "transport: Error while dialing: dial unix /s: connect: permission denied"`, "at unix:/s: dial unix /s: connect: permission denied", "root"},
		{"m:1", "reading etcd: no leader", "can't do this now: reading etcd: no leader", "try again"},
	} {
		o := &options{server: c.server}
		f, ok := o.notReachable(c.message).(*failure)
		if !ok || f.code != exitUnreachable || !strings.Contains(f.Error(), c.text) || !strings.Contains(f.hint, c.hint) {
			t.Errorf("notReachable(%q) at %s = %+v, want %q and a hint at %q", c.message, c.server, f, c.text, c.hint)
		}
	}
}

// What comes from data planes can't control the terminal.
func FuzzOneLine(f *testing.F) {
	f.Add("node\x1b[31m\n\tred\x9b2J\r\u202e\xff")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range oneLine(s) {
			if !unicode.IsPrint(r) {
				t.Fatalf("oneLine(%q) = %q holds %q", s, oneLine(s), r)
			}
		}
	})
}

// Whatever the token endpoint sends, decoding gives JSON or an error.
func FuzzDecodeToken(f *testing.F) {
	f.Add(fakeJWT("a", "b", "c", "d"))
	f.Add("a.b.c")
	f.Add("bnVsbA.bnVsbA.")
	f.Fuzz(func(t *testing.T, s string) {
		parts, err := decodeToken(s)
		if err == nil && (!json.Valid(parts.Header) || !json.Valid(parts.Claims)) {
			t.Fatalf("decodeToken(%q) = %s, %s: not JSON", s, parts.Header, parts.Claims)
		}
	})
}

// delete -f reads documents of any kind, and finds whole names or faults.
func FuzzReferences(f *testing.F) {
	f.Add("kind: Service\nmetadata: {name: a, revision: 3}\n---\n[a]\n---\n# nothing\n")
	f.Add("kind: authz\nmetadata: &m {name: a}\n---\nkind: svc\nmetadata: *m\n")
	f.Fuzz(func(t *testing.T, s string) {
		references, faults := referencesIn(&adminv1.Document{Source: "x", Content: s})
		for _, r := range references {
			if r.GetKind() == "" || r.GetName() == "" {
				t.Fatalf("referencesIn(%q) = %v", s, r)
			}
		}
		for _, fault := range faults {
			if fault.GetMessage() == "" {
				t.Fatalf("referencesIn(%q): fault without words", s)
			}
		}
	})
}
