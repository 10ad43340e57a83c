package main

import (
	"fmt"
	"strings"
	"time"
)

// fetchedText says in a few words how the key set of an issuer is that the
// control plane fetches: how many keys, and how old if that matters.
func fetchedText(status item, now time.Time) string {
	text := fmt.Sprintf("jwksUri (%d", len(status.list("keys")))
	if status.text("error") != "" {
		text += ", failing"
	}
	if fetched := status.time("fetched"); !fetched.IsZero() {
		text += ", " + age(fetched, now) + " old"
	} else {
		text += ", never fetched"
	}
	return text + ")"
}

// printKeySet prints below a table what there is to know of a fetched key set.
func (c *console) printKeySet(i item, now time.Time) {
	uri := i.object("spec").object("keySet").object("jwksUri")
	if i.kind() != "Issuer" || uri == nil {
		return
	}
	status := i.object("status")
	line := func(name, text string) { fmt.Fprintf(c.out, "%-12s %s\n", name, oneLine(text)) }
	fmt.Fprintln(c.out)
	line("key set", uri.text("uri"))
	if fetched := status.time("fetched"); fetched.IsZero() {
		line("fetched", "never: no token of this issuer is accepted yet")
	} else {
		line("fetched", age(fetched, now)+" ago, changed "+age(status.time("changed"), now)+" ago")
	}
	var keys []string
	for _, v := range status.list("keys") {
		k, _ := v.(map[string]any)
		keys = append(keys, strings.TrimSpace(orNone(item(k).text("kid"))+" "+item(k).text("algorithm")))
	}
	line("keys", orNone(strings.Join(keys, ", ")))
	if text := status.text("error"); text != "" {
		line("last error", age(status.time("attempted"), now)+" ago: "+text)
	}
	for _, text := range status.list("leftOut") {
		line("left out", fmt.Sprint(text))
	}
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// time is a point in time as the JSON form of protobuf writes it; the zero one
// if there is none.
func (i item) time(field string) time.Time {
	t, _ := time.Parse(time.RFC3339Nano, i.text(field))
	return t
}
