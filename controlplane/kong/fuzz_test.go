package kong

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// Whatever form comes: no panic, and the same text is always read alike, into
// what JSON can hold.
func FuzzForm(f *testing.F) {
	for _, text := range []string{"", "a=b", "tags[]=a&tags[1]=b&tags=c", "consumer.id=x&consumer=y", "a.b.c=d&.=e", "%ff=%00&a;b", "a[[1]]=x&[1]=y&[]=z"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		fields, p := readForm(text)
		if p != nil {
			return
		}
		again, _ := readForm(text)
		a, err := json.Marshal(fields)
		b, _ := json.Marshal(again)
		if err != nil || string(a) != string(b) || len(fields) > maxFields {
			t.Errorf("%q is read as %s, and then as %s, %v", text, a, b, err)
		}
		readConsumer(fields)
		readCredential(fields)
	})
}

func FuzzMultipart(f *testing.F) {
	f.Add([]byte("--b\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\nx\r\n--b--\r\n"), "b")
	f.Add([]byte("--b\r\nContent-Disposition: form-data; name=\"a\"; filename=\"f\"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=41\r\n--b--"), "b")
	f.Add([]byte("--b\r\n\r\n--b--"), "b")
	f.Add([]byte("x"), "")
	f.Fuzz(func(t *testing.T, text []byte, boundary string) {
		fields, p := readMultipart(text, boundary)
		if p == nil && (fields == nil || len(fields) > maxFields) {
			t.Errorf("%q with the boundary %q: %d fields", text, boundary, len(fields))
		}
		readCredential(fields)
	})
}

func FuzzJSON(f *testing.F) {
	for _, text := range []string{`{}`, `null`, `[]`, `{"tags":["a",1,null],"consumer":{"id":"x"},"created_at":1e3}`, `{"a":1}{"b":2}`, `{"key":"\ud800"}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		fields, p := readJSON(text)
		if p == nil && fields == nil {
			t.Errorf("%q is read as nothing", text)
		}
		readConsumer(fields)
		readCredential(fields)
	})
}

// Whatever is asked: no panic, an answer in JSON of a status that Kong has, no
// stored secret, and no change by a read.
func FuzzHandler(f *testing.F) {
	const secret = "f9f8f7f6f5f4f3f2f1f0f9f8f7f6f5f4"
	const state = `apiVersion: watchword.dev/v1
kind: Consumer
metadata: {name: bob, uid: 7bce93e1-0a90-489c-c887-d385545f8f4b}
spec: {username: bob, credentials: [{id: a, key: k, keySet: {secret: {keys: [{secret: ` + secret + `}]}}}]}
`
	methods := []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
	types := []string{"", "application/json", "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"}
	f.Add(uint8(1), "/consumers", uint8(2), "username=a&tags[]=b")
	f.Add(uint8(2), "/consumers/bob/jwt/k", uint8(1), `{"algorithm":"HS512","tags":["a"]}`)
	f.Add(uint8(3), "/jwts/k", uint8(1), `{"consumer":{"username":"bob"},"rsa_public_key":"x"}`)
	f.Add(uint8(0), "/jwts?size=1&offset=AAAA&tags=a,b", uint8(0), "")
	f.Add(uint8(4), "/consumers/7bce93e1-0a90-489c-c887-d385545f8f4b", uint8(0), "")
	f.Add(uint8(1), "/consumers/bob/jwt", uint8(3), "--b\r\nContent-Disposition: form-data; name=\"key\"\r\n\r\nx\r\n--b--\r\n")
	statuses := []int{200, 201, 204, 400, 404, 405, 409, 413, 415}
	f.Fuzz(func(t *testing.T, method uint8, target string, kind uint8, body string) {
		u, err := url.Parse("http://admin.test" + target)
		if err != nil || u.Host != "admin.test" {
			return
		}
		m := store(t, state)
		name := methods[int(method)%len(methods)]
		w := serve(t, New(config(m)), name, target, types[int(kind)%len(types)], body)
		if !slices.Contains(statuses, w.Code) {
			t.Errorf("%s %q: %d %s", name, target, w.Code, w.Body)
		}
		if slices.Contains([]string{http.MethodGet, http.MethodHead}, name) && (len(m.methods) > 0 || strings.Contains(w.Body.String(), secret)) {
			t.Errorf("%s %q changes something or shows a secret: %s", name, target, w.Body)
		}
	})
}
