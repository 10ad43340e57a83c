package importer

import (
	"fmt"
	"strings"
)

// label makes a DNS label of a name: lower-case letters, digits and dashes, at
// most 63.
func label(s string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(s) {
		if (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') {
			b.WriteRune(c)
		} else if b.Len() > 0 && !strings.HasSuffix(b.String(), "-") {
			b.WriteByte('-')
		}
	}
	out := b.String()
	if len(out) > 63 {
		out = out[:63]
	}
	return strings.Trim(out, "-")
}

// name is a name that nothing else of the kind has, made from what is wanted.
// The same key gets the same name.
func (r *run) name(kind, wanted, key string) string {
	base := label(wanted)
	if base == "" {
		base = label(kind)
	}
	if r.names[kind] == nil {
		r.names[kind] = map[string]string{}
	}
	for i := 1; ; i++ {
		name := base
		if i > 1 {
			tail := fmt.Sprintf("-%d", i)
			name = strings.TrimRight(base[:min(len(base), 63-len(tail))], "-") + tail
		}
		if was, taken := r.names[kind][name]; !taken || was == key {
			r.names[kind][name] = key
			return name
		}
	}
}

// rename is name for what the user has named, who is told of a change.
func (r *run) rename(n node, kind, original, key string) string {
	name := r.name(kind, original, key)
	if name != original {
		r.warn(n, "%q is named %q here: names are lower-case letters, digits and dashes, each once", clip(original), name)
	}
	return name
}
