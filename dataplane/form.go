package dataplane

import (
	"io"
	"net/http"
	"os"
	"time"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	"github.com/watchword-mesh/watchword/dataplane/ruleset"
)

// readBody reads a form, up to the limit.
func (d *DataPlane) readBody(w http.ResponseWriter, r *http.Request, req *ruleset.Request) reason.Word {
	if len(r.Header["Content-Encoding"]) > 0 {
		return reason.BodyUnreadable // the service would decode what was not looked at
	}
	// Servers have deadlines of their own, which stay as they are unless this one is over.
	late := time.AfterFunc(formTimeout, func() { _ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) })
	defer late.Stop()
	body, err := io.ReadAll(&timely{http.MaxBytesReader(w, r.Body, d.config.MaxFormBytes), time.Now().Add(formTimeout)})
	if err != nil {
		return reason.BodyUnreadable
	}
	req.Body = body
	return ""
}

// timely is a reader up to a time, however often somebody moves its deadline.
type timely struct {
	io.Reader
	until time.Time
}

func (t *timely) Read(p []byte) (int, error) {
	if time.Now().After(t.until) {
		return 0, os.ErrDeadlineExceeded
	}
	return t.Reader.Read(p)
}

// formTimeout is how long a form may take to arrive.
const formTimeout = 30 * time.Second
