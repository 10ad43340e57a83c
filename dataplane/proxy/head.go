package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// maxInformational is how many informational responses an upstream may send to a
// request.
const maxInformational = 16

var headEnd = []byte("\r\n\r\n")

// readHead reads up to the empty line, which is included, but no more than max
// bytes.
func readHead(br *bufio.Reader, max int) (string, error) {
	if b, _ := br.Peek(br.Buffered()); len(b) <= max {
		if i := bytes.Index(b, headEnd); i >= 0 { // nearly always
			text := string(b[:i+len(headEnd)])
			_, _ = br.Discard(len(text))
			return text, nil
		}
	}
	var text []byte
	for !bytes.HasSuffix(text, headEnd) {
		part, err := br.ReadSlice('\n')
		if len(text)+len(part) > max {
			return "", responseError("the header section is larger than " + strconv.Itoa(max) + " bytes")
		}
		text = append(text, part...)
		if err == io.EOF {
			return "", io.ErrUnexpectedEOF
		}
		if err != nil && err != bufio.ErrBufferFull {
			return "", err
		}
		if err == nil && (len(text) <= 2 || text[len(text)-2] != '\r') {
			return "", responseError("a header line does not end with CR LF")
		}
	}
	return string(text), nil
}

// parseHead reads a status line and a header section. It takes what RFC 9112
// prescribes and none of what it has recipients tolerate: a line that ends with LF
// alone, a folded line, white space around a name.
func parseHead(text string) (*http.Response, error) {
	line, rest, ok := strings.Cut(text, "\r\n")
	minor, status, valid := parseStatusLine(line)
	if !ok || !valid {
		return nil, responseError("the status line is not valid")
	}
	h, err := parseFields(rest)
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, ProtoMajor: 1, ProtoMinor: minor, Header: h, ContentLength: -1}, nil
}

func parseStatusLine(line string) (minor, status int, ok bool) {
	const length = len("HTTP/1.1 200")
	if len(line) < length || line[:7] != "HTTP/1." || line[7] != '0' && line[7] != '1' || line[8] != ' ' {
		return 0, 0, false
	}
	for _, c := range line[9:length] {
		if c < '0' || c > '9' {
			return 0, 0, false
		}
		status = status*10 + int(c-'0')
	}
	reason := line[length:]
	ok = status >= 100 && (reason == "" || reason[0] == ' ') && httpguts.ValidHeaderFieldValue(reason)
	return int(line[7] - '0'), status, ok
}

// parseFields reads fields up to an empty line, which must be the end of the text.
func parseFields(text string) (http.Header, error) {
	n := strings.Count(text, "\r\n")
	h := make(http.Header, n)
	all := make([]string, 0, n) // the values, in one allocation
	for {
		line, rest, ok := strings.Cut(text, "\r\n")
		if !ok {
			return nil, responseError("a header line has no end")
		}
		if line == "" {
			if rest != "" {
				return nil, responseError("the header section does not end where it should")
			}
			return h, nil
		}
		name, value, ok := strings.Cut(line, ":")
		value = strings.Trim(value, " \t")
		if !ok || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return nil, responseError("a header line is not valid")
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		if before, ok := h[name]; ok {
			h[name] = append(before, value)
		} else {
			all = append(all, value)
			h[name] = all[len(all)-1 : len(all) : len(all)]
		}
		text = rest
	}
}

// kind is how the end of a response body is known.
type kind int

const (
	none kind = iota
	exact
	chunked
	untilClose
)

type framing struct {
	kind   kind
	length int64
}

// framingOf finds how the body ends, and refuses what says it in two ways.
func framingOf(method string, resp *http.Response) (framing, error) {
	h := resp.Header
	lengths, codings := h["Content-Length"], h["Transfer-Encoding"]
	if len(lengths) > 0 && len(codings) > 0 {
		return framing{}, responseError("it has both Content-Length and Transfer-Encoding")
	}
	f := framing{kind: untilClose}
	switch {
	case len(codings) > 0:
		if len(codings) != 1 || !strings.EqualFold(codings[0], "chunked") || resp.ProtoMinor == 0 {
			return framing{}, responseError("its Transfer-Encoding is not chunked")
		}
		f.kind = chunked
	case len(lengths) > 0:
		n, ok := parseLength(lengths)
		if !ok {
			return framing{}, responseError("its Content-Length is not one number")
		}
		f = framing{exact, n}
		h["Content-Length"] = lengths[:1]
	}
	switch s := resp.StatusCode; {
	case s == http.StatusNoContent && f.kind != untilClose && f != framing{exact, 0}:
		return framing{}, responseError("204 with a body")
	case method == http.MethodHead, s == http.StatusNoContent, s == http.StatusNotModified:
		return framing{}, nil
	}
	resp.ContentLength = -1
	if f.kind == exact {
		resp.ContentLength = f.length
	}
	if f.kind == chunked {
		resp.Trailer = announcedTrailer(h["Trailer"])
	}
	return f, nil
}

// parseLength reads a length that may be repeated, but not with another value.
func parseLength(values []string) (int64, bool) {
	for _, v := range values {
		if v != values[0] || v == "" || strings.Trim(v, "0123456789") != "" {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(values[0], 10, 64)
	return n, err == nil
}

// keepsAlive says whether another request may follow (RFC 9112 section 9.3).
func keepsAlive(resp *http.Response) bool {
	return resp.ProtoMinor == 1 && !httpguts.HeaderValuesContainsToken(resp.Header["Connection"], "close")
}

func announcedTrailer(values []string) http.Header {
	var t http.Header
	for _, v := range values {
		for name := range strings.SplitSeq(v, ",") {
			name = textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name))
			if !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidTrailerHeader(name) {
				continue
			}
			if t == nil {
				t = http.Header{}
			}
			t[name] = nil
		}
	}
	return t
}
