package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httputil"

	"golang.org/x/net/http/httpguts"
)

// body is that of a response over HTTP/1.1. At its end the connection goes back to
// the pool; a body that is closed before closes the connection.
type body struct {
	c    *conn
	resp *http.Response
	framing
	begun  bool // a chunk was read
	keep   bool
	chunks io.Reader
	over   bool
	err    error
}

func (b *body) start() {
	if b.kind == chunked {
		b.chunks = httputil.NewChunkedReader(b.c.br)
	}
}

// Read implements io.Reader. The end comes with the last bytes where it is known.
func (b *body) Read(p []byte) (int, error) {
	if b.over {
		return 0, b.err
	}
	n, err := b.read(p)
	if err != nil {
		b.finish(err)
		return n, b.err
	}
	return n, nil
}

func (b *body) read(p []byte) (n int, err error) {
	switch b.kind {
	case chunked:
		b.begun = true
		n, err = b.chunks.Read(p)
		if err == io.EOF {
			err = b.readTrailer()
		} else if err != nil && err != io.ErrUnexpectedEOF {
			err = asResponseError(err)
		}
	case exact:
		n, err = b.c.br.Read(p[:min(int64(len(p)), b.length)])
		b.length -= int64(n)
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		if b.length == 0 {
			err = io.EOF
		}
	default:
		n, err = b.c.br.Read(p)
	}
	return n, err
}

// readTrailer reads what follows the last chunk (RFC 9112 section 7.1.2).
func (b *body) readTrailer() error {
	if line, err := b.c.br.Peek(2); err != nil {
		return io.ErrUnexpectedEOF
	} else if string(line) == "\r\n" {
		_, _ = b.c.br.Discard(2)
		return io.EOF
	}
	text, err := readHead(b.c.br, b.c.endpoint.options.maxHeader)
	if err != nil {
		return err
	}
	fields, err := parseFields(text)
	if err != nil {
		return err
	}
	for name := range fields {
		if !httpguts.ValidTrailerHeader(name) {
			delete(fields, name)
		}
	}
	b.resp.Trailer = fields
	return io.EOF
}

// finish ends the body: io.EOF is its end, nil that there is none.
func (b *body) finish(err error) {
	b.over, b.err = true, err
	if (err == nil || err == io.EOF) && b.keep {
		b.c.release()
	} else {
		b.c.discard()
	}
}

// arrived implements the interface arrived.
func (b *body) arrived() int {
	n := b.c.br.Buffered()
	switch {
	case b.over:
		return 1 // its end
	case b.kind != chunked:
		return n
	case b.begun:
		return 0 // a read takes all whole chunks
	}
	first, _ := b.c.br.Peek(n)
	if i := bytes.IndexByte(first, '\n'); i < 0 || i+1 == n {
		return 0
	}
	return n
}

// Close implements io.Closer.
func (b *body) Close() error {
	if !b.over {
		b.finish(http.ErrBodyReadAfterClose)
	}
	return nil
}

// asResponseError tells a fault of the chunks from one of the connection.
func asResponseError(err error) error {
	if timeout := net.Error(nil); errors.As(err, &timeout) {
		return err
	}
	return responseError(err.Error())
}
