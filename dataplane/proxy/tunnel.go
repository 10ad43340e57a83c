package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
)

// tunnel joins caller and upstream after a 101 (RFC 6455 section 4).
func (f *forwarder) tunnel(w http.ResponseWriter, o *outgoing, resp *http.Response) {
	upstream, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || !o.websocket || !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") {
		f.fail(w, o, asFailure(o.r.Context(), responseError("101 that was not asked for")))
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		f.fail(w, o, asFailure(o.r.Context(), err))
		return
	}
	defer conn.Close()
	head := http.Header{}
	copyHeader(head, resp.Header)
	head["Connection"], head["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
	_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = head.Write(rw)
	_, _ = rw.WriteString("\r\n")
	if rw.Flush() != nil {
		return
	}
	splice(o.r.Context(), &hijacked{conn, rw.Reader}, upstream)
}

// hijacked is a connection of which the server may have read more than a request.
type hijacked struct {
	net.Conn
	r *bufio.Reader
}

func (h *hijacked) Read(p []byte) (int, error) { return h.r.Read(p) }

// CloseWrite ends one direction.
func (h *hijacked) CloseWrite() error { return closeWrite(h.Conn) }

// splice copies both ways. One side may end its direction alone; a fault ends
// both, and so does ctx.
func splice(ctx context.Context, a, b io.ReadWriteCloser) {
	stop := context.AfterFunc(ctx, func() {
		a.Close()
		b.Close()
	})
	defer stop()
	var both sync.WaitGroup
	way := func(to, from io.ReadWriteCloser) {
		buf := buffers.Get().(*[]byte)
		defer buffers.Put(buf)
		_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, *buf)
		if err == nil {
			err = closeWrite(to)
		}
		if err != nil {
			a.Close()
			b.Close()
		}
	}
	both.Go(func() { way(b, a) })
	way(a, b)
	both.Wait()
	a.Close()
	b.Close()
}

// closeWrite tells the other side that no more comes, or closes what can't.
func closeWrite(c io.Closer) error {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}
