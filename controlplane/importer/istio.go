package importer

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Istio imports RequestAuthentications and AuthorizationPolicies of one
// namespace and of the root namespace (security.istio.io). The error is an
// *InputError.
//
// In Istio all policies that select a workload count together; here the most
// specific one holds whole. So what a service gets from several is written out
// for it.
func Istio(files []File, o Options) (Result, error) {
	i := istio{run: newRun(files), o: o, issuers: map[string]*istioIssuer{}}
	i.root = cmp.Or(o.RootNamespace, "istio-system")
	for _, w := range o.Workloads {
		if label(w.Service) != w.Service || w.Service == "" {
			i.faults = append(i.faults, Note{Source: "--service", Message: fmt.Sprintf("%q is no name of a Service: lower-case letters, digits and dashes", clip(w.Service))})
		}
	}
	var objects []istioObject
	for _, d := range i.documents(files) {
		objects = append(objects, i.objects(d)...)
	}
	i.read(objects)
	if len(i.requests)+len(i.rules) == 0 && len(i.faults) == 0 && !i.found {
		i.faults = append(i.faults, Note{Source: i.source(), Message: "there is no RequestAuthentication or AuthorizationPolicy in it"})
	}
	i.authentication()
	i.authorization()
	i.addServices()
	return i.result()
}

type istio struct {
	*run
	o    Options
	root string
	// How many objects were read.
	count int
	// A policy was there, if only to be left over.
	found    bool
	requests []requestAuthentication
	rules    []authorizationPolicy
	// A RequestAuthentication is left out, which could be about any service.
	unplaced bool
	// A rule of a RequestAuthentication is left out, or all of one's.
	lostIssuer bool
	// By iss.
	issuers map[string]*istioIssuer
	// The Services that policies name, in their order.
	services []string
}

// istioObject is one Kubernetes object.
type istioObject struct {
	object
	kind, name, namespace string
	annotations           object
	// Tells it from all others.
	id string
}

// scope is what a policy is about: everything, or some services.
type scope struct {
	all      bool
	services []string
}

func (s scope) includes(service string) bool { return s.all || slices.Contains(s.services, service) }

// objects reads one document, which may be a list of objects.
func (i *istio) objects(n node) []istioObject {
	o := i.object(n)
	kind := o.text("kind")
	if kind == "List" || strings.HasSuffix(kind, "List") && o.has("items") {
		var out []istioObject
		for _, item := range o.list("items") {
			out = append(out, i.objects(item)...)
		}
		return out
	}
	meta := o.object("metadata")
	k := istioObject{object: o, kind: kind, name: meta.text("name"), namespace: cmp.Or(meta.text("namespace"), "default"), annotations: meta.object("annotations")}
	if kind == "" {
		i.fault(n, "kind is missing: want Kubernetes objects such as a RequestAuthentication")
		return nil
	}
	if k.name == "" {
		i.fault(n, "metadata.name is missing")
		return nil
	}
	// Read again, so that notes say which object they are about.
	k.node = node{yaml: o.yaml, source: o.source, what: kind + "/" + k.name}
	k.object = i.object(k.node)
	i.count++
	k.id = strconv.Itoa(i.count)
	return []istioObject{k}
}

func (i *istio) read(objects []istioObject) {
	ours := i.o.Namespace
	for _, k := range objects {
		switch k.kind {
		case "RequestAuthentication", "AuthorizationPolicy":
		case "PeerAuthentication":
			i.found = true
			i.leave(k.node, "mutual TLS between proxies is not Watchword's: it authenticates by tokens")
			continue
		default:
			i.leave(k.node, "the kind %q is not imported; RequestAuthentication and AuthorizationPolicy are", clip(k.kind))
			continue
		}
		i.found = true
		i.object(k.node, "apiVersion", "kind", "metadata", "spec", "status")
		if api := k.text("apiVersion"); !strings.HasPrefix(api, "security.istio.io/") {
			at, _ := k.at("apiVersion")
			i.fault(at, "%q is not security.istio.io/v1", clip(api))
			continue
		}
		if k.namespace != i.root && ours == "" {
			ours = k.namespace
		}
		if k.namespace != i.root && k.namespace != ours {
			i.leave(k.node, "is in the namespace %q, and this import is of %q: Watchword has no namespaces, import one at a time (--namespace)", clip(k.namespace), clip(ours))
			continue
		}
		i.policy(k)
	}
}

func (i *istio) policy(k istioObject) {
	if k.kind == "RequestAuthentication" {
		spec := k.object.object("spec", "selector", "targetRef", "targetRefs", "jwtRules")
		s, ok := i.scope(k, spec)
		if !ok {
			i.unplaced, i.lostIssuer = true, true
			return
		}
		i.requests = append(i.requests, i.requestAuthentication(k, spec, s))
		return
	}
	spec := k.object.object("spec", "selector", "targetRef", "targetRefs", "rules", "action", "provider")
	i.authorizationPolicy(k, spec)
}

// notes counts what was said of what can't be imported.
func (i *istio) notes() int { return len(i.left) + len(i.faults) }

// scope resolves whom a policy is about; ok is false if it is left over, which
// it must not be without a note.
func (i *istio) scope(k istioObject, spec object) (s scope, ok bool) {
	before := i.notes()
	refs := spec.list("targetRefs")
	if at, ok := spec.at("targetRef"); ok {
		refs = append(refs, at)
	}
	if len(refs) > 0 {
		s, ok = i.targetRefs(refs)
	} else {
		s, ok = i.selected(k, spec)
	}
	if !ok && i.notes() == before {
		i.leave(k.node, untold)
	}
	return s, ok
}

// selected is the scope that labels give.
func (i *istio) selected(k istioObject, spec object) (scope, bool) {
	selector := spec.object("selector", "matchLabels")
	labels := selector.object("matchLabels")
	if len(labels.keys) == 0 {
		if k.namespace != i.root {
			i.warn(k.node, "holds in the whole namespace, and becomes a policy for the whole mesh, which has no namespaces")
		}
		return scope{all: true}, true
	}
	wanted := map[string]string{}
	for _, key := range labels.keys {
		wanted[key] = labels.text(key)
	}
	services := i.resolve(labels, wanted)
	for _, s := range services {
		i.mention(s)
	}
	return scope{services: services}, len(services) > 0
}

func (i *istio) mention(service string) {
	if !slices.Contains(i.services, service) {
		i.services = append(i.services, service)
	}
}

// resolve finds the services that labels select.
func (i *istio) resolve(labels object, wanted map[string]string) []string {
	if len(i.o.Workloads) == 0 {
		return i.guess(labels, wanted)
	}
	var out []string
	for _, w := range i.o.Workloads {
		matches := true
		for k, v := range wanted {
			matches = matches && w.Labels[k] == v
		}
		if matches && !slices.Contains(out, w.Service) {
			out = append(out, w.Service)
		}
	}
	if len(out) == 0 {
		i.leave(labels.node, "no --service has these labels: the policy is left out")
	}
	return out
}

// guess takes the usual label for the name, if it is the only one.
func (i *istio) guess(labels object, wanted map[string]string) []string {
	name := ""
	for _, key := range []string{"app", "app.kubernetes.io/name"} {
		v := wanted[key]
		if v == "" {
			continue
		}
		if name != "" && v != name {
			name = ""
			break
		}
		name = v
		delete(wanted, key)
	}
	if name == "" || len(wanted) > 0 {
		i.leave(labels.node, "which Service is it? Say so with --service NAME=%s: the policy is left out", labelText(labels))
		return nil
	}
	return []string{i.rename(labels.node, "Service", name, name)}
}

func labelText(labels object) string {
	var out []string
	for _, k := range labels.keys {
		out = append(out, k+"="+labels.text(k))
	}
	return clip(strings.Join(out, ","))
}

// targetRefs name Services of the Gateway API's kind.
func (i *istio) targetRefs(refs []node) (scope, bool) {
	var out scope
	for _, n := range refs {
		ref := i.object(n, "group", "kind", "name", "namespace")
		if kind := ref.text("kind"); kind != "Service" || ref.text("group") != "" {
			i.leave(n, "a policy for a %s has no place here, only for a Service: it is left out", clip(kind))
			continue
		}
		if name := ref.need("name"); name != "" {
			out.services = append(out.services, i.rename(n, "Service", name, name))
		}
	}
	if len(out.services) < len(refs) {
		return scope{}, false
	}
	for _, s := range out.services {
		i.mention(s)
	}
	return out, len(out.services) > 0
}

func (i *istio) addServices() {
	for _, w := range i.o.Workloads {
		i.mention(w.Service)
	}
	for _, s := range i.services {
		i.addService(i.o, s, &policyv1.ServiceSpec{})
	}
}
