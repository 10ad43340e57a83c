package importer

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Kong imports a declarative configuration (_format_version 1.1, 2.1 or 3.0):
// services, routes, consumers with jwt_secrets, and the plugin jwt. The error
// is an *InputError.
func Kong(files []File, o Options) (Result, error) {
	k := kong{run: newRun(files), o: o, consumers: map[string]*kongConsumer{}, keys: map[string]bool{}, configs: map[string]node{}}
	docs := k.documents(files)
	for _, d := range docs {
		k.sharedConfigs(d)
	}
	for _, d := range docs {
		k.read(d)
	}
	if len(docs) == 0 && len(k.faults) == 0 {
		k.faults = append(k.faults, Note{Source: k.source(), Message: "there is no declarative configuration in it"})
	}
	for _, r := range k.topRoutes {
		k.topRoute(r.node, r.version)
	}
	k.assign()
	k.credentials()
	k.policies()
	return k.result()
}

type kong struct {
	*run
	o        Options
	services []*kongService
	// In the order of the files.
	consumerList []*kongConsumer
	// By username, custom_id and id.
	consumers map[string]*kongConsumer
	// Keys of credentials, which are unique.
	keys    map[string]bool
	secrets []kongSecret
	// Configurations that deck lets several plugins have, by name.
	configs map[string]node
	plugins []kongPlugin
	// Of everything.
	global kongScope
	// Plugins beside jwt that may refuse requests.
	guards []kongPlugin
	// One of them that is for a group of consumers, by name.
	groupGuard string
	// Routes beside services, which another file may have.
	topRoutes []versioned
}

// versioned is a value with the version of its file's format.
type versioned struct {
	node
	version string
}

type kongService struct {
	node
	original, id, name string
	routes             []*kongRoute
	kongScope
	// What the strictest of the routes that are left out grants, and the laxest
	// of what is here.
	limit, most kongAccess
}

type kongRoute struct {
	node
	original, id string
	route        *policyv1.Route
	// Its paths as they are here, by the length that they have in Kong.
	byLength map[int][]string
	// Of the Routes that it becomes.
	names []string
	kongScope
	// It has no place here.
	left bool
}

// kongPlugin is one use of a plugin.
type kongPlugin struct {
	node
	name string
	// What it is for, by name or id.
	service, route, consumer, group string
	inService                       *kongService
	inRoute                         *kongRoute

	// Of jwt alone.
	config    object
	base64    bool
	anonymous string
}

// Entities that say nothing about who may call.
var kongAside = []string{"_info", "_comment", "_ignore", "_transform", "_workspace", "upstreams", "targets", "certificates", "ca_certificates", "snis", "vaults", "keys", "key_sets"}

func (k *kong) read(n node) {
	known := append([]string{"_format_version", "_plugin_configs", "services", "routes", "plugins", "consumers", "jwt_secrets"}, kongAside...)
	o := k.object(n, known...)
	version := o.text("_format_version")
	if !slices.Contains([]string{"1.1", "2.1", "3.0"}, version) && !o.broken("_format_version") {
		at, _ := o.at("_format_version")
		k.fault(at, "wants a declarative configuration: _format_version \"1.1\", \"2.1\" or \"3.0\"")
	}
	for _, s := range o.list("services") {
		k.service(s, version)
	}
	for _, r := range o.list("routes") {
		k.topRoutes = append(k.topRoutes, versioned{r, version})
	}
	for _, p := range o.list("plugins") {
		k.plugin(p, nil, nil)
	}
	for _, c := range o.list("consumers") {
		k.consumer(c)
	}
	for _, s := range o.list("jwt_secrets") {
		k.secrets = append(k.secrets, k.secret(s, nil))
	}
}

// What a Kong service says about forwarding.
var kongServiceFields = []string{"name", "id", "tags", "routes", "plugins", "enabled",
	"url", "host", "port", "path", "protocol", "retries", "connect_timeout", "read_timeout", "write_timeout", "tls_verify", "tls_verify_depth", "ca_certificates", "client_certificate"}

func (k *kong) service(n node, version string) {
	o := k.object(n, kongServiceFields...)
	s := &kongService{node: n, original: o.text("name"), id: o.text("id")}
	if s.original == "" && s.id == "" {
		k.fault(n, "name is missing")
		return
	}
	if !o.flag("enabled", true) {
		k.warn(n, "is disabled in the original, and left out")
		return
	}
	s.name = k.rename(n, "Service", cmp.Or(s.original, s.id), n.source+n.path)
	k.services = append(k.services, s)
	for _, p := range o.list("plugins") {
		k.plugin(p, s, nil)
	}
	for _, r := range o.list("routes") {
		k.route(r, s, version)
	}
}

// topRoute is a route that is not written inside of its service.
func (k *kong) topRoute(n node, version string) {
	ref := k.reference(k.object(n), "service")
	for _, s := range k.services {
		if ref != "" && (s.original == ref || s.id == ref) {
			k.route(n, s, version)
			return
		}
	}
	k.leave(n, "belongs to no service of the file, so that nothing can be called through it")
}

// reference is the name or ID of another entity: a string, or an object.
func (k *kong) reference(o object, field string) string {
	n, ok := o.at(field)
	if !ok {
		return ""
	}
	if n.yaml.Tag == "!!str" {
		return n.yaml.Value
	}
	ref := k.object(n, "name", "id", "username", "custom_id")
	return cmp.Or(ref.text("name"), ref.text("username"), ref.text("id"), ref.text("custom_id"))
}

var (
	kongRouteAside    = []string{"id", "name", "tags", "service", "plugins", "protocols", "strip_path", "preserve_host", "https_redirect_status_code", "path_handling", "request_buffering", "response_buffering", "regex_priority", "created_at", "updated_at"}
	kongRouteNarrower = []string{"headers", "snis", "sources", "destinations", "expression", "priority"}
)

func (k *kong) route(n node, s *kongService, version string) {
	known := slices.Concat([]string{"hosts", "paths", "methods"}, kongRouteNarrower, kongRouteAside)
	o := k.object(n, known...)
	r := &kongRoute{node: n, original: o.text("name"), id: o.text("id"), byLength: map[int][]string{}}
	r.route = &policyv1.Route{Methods: plain(o.texts("methods"))}
	for _, field := range kongRouteNarrower {
		if o.has(field) {
			at, _ := o.at(field)
			r.left = true
			k.leave(at, "routes are told apart by hosts, paths and methods alone")
		}
	}
	k.hosts(o, r)
	k.paths(o, r, version)
	if !r.left && len(r.route.GetHosts())+len(r.route.GetPaths())+len(r.route.GetMethods()) == 0 {
		r.left = true
		k.leave(n, "gives neither hosts nor paths nor methods")
	}
	if r.left {
		k.leave(n, "the route is left out; its requests belong to the rest of the service, which takes tokens of Watchword's own issuer alone where no policy says otherwise")
	} else {
		name := cmp.Or(r.original, r.id, fmt.Sprintf("route-%d", len(s.routes)+1))
		r.route.Name = k.rename(n, "Route of "+s.name, name, n.source+n.path)
	}
	s.routes = append(s.routes, r)
	for _, p := range o.list("plugins") {
		k.plugin(p, s, r)
	}
}

func (k *kong) hosts(o object, r *kongRoute) {
	for _, h := range o.texts("hosts") {
		name, ok := host(h.text)
		if !ok {
			r.left = true
			k.leave(h.node, "%q %s", clip(h.text), hostReason)
		} else if !slices.Contains(r.route.Hosts, name) {
			r.route.Hosts = append(r.route.Hosts, name)
		}
	}
}

// plainKongPath is what Kong took for no regular expression before 3.0.
var plainKongPath = regexp.MustCompile(`^[a-zA-Z0-9._~/%-]*$`)

func (k *kong) paths(o object, r *kongRoute, version string) {
	for _, p := range o.texts("paths") {
		switch {
		case strings.HasPrefix(p.text, "~") || (version != "3.0" && !plainKongPath.MatchString(p.text)):
			r.left = true
			k.leave(p.node, "%q is a regular expression; paths here are matched exactly or by a prefix", clip(p.text))
			continue
		case !path(p.text) || strings.HasSuffix(p.text, "*"):
			r.left = true
			k.leave(p.node, "%q is no path that a normalised request can have", clip(p.text))
			continue
		}
		r.byLength[len(p.text)] = append(r.byLength[len(p.text)], patterns(p.text)...)
	}
	r.route.Paths = r.pathsOf(r.lengths()...)
}

// patterns are the paths that a prefix of Kong's stands for, as far as its
// segments go.
func patterns(prefix string) []string {
	below := strings.TrimSuffix(prefix, "/") + "/*"
	if strings.HasSuffix(prefix, "/") {
		return []string{below}
	}
	return []string{prefix, below}
}
