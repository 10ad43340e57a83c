package main

import (
	"regexp"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
)

var (
	rpcError        = regexp.MustCompile(`rpc error: code = \w+ desc = `)
	connectionError = regexp.MustCompile(`connection error: desc = ("(?:[^"\\]|\\.)*")`)
	otherType       = regexp.MustCompile(`; transport: received unexpected content-type "[^"]*"(?:\s+data: "(?:[^"\\]|\\.)*")?`)
	codeAtEnd       = regexp.MustCompile(`(?m) \((?:` + codeNames() + `)\)$`)
)

// codeNames are the names of gRPC's codes, as alternatives.
func codeNames() string {
	var names []string
	for c := codes.Canceled; c <= codes.Unauthenticated; c++ {
		names = append(names, c.String())
	}
	return strings.Join(names, "|")
}

// plainWords is an error without what gRPC puts around its cause, which says
// nothing to who has never written a program with it.
func plainWords(text string) string {
	text = connectionError.ReplaceAllStringFunc(text, func(all string) string {
		quoted := connectionError.FindStringSubmatch(all)[1]
		if cause, err := strconv.Unquote(quoted); err == nil {
			return cause
		}
		return quoted
	})
	text = otherType.ReplaceAllString(rpcError.ReplaceAllString(text, ""), "")
	for _, layer := range append([]string{"transport: "}, layers...) {
		text = strings.ReplaceAll(text, layer, "")
	}
	return codeAtEnd.ReplaceAllString(text, "")
}
