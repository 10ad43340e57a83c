package ruleset

import (
	"slices"
)

// ownHeaders are the headers that only we may set, by their length: all that begin
// with headerPrefix, and those that rules fill.
type ownHeaders map[int][]string

// add takes a name in lower case.
func (o ownHeaders) add(name string) {
	if !o.has(name) {
		o[len(name)] = append(o[len(name)], name)
	}
}

func (o ownHeaders) has(name string) bool {
	if len(name) > len(headerPrefix) && sameHeader(name[:len(headerPrefix)], headerPrefix) {
		return true
	}
	return slices.ContainsFunc(o[len(name)], func(own string) bool { return sameHeader(name, own) })
}

// sameHeader compares names as servers may read them that hand headers on as
// variables, which can't tell a hyphen from an underscore (RFC 3875 section
// 4.1.18). Names of two lengths are never the same.
func sameHeader(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if headerByte(a[i]) != headerByte(b[i]) {
			return false
		}
	}
	return true
}

func headerByte(c byte) byte {
	switch {
	case c == '_':
		return '-'
	case c >= 'A' && c <= 'Z':
		return c | 0x20
	}
	return c
}
