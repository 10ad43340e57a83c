package importer

import (
	"errors"
	"strconv"
	"strings"
	"testing"
)

// Names of fields count as what is read, for each alias that they stand behind.
func TestNamesAreBounded(t *testing.T) {
	var keys strings.Builder
	for i := range 20_000 {
		keys.WriteString("k" + strconv.Itoa(i) + ": a, ")
	}
	content := "_format_version: '3.0'\nconsumers: [&c {" + keys.String() + "username: a}" + strings.Repeat(", *c", 1000) + "]\n"
	_, err := Kong([]File{{Name: "in", Content: []byte(content)}}, Options{})
	var input *InputError
	if !errors.As(err, &input) || !strings.Contains(err.Error(), "too large: over 1000000 values") {
		t.Errorf("Kong of an object of 20000 fields behind 1000 aliases: %.500v; want an *InputError that says it is too large", err)
	}
}
