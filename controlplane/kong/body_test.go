package kong

import (
	"bytes"
	"encoding/json"
	"fmt"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The three forms of lists and records that Kong takes, and mixtures that mean
// nothing.
func TestReadForm(t *testing.T) {
	for text, want := range map[string]string{
		"":                              `{}`,
		"a=1&b=":                        `{"a":"1","b":null}`,
		"tags[]=b&tags[]=a":             `{"tags":["b","a"]}`,
		"tags[2]=b&tags[1]=a":           `{"tags":["a","b"]}`,
		"tags[10]=c&tags[9]=b&tags[]=d": `{"tags":["b","c","d"]}`,
		"tags=a&tags=b":                 `{"tags":["a","b"]}`,
		"tags=a":                        `{"tags":"a"}`,
		"tags[]=a":                      `{"tags":["a"]}`,
		"tags=a&tags[]=b":               `{"tags":["a","b"]}`,
		"consumer.id=x":                 `{"consumer":{"id":"x"}}`,
		"consumer.id=x&consumer.name=y": `{"consumer":{"id":"x","name":"y"}}`,
		"consumer=x&consumer.id=y":      `{"consumer":["x"]}`,
		".=a&a.=b&.c=d":                 `{".":"a",".c":"d","a.":"b"}`,
		"a.b.c=d":                       `{"a":{"b.c":"d"}}`,
		"tags[x]=a&tags[1000000000]=b":  `{"tags[1000000000]":"b","tags[x]":"a"}`,
		"key=a%2Bb+c":                   `{"key":"a+b c"}`,
	} {
		fields, p := readForm(text)
		got, err := json.Marshal(fields)
		if p != nil || err != nil {
			t.Fatalf("%s: %+v, %v", text, p, err)
		}
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("%s -want +got:\n%s", text, diff)
		}
	}
}

// What a body may hold at most.
func TestLimits(t *testing.T) {
	h := New(config(store(t, bob)))
	many := func(n int, each string) string {
		var out []string
		for i := range n {
			out = append(out, fmt.Sprintf(each, i))
		}
		return strings.Join(out, "&")
	}
	for _, tt := range []struct {
		what, contentType, body string
		code                    int
		want                    string
	}{
		{"100 fields", "application/x-www-form-urlencoded", many(100, "f%d=x"), 400, "unknown field"},
		{"101 fields", "application/x-www-form-urlencoded", many(101, "f%d=x"), 400, "too many fields: at most 100"},
		{"101 members", "application/json", "{" + strings.ReplaceAll(many(101, `"f%d":1`), "&", ",") + "}", 400, "too many fields"},
		{"101 parts", "multipart/form-data; boundary=b", parts(t, 101), 400, "too many fields"},
		{"a large body", "application/json", `{"username":"` + strings.Repeat("x", maxBodyBytes), 413, "at most 1048576 bytes"},
		{"deep JSON", "application/json", strings.Repeat(`{"a":`, 100_000), 400, "Cannot parse JSON body"},
		{"a long name", "application/json", `{"` + strings.Repeat("n", 65) + `":1}`, 400, "a field has a name that can't be one"},
		{"a long username", "application/json", `{"username":"` + strings.Repeat("n", 257) + `"}`, 400, "one to 256 bytes"},
		{"no UTF-8", "application/x-www-form-urlencoded", "username=%ff", 400, "username: invalid utf-8"},
		{"no UTF-8 in a name", "application/x-www-form-urlencoded", "%ff=a", 400, "a field has a name that can't be one"},
		{"no UTF-8 in a tag", "application/x-www-form-urlencoded", "username=a&tags=%ff", 400, "invalid tag"},
	} {
		code, body := ask(t, h, http.MethodPost, "/consumers", tt.contentType, tt.body)
		if len(body) > 10_000 {
			t.Errorf("%s: an answer of %d bytes", tt.what, len(body))
		}
		wantAnswer(t, tt.what, code, body, tt.code, tt.want)
	}
}

func parts(t testing.TB, n int) string {
	t.Helper()
	var out bytes.Buffer
	w := multipart.NewWriter(&out)
	if err := w.SetBoundary("b"); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if err := w.WriteField(fmt.Sprint("f", i), "x"); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// A limit of whoever mounts the API gives the same answer as our own, and a
// second type of content none.
func TestBodyOfOthers(t *testing.T) {
	h := New(config(store(t, bob)))
	r := httptest.NewRequest(http.MethodPost, "/consumers", strings.NewReader(`{"username":"a"}`))
	w := httptest.NewRecorder()
	r.Body = http.MaxBytesReader(w, r.Body, 4)
	r.Header.Set("Content-Type", "application/json")
	h.ServeHTTP(w, r)
	wantAnswer(t, "a body beyond the limit outside", w.Code, w.Body.String(), 413, "the body is too large")

	r = httptest.NewRequest(http.MethodPost, "/consumers", strings.NewReader(`{"username":"a"}`))
	r.Header["Content-Type"] = []string{"application/json", "application/json"}
	w = httptest.NewRecorder()
	h.ServeHTTP(w, r)
	wantAnswer(t, "two content types", w.Code, w.Body.String(), 400, "Multiple Content-Type headers not allowed")
}

// Below a prefix of a mux, keys with slashes arrive as they were written.
func TestMounted(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("/kong/", http.StripPrefix("/kong", New(config(store(t, bob)))))
	code, body := ask(t, mux, http.MethodPut, "/kong/consumers/bob/jwt/https%3A%2F%2Fa.example%2F%2Fb%2F", "", "")
	wantAnswer(t, "PUT", code, body, 200, `"key":"https://a.example//b/"`)
	code, body = ask(t, mux, http.MethodGet, "/kong/jwts/https%3A%2F%2Fa.example%2F%2Fb%2F/consumer", "", "")
	wantAnswer(t, "GET", code, body, 200, `"username":"bob"`)
	code, body = ask(t, mux, http.MethodGet, "/kong/", "", "")
	wantAnswer(t, "nothing", code, body, 404, "only /consumers and /jwts")
}
