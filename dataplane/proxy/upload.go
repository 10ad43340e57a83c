package proxy

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// smallBody is up to how many bytes a body of known length is read before the
// request is sent, so that both go out at once. What is longer, or of unknown
// length, is handed on as it comes.
const smallBody = 16 << 10

// upload is the body of a request on its way. It may be sent more than once, each
// time by a reader of its own, as long as what was read is still known.
type upload struct {
	w      http.ResponseWriter
	r      *http.Request
	length int64  // -1: not known
	small  []byte // all of it, if it was short
	limit  int64  // of bytes, 0 for none

	senders sync.WaitGroup // goroutines that send it

	reading sync.Mutex // held while the caller's body is read
	ended   bool       // guarded by reading
	total   int64      // guarded by reading

	mu        sync.Mutex
	current   *uploadReader // the newest
	recorded  []byte
	recording bool
	room      int // how much may be recorded
	err       error
	atEnd     func() // nil, or called when the body has been read whole
}

// newUpload takes the body of a request; record says how much of it is kept for
// another attempt.
func newUpload(w http.ResponseWriter, r *http.Request, limit int64, record int) *upload {
	u := &upload{w: w, r: r, length: r.ContentLength, limit: limit, room: record, recording: record > 0}
	if r.Body == nil || r.Body == http.NoBody {
		u.length = 0
	}
	return u
}

// begin refuses what is too large, and reads what is small.
func (u *upload) begin() error {
	switch {
	case u.limit > 0 && u.length > u.limit:
		return errBodyTooLarge
	case u.length > 0 && u.length <= smallBody:
		u.small = make([]byte, u.length)
		if _, err := io.ReadFull(u.r.Body, u.small); err != nil {
			return &uploadError{err}
		}
	case u.length != 0 && u.r.ProtoMajor == 1:
		// Else the server reads the body to its end before the response goes out.
		_ = http.NewResponseController(u.w).EnableFullDuplex()
	}
	return nil
}

// streamed says whether the body is read while it is sent.
func (u *upload) streamed() bool { return u.length != 0 && u.small == nil }

// replayable says whether it can be sent again from its beginning.
func (u *upload) replayable() bool {
	if !u.streamed() {
		return true
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.recording
}

// open returns the body from its beginning. A reader that was opened before gets
// no more of it.
func (u *upload) open() io.ReadCloser {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.current = &uploadReader{u: u}
	return u.current
}

// fault is why reading the body has failed, if it has.
func (u *upload) fault() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.err == io.EOF {
		return nil
	}
	return u.err
}

// unread says whether more of the body may come from the caller. Then the
// connection must end with the response: what is left of the body would be taken
// for the next request.
func (u *upload) unread() bool {
	if !u.streamed() {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.err != io.EOF
}

// finish ends the sending. When it returns nobody reads the caller's body, as a
// handler that returns must leave it.
func (u *upload) finish() {
	if !u.streamed() {
		return
	}
	if u.unread() {
		// Also if nobody waits now: the server would, for the rest of the body.
		if err := interrupt(u.w, u.r); err != nil {
			return // not a connection that we know; its server must end it
		}
	}
	u.reading.Lock()
	u.ended = true
	u.reading.Unlock()
	u.senders.Wait()
}

var (
	errEnded   = errors.New("the request has ended")
	errTooLong = errors.New("the body is longer than its Content-Length")
)

// read reads more of the caller's body.
func (u *upload) read(p []byte) (int, error) {
	if u.ended {
		return 0, errEnded
	}
	n, err := u.r.Body.Read(p)
	u.total += int64(n)
	switch {
	case u.limit > 0 && u.total > u.limit:
		n, err = 0, errBodyTooLarge
	case u.length > 0 && u.total > u.length:
		n, err = 0, &uploadError{errTooLong}
	case err == io.EOF && u.length > 0 && u.total < u.length:
		err = &uploadError{io.ErrUnexpectedEOF}
	case err != nil && err != io.EOF:
		err = &uploadError{err}
	}
	return n, err
}

// uploadReader is one attempt to send it.
type uploadReader struct {
	u      *upload
	offset int // in what is recorded
}

func (rd *uploadReader) Close() error { return nil }

// Read implements io.Reader. Only one goroutine may use a reader.
func (rd *uploadReader) Read(p []byte) (int, error) {
	u := rd.u
	if n := rd.again(p); n > 0 {
		return n, nil
	}
	u.reading.Lock()
	defer u.reading.Unlock()
	if n := rd.again(p); n > 0 { // by an older reader, while we waited
		return n, nil
	}
	u.mu.Lock()
	old, err := rd != u.current, u.err
	u.mu.Unlock()
	if old {
		return 0, errEnded
	}
	if err != nil {
		return 0, err
	}
	n, err := u.read(p)
	return n, rd.took(p[:n], err)
}

// again reads what an earlier attempt has read.
func (rd *uploadReader) again(p []byte) int {
	rd.u.mu.Lock()
	defer rd.u.mu.Unlock()
	if rd.offset >= len(rd.u.recorded) {
		return 0
	}
	n := copy(p, rd.u.recorded[rd.offset:])
	rd.offset += n
	return n
}

// took records what was read. Another reader may have been opened meanwhile: then
// it is for that one, however much it is.
func (rd *uploadReader) took(p []byte, err error) error {
	u := rd.u
	u.mu.Lock()
	defer u.mu.Unlock()
	if err != nil {
		u.err = err
	}
	if err == io.EOF && u.atEnd != nil {
		u.atEnd()
	}
	switch {
	case rd != u.current:
		u.recorded = append(u.recorded, p...)
		return errEnded
	case !u.recording:
	case len(u.recorded)+len(p) > u.room:
		u.recording, u.recorded = false, nil
	default:
		u.recorded = append(u.recorded, p...)
		rd.offset = len(u.recorded)
	}
	return err
}

// whenRead has something done when the body has been read whole.
func (u *upload) whenRead(do func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.atEnd = do
	if u.err == io.EOF {
		do()
	}
}

// again gives up the current reader: from now on the body is sent anew, and for
// the last time.
func (u *upload) again() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.current, u.recording = nil, false
	u.recorded = slices.Clip(u.recorded)
}

// interrupt ends a read of the caller's body that waits, and all later ones.
func interrupt(w http.ResponseWriter, r *http.Request) error {
	if g, ok := r.Context().Value(guardKey{}).(*guard); ok {
		return g.stop()
	}
	return http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0))
}
