package xdsclient

import (
	"time"

	"github.com/hashicorp/go-hclog"
)

// quiet is how long a failure that repeats itself is logged for debugging only.
const quiet = time.Minute

// failureLog logs why there is no stream, and not each time anew.
type failureLog struct {
	log  hclog.Logger
	now  func() time.Time
	last map[string]failure // by address
}

type failure struct {
	text string
	at   time.Time
}

func (f failureLog) report(address string, err error) {
	this := failure{printable(err.Error()), f.now()}
	level := hclog.Warn
	if last := f.last[address]; last.text == this.text && this.at.Sub(last.at) < quiet {
		level = hclog.Debug
	} else {
		f.last[address] = this
	}
	f.log.Log(level, "no stream to the control plane; trying again, with what is in force", "address", address, "error", this.text)
}
