package xds

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"
)

// Resource is one xDS resource, encoded by whoever made it and shared by all
// streams that get it: Body must not be changed after Publish.
type Resource struct {
	// TypeURL is the type of the resource, with the type.googleapis.com/ prefix.
	// For ECDS it is that of envoy.config.core.v3.TypedExtensionConfig.
	TypeURL string
	Name    string
	// Body is the serialised message.
	Body []byte
}

// Update is what one revision changed.
type Update struct {
	Revision int64
	// Services holds only the services whose resources change, each with all of
	// its resources. An empty slice removes the service.
	Services map[string][]Resource
	// Leases are how long the data planes of a service in Services go on without
	// hearing from us; a service that is not in it has no leases. The resource
	// "mesh.lease" is not among those of a service that has them.
	Leases map[string]time.Duration
}

// absent is the version of a resource that does not exist. No other has it.
const absent = "absent"

// entry is one resource at one version. It is never modified.
type entry struct {
	version string
	// wire is what goes into responses. It is shared, which is safe because the
	// engine writes into the response (the nonce), never into its resources.
	wire *discovery.Resource
	// secret: it is shown to nobody, and forgotten when it was answered.
	secret bool
}

func (e *entry) versionOrAbsent() string {
	if e == nil {
		return absent
	}
	return e.version
}

func newEntry(key []byte, r Resource) *entry {
	v := version(key, r)
	return &entry{version: v, wire: wireOf(r, v)}
}

func wireOf(r Resource, version string) *discovery.Resource {
	return &discovery.Resource{
		Name:     r.Name,
		Version:  version,
		Resource: &anypb.Any{TypeUrl: r.TypeURL, Value: r.Body},
	}
}

// version is the first 16 hex digits of HMAC-SHA-256 over type URL, name and
// body, each ended by what cannot occur in the one before.
func version(key []byte, r Resource) string {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(r.TypeURL + "\x00" + r.Name + "\x00"))
	h.Write(r.Body)
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// content is what a service has: type URL, then name.
type content map[string]map[string]*entry

// change is one name with what it is now; entry is nil if it was removed.
type change struct {
	typeURL, name string
	entry         *entry
}

// replace returns the new content and what differs from the old, sorted by type
// and name. Entries that are equal in both are kept, so that streams go on
// sharing them.
func (old content) replace(key []byte, resources []Resource) (content, []change) {
	now := make(content)
	var diff []change
	for _, r := range resources {
		e := newEntry(key, r)
		if had := old[r.TypeURL][r.Name]; had != nil && had.version == e.version {
			e = had
		} else {
			diff = append(diff, change{r.TypeURL, r.Name, e})
		}
		if now[r.TypeURL] == nil {
			now[r.TypeURL] = make(map[string]*entry)
		}
		now[r.TypeURL][r.Name] = e
	}
	for typeURL, entries := range old {
		for name := range entries {
			if now[typeURL][name] == nil {
				diff = append(diff, change{typeURL, name, nil})
			}
		}
	}
	slices.SortFunc(diff, func(a, b change) int {
		return cmp.Or(cmp.Compare(a.typeURL, b.typeURL), cmp.Compare(a.name, b.name))
	})
	return now, diff
}
