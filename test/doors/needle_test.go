package doors

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// needles are secrets by what they are. They are looked for in the forms that a
// program might give them on its way to a file, a log or an answer.
type needles struct {
	forms map[string]map[string][]byte // by secret and form
}

// shortest is the least length of a secret: shorter ones are found by chance.
const shortest = 16

// add takes a secret, text or bytes.
func (n *needles) add(t testing.TB, what string, secret []byte) {
	t.Helper()
	if len(secret) < shortest {
		t.Fatalf("%s has %d bytes: too few to look for", what, len(secret))
	}
	if n.forms == nil {
		n.forms = map[string]map[string][]byte{}
	}
	n.forms[what] = formsOf(secret)
}

// token takes a JWT: its signature is what is secret of it, as text and as bytes.
func (n *needles) token(t testing.TB, what, token string) {
	t.Helper()
	signature := token[strings.LastIndexByte(token, '.')+1:]
	raw, err := base64.RawURLEncoding.DecodeString(signature)
	if err != nil || strings.Count(token, ".") != 2 {
		t.Fatalf("%s is not a JWT: %v", what, err)
	}
	n.add(t, what, []byte(signature))
	n.add(t, what+" (bytes)", raw)
}

// formsOf gives the encodings of a secret. That of base64 depends on where in a
// group of three bytes the secret begins; what does not depend on what is beside it
// is looked for.
func formsOf(secret []byte) map[string][]byte {
	text := string(secret)
	out := map[string][]byte{
		"raw": secret, "hex": []byte(hex.EncodeToString(secret)), "HEX": []byte(strings.ToUpper(hex.EncodeToString(secret))),
		"query": []byte(url.QueryEscape(text)), "path": []byte(url.PathEscape(text)), "JSON": inJSON(secret), "quoted": []byte(strings.Trim(strconv.Quote(text), `"`)),
		"decimal": []byte(strings.Trim(fmt.Sprint(secret), "[]")), "decimal list": []byte(strings.ReplaceAll(strings.Trim(fmt.Sprint(secret), "[]"), " ", ",")),
		"0x list": []byte(strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", secret), "[]byte{"), "}")), "spaced hex": fmt.Appendf(nil, "% x", secret),
	}
	for name, e := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
		for offset := range 3 {
			whole := e.EncodeToString(append(make([]byte, offset), secret...))
			first, last := (offset*8+5)/6, (offset+len(secret))*8/6
			out[fmt.Sprint(name, "+", offset)] = []byte(whole[first:last])
		}
	}
	return out
}

// inJSON is the secret as the inside of a JSON string; what is not UTF-8 has no
// such form but that with U+FFFD, which is not the secret any more.
func inJSON(secret []byte) []byte {
	b, _ := json.Marshal(string(secret)) // a string always can
	return b[1 : len(b)-1]
}

// findings are the secrets in some bytes, with the form. Those for which excused
// is true are left out.
func (n *needles) findings(hay []byte, excused func(what string) bool) []string {
	var found []string
	hay = withoutZeros(hay)
	hay = append(append(hay, 0), joined(hay)...)
	for what, forms := range n.forms {
		if excused != nil && excused(what) {
			continue
		}
		for form, needle := range forms {
			if bytes.Contains(hay, needle) {
				found = append(found, what+" in the form "+form)
			}
		}
	}
	slices.Sort(found)
	return found
}

// joined has no blanks and line ends, written out or escaped: PEM has them in the
// middle of a key.
func joined(b []byte) []byte {
	return []byte(breaks.Replace(string(b)))
}

var breaks = strings.NewReplacer("\r", "", "\n", "", "\t", "", " ", "", `\r`, "", `\n`, "")

// withoutZeros drops blocks of zeros, of which databases have many.
func withoutZeros(b []byte) []byte {
	const block = 4096
	zeros := make([]byte, block)
	var out []byte
	for chunk := range slices.Chunk(b, block) {
		if !bytes.Equal(chunk, zeros[:len(chunk)]) {
			out = append(out, chunk...)
		}
	}
	return out
}

// The search finds what is planted, in each form and wherever it begins, and
// nothing where there is none.
func TestNeedlesAreFound(t *testing.T) {
	t.Parallel()
	for what, secret := range map[string][]byte{
		"text": []byte("correct horse <battery> \"staple\"/%"), "random": {0xff, 0, 1, '"', '\\', '\n', 0x80, 0xfe, 3, 4, '<', '&', 7, 8, 9, 10, 11}, "token": []byte("wwat_ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
	} {
		n := &needles{}
		n.add(t, what, secret)
		for name, plant := range plants(secret) {
			for shift := range 4 {
				hay := append(bytes.Repeat([]byte("x"), 4090+shift), plant...)
				hay = append(append(make([]byte, 8192), hay...), "yyyy"...)
				if len(n.findings(hay, nil)) == 0 {
					t.Errorf("%s planted as %s is not found in %q", what, name, plant)
				}
			}
		}
		if found := n.findings(bytes.Repeat(secret[:shortest-1], 100), nil); len(found) > 0 && len(secret) > 2*shortest {
			t.Errorf("where there is no %s it finds %q", what, found)
		}
		if found := n.findings(secret, func(w string) bool { return w == what }); len(found) > 0 {
			t.Errorf("%s is excused, and yet found: %q", what, found)
		}
	}
}

// plants are ways in which a program would write a secret down, with something
// before it and behind it.
func plants(secret []byte) map[string][]byte {
	out := map[string][]byte{
		"itself": secret, "hex": []byte(hex.EncodeToString(secret)), "upper hex": fmt.Appendf(nil, "%X", secret), "%v": fmt.Appendf(nil, "key=%v", secret),
		"%#v": fmt.Appendf(nil, "%#v", secret), "% x": fmt.Appendf(nil, "% x", secret), "%q": fmt.Appendf(nil, "%q", secret),
		"a query": []byte("?a=" + url.QueryEscape(string(secret)) + "&b=c"), "a path": []byte("/" + url.PathEscape(string(secret)) + "/"),
	}
	for _, before := range []string{"", "a", "ab", "abc", "user:"} {
		for _, behind := range []string{"", "z", "zz", "zzz"} {
			whole := []byte(before + string(secret) + behind)
			for name, e := range map[string]*base64.Encoding{"base64": base64.StdEncoding, "base64url": base64.URLEncoding, "raw base64url": base64.RawURLEncoding} {
				out[fmt.Sprintf("%s of %q+it+%q", name, before, behind)] = []byte(e.EncodeToString(whole))
			}
		}
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: append(bytes.Repeat([]byte("p"), 36), secret...)})
	out["PEM"], out["PEM in JSON"], out["PEM in YAML"] = block, inJSON(block), bytes.ReplaceAll(block, []byte("\n"), []byte("\n    "))
	object, _ := json.Marshal(map[string][]byte{"a": secret}) // always can
	out["bytes in JSON"] = object
	if text, err := json.Marshal(map[string]string{"a": string(secret)}); err == nil {
		out["text in JSON"] = text
	}
	return out
}
