package kong

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/watchword-mesh/watchword/controlplane/policy"
)

var update = flag.Bool("update", false, "rewrite the transcripts")

// Every endpoint, answer by answer, and what is then stored. A transcript has the
// resources to begin with, the calls, and the Consumers at its end:
//
//	> POST /consumers username=bob     a form; JSON if it begins with { or [
//	> POST /jwts -F key=a -F x=@rsa    multipart, with the file testdata/rsa.pem
//	> POST /jwts (text/plain) body     another content type
//	! secrets                          the actor may see secrets from here on
//
// $RSA and the like stand for the files, $OFFSET and $NEXT for those of the last
// page.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d transcripts, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p := &player{t: t, files: pems(t), state: "", may: &abilities{}}
			calls, stored := 0, 0
			for i, f := range ar.Files {
				switch f.Name {
				case "state.yaml":
					p.state = string(f.Data)
				case "calls":
					calls = i
				case "stored":
					stored = i
				}
			}
			before := txtar.Format(ar)
			ar.Files[calls].Data = []byte(p.play(string(ar.Files[calls].Data)))
			ar.Files[stored].Data = []byte(p.stored())
			after := txtar.Format(ar)
			if *update {
				if err := os.WriteFile(file, after, 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(before), string(after)); diff != "" {
				t.Errorf("%s -want +got:\n%s", file, diff)
			}
		})
	}
}

// pems are the public keys of testdata by name.
func pems(t testing.TB) map[string]string {
	t.Helper()
	out := map[string]string{}
	files, err := filepath.Glob("testdata/*.pem")
	if err != nil || len(files) == 0 {
		t.Fatalf("no public keys: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		out[strings.TrimSuffix(filepath.Base(file), ".pem")] = string(text)
	}
	return out
}

type abilities struct{ secrets, base64 bool }

type player struct {
	t            testing.TB
	files        map[string]string
	state        string
	may          *abilities
	memory       *memory
	offset, next string
}

func (p *player) play(calls string) string {
	p.memory = store(p.t, p.state)
	c := config(p.memory)
	var out strings.Builder
	var h http.Handler
	for line := range strings.Lines(calls) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "< ") {
			continue
		}
		fmt.Fprintln(&out, line)
		switch {
		case strings.HasPrefix(line, "! "):
			p.may.secrets = p.may.secrets || line == "! secrets"
			p.may.base64 = p.may.base64 || line == "! base64"
			h = nil
		case strings.HasPrefix(line, "> "):
			if h == nil {
				c.MayReadSecrets = nil
				if p.may.secrets {
					c.MayReadSecrets = c.MayRead
				}
				c.SecretIsBase64 = p.may.base64
				h = New(c)
			}
			fmt.Fprintln(&out, "< "+p.call(h, strings.TrimPrefix(line, "> ")))
		}
	}
	return out.String()
}

// call makes one call, and returns its answer in one line.
func (p *player) call(h http.Handler, line string) string {
	method, rest, _ := strings.Cut(line, " ")
	target, body, _ := strings.Cut(rest, " ")
	target = strings.ReplaceAll(strings.ReplaceAll(target, "$OFFSET", url.QueryEscape(p.offset)), "$NEXT", p.next)
	contentType := ""
	switch {
	case strings.HasPrefix(body, "("):
		contentType, body, _ = strings.Cut(strings.TrimPrefix(body, "("), ")")
		body = strings.TrimPrefix(body, " ")
	case strings.HasPrefix(body, "-F "):
		contentType, body = p.multipart(strings.TrimPrefix(body, "-F "))
	case strings.HasPrefix(body, "{"), strings.HasPrefix(body, "["):
		contentType, body = "application/json", p.replaced(body, inJSON)
	case body != "":
		contentType, body = "application/x-www-form-urlencoded", p.replaced(body, url.QueryEscape)
	}
	w := serve(p.t, h, method, target, contentType, body)
	var paged struct{ Offset, Next string }
	if json.Unmarshal(w.Body.Bytes(), &paged) == nil && paged.Next != "" {
		p.offset, p.next = paged.Offset, paged.Next
	}
	answer := fmt.Sprint(w.Code)
	if allow := w.Header().Get("Allow"); allow != "" {
		answer += " (Allow: " + allow + ")"
	}
	for name, text := range p.files {
		w.Body = bytes.NewBufferString(strings.ReplaceAll(w.Body.String(), inJSON(text), "$"+strings.ToUpper(name)))
	}
	return strings.TrimSpace(answer + " " + w.Body.String())
}

// inJSON is a text as a part of a JSON string.
func inJSON(text string) string { return strings.ReplaceAll(text, "\n", `\n`) }

func (p *player) replaced(body string, as func(string) string) string {
	for name, text := range p.files {
		body = strings.ReplaceAll(body, "$"+strings.ToUpper(name), as(text))
	}
	return body
}

func (p *player) multipart(fields string) (contentType, body string) {
	var out bytes.Buffer
	w := multipart.NewWriter(&out)
	for field := range strings.SplitSeq(fields, " -F ") {
		name, value, _ := strings.Cut(field, "=")
		file, isFile := strings.CutPrefix(value, "@")
		if !isFile {
			if err := w.WriteField(name, value); err != nil {
				p.t.Fatal(err)
			}
			continue
		}
		part, err := w.CreateFormFile(name, file+".pem")
		if err != nil {
			p.t.Fatal(err)
		}
		if _, err := part.Write([]byte(p.files[file])); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		p.t.Fatal(err)
	}
	return w.FormDataContentType(), out.String()
}

// stored is the Consumers as the control plane keeps them, one a line.
func (p *player) stored() string {
	var out strings.Builder
	for _, k := range p.memory.state.Keys() {
		if k.Kind != policy.KindConsumer {
			continue
		}
		text, err := json.Marshal(policy.Manifest(p.memory.state[k]).AsMap()["spec"])
		if err != nil {
			p.t.Fatal(err)
		}
		line := string(text)
		for name, text := range p.files {
			line = strings.ReplaceAll(line, inJSON(text), "$"+strings.ToUpper(name))
		}
		fmt.Fprintf(&out, "%s %s\n", k, line)
	}
	return out.String()
}

// serve sends one request. Every answer but 204 is JSON, and none is kept by
// caches.
func serve(t testing.TB, h http.Handler, method, target, contentType, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, "http://admin.test/", strings.NewReader(body))
	u, err := url.Parse("http://admin.test" + target)
	if err != nil {
		t.Fatal(err)
	}
	r.URL = u
	if contentType != "" {
		r.Header.Set("Content-Type", contentType)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Header().Get("Cache-Control") != "no-store" {
		t.Errorf("%s %s: the answer may be kept by a cache", method, target)
	}
	if w.Code == http.StatusNoContent {
		if w.Body.Len() > 0 {
			t.Errorf("%s %s: 204 with the body %q", method, target, w.Body)
		}
	} else if !json.Valid(w.Body.Bytes()) || w.Header().Get("Content-Type") != "application/json; charset=utf-8" {
		t.Errorf("%s %s: %d %q of type %q, want JSON", method, target, w.Code, w.Body, w.Header().Get("Content-Type"))
	}
	return w
}
