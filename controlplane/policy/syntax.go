package policy

import (
	"regexp"
	"strconv"
	"strings"
)

var (
	yamlLine  = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)
	yamlQuote = regexp.MustCompile("(?s)'.*'|\".*\"|`.*`")
)

// SyntaxError takes apart an error of the YAML library: the line, 0 where it
// knows none, and a message that can be shown. The library quotes what it
// stumbled over, which may be a secret, so quotes are left out.
func SyntaxError(err error) (line int, message string) {
	message = err.Error()
	if m := yamlLine.FindStringSubmatch(message); m != nil {
		line, _ = strconv.Atoi(m[1])
		message = message[len(m[0]):]
	}
	// Behind these words stand marks of YAML's own, such as ']'.
	if strings.HasPrefix(message, "did not find expected ") {
		return line, message
	}
	return line, yamlQuote.ReplaceAllString(message, "'...'")
}
