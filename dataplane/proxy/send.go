package proxy

import (
	"io"
	"strconv"
)

// chunkRoom is for the size of a chunk, in front of it.
const chunkRoom = 10

// send writes a request whose body comes bit by bit. If the caller fails, the
// connection is closed, so that the upstream does not take what came for all of
// it. If the upstream no longer reads, it may have answered: the response is read
// elsewhere.
func (c *conn) send(o *outgoing, s *sending, from io.Reader) {
	defer o.upload.senders.Done()
	if _, err := c.Write(c.out); err != nil {
		return
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	b := *buf
	for {
		n, err := from.Read(b[chunkRoom : len(b)-2])
		if n > 0 {
			piece := b[chunkRoom : chunkRoom+n]
			if o.upload.length < 0 {
				piece = chunk(b, n)
			}
			if _, err := c.Write(piece); err != nil {
				return
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			c.close()
			return
		}
	}
	if o.upload.length < 0 {
		if _, err := c.Write(o.appendLastChunk(b[:0])); err != nil {
			return
		}
	}
	s.sent(c)
}

// chunk puts a size and line ends around n bytes that begin at chunkRoom (RFC 9112
// section 7.1).
func chunk(b []byte, n int) []byte {
	var size [chunkRoom]byte
	line := append(strconv.AppendInt(size[:0], int64(n), 16), "\r\n"...)
	start := chunkRoom - len(line)
	copy(b[start:], line)
	return append(b[start:chunkRoom+n], "\r\n"...)
}

func (o *outgoing) appendLastChunk(b []byte) []byte {
	b = append(b, "0\r\n"...)
	if len(o.r.Trailer) > 0 {
		for name, values := range o.trailer() {
			for _, v := range values {
				b = appendField(b, name, v)
			}
		}
	}
	return append(b, "\r\n"...)
}
