package xdsclient

import (
	"slices"
	"strings"
)

// subscribedType is a type of which something was asked for.
type subscribedType struct {
	url string
	// label is the name of the message, without its package.
	label string
	names []string
}

// subscribedTypes keeps the order of the subscriptions.
func subscribedTypes(all []Subscription) []subscribedType {
	var types []subscribedType
	for _, s := range all {
		i := slices.IndexFunc(types, func(t subscribedType) bool { return t.url == s.TypeURL })
		if i < 0 {
			i = len(types)
			types = append(types, subscribedType{url: s.TypeURL, label: s.TypeURL[strings.LastIndexAny(s.TypeURL, "./")+1:]})
		}
		types[i].names = append(types[i].names, s.Name)
	}
	return types
}

func (c *client) subscribedType(url string) (subscribedType, bool) {
	for _, t := range c.types {
		if t.url == url {
			return t, true
		}
	}
	return subscribedType{}, false
}

func (t subscribedType) has(name string) bool { return slices.Contains(t.names, name) }
