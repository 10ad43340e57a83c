package main

import (
	"io"
	"strings"
	"testing"
)

// Only a yes is a yes.
func TestAsk(t *testing.T) {
	for answer, want := range map[string]bool{
		"y\n": true, "yes\n": true, "YES\r\n": true, "y": true,
		"": false, "\n": false, "n\n": false, "yess\n": false, "no\ny\n": false,
	} {
		var out strings.Builder
		err := ask(strings.NewReader(answer), &out, "this ends it all")
		if (err == nil) != want {
			t.Errorf("ask with answer %q = %v, want yes: %t", answer, err, want)
		}
		if out.String() != "this ends it all. Go on? [y/N] " {
			t.Errorf("ask printed %q", out.String())
		}
	}
	if err := ask(brokenReader{}, io.Discard, "x"); err == nil {
		t.Error("ask on a terminal that is gone = nil, want an error")
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
