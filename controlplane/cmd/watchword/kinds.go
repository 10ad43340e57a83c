package main

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"
)

// kind is a kind of resource, as users name it and as a table shows it.
type kind struct {
	name string
	// Lower case, as in service/orders.
	singular, plural, short string
	header                  []string
	row                     func(item) []cell
}

var kinds = []kind{
	{"Service", "service", "services", "svc",
		[]string{"NAME", "REVISION", "AUDIENCES", "ROUTES", "INBOUND", "CALLS"}, serviceRow},
	{"Issuer", "issuer", "issuers", "iss",
		[]string{"NAME", "REVISION", "ISSUER", "KEYS", "ALGORITHMS"}, issuerRow},
	{"Consumer", "consumer", "consumers", "con",
		[]string{"NAME", "REVISION", "USERNAME", "CUSTOM ID", "CREDENTIALS", "MATCH"}, consumerRow},
	{"AuthenticationPolicy", "authenticationpolicy", "authenticationpolicies", "authn",
		[]string{"NAME", "REVISION", "TARGET", "MODE", "ISSUERS"}, authenticationRow},
	{"AuthorizationPolicy", "authorizationpolicy", "authorizationpolicies", "authz",
		[]string{"NAME", "REVISION", "TARGET", "ACTION", "RULES"}, authorizationRow},
	{"RoleBinding", "rolebinding", "rolebindings", "rb",
		[]string{"NAME", "REVISION", "ROLE", "SERVICES", "SUBJECTS"}, roleBindingRow},
}

// parseKind accepts a kind's singular, plural and short name in any case.
func parseKind(text string) (kind, error) {
	for _, k := range kinds {
		if slices.Contains([]string{k.singular, k.plural, k.short}, strings.ToLower(text)) {
			return k, nil
		}
	}
	return kind{}, usagef("unknown kind %q; use one of %s", text, kindNames())
}

func kindNames() string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.plural+" ("+k.short+")")
	}
	return strings.Join(names, ", ")
}

// parseNames reads KIND NAME... or KIND/NAME..., as -o name prints them.
func parseNames(args []string) ([]resourceName, error) {
	if !strings.Contains(args[0], "/") {
		k, err := parseKind(args[0])
		if err != nil {
			return nil, err
		}
		var names []resourceName
		for _, name := range args[1:] {
			names = append(names, resourceName{k.name, name})
		}
		return names, nil
	}
	var names []resourceName
	for _, arg := range args {
		kindText, name, ok := strings.Cut(arg, "/")
		if !ok {
			return nil, usagef("%q: want KIND/NAME, as in %q", arg, args[0])
		}
		k, err := parseKind(kindText)
		if err != nil {
			return nil, err
		}
		names = append(names, resourceName{k.name, name})
	}
	return names, nil
}

type resourceName struct{ kind, name string }

// String is service/orders.
func (r resourceName) String() string { return strings.ToLower(r.kind) + "/" + r.name }

// item is a resource in the form that users write.
type item map[string]any

func itemsOf(structs []*structpb.Struct) []item {
	items := make([]item, len(structs))
	for i, s := range structs {
		items[i] = s.AsMap()
	}
	return items
}

func (i item) kind() string { s, _ := i["kind"].(string); return s }
func (i item) name() string { return i.object("metadata").text("name") }

func (i item) resourceName() resourceName { return resourceName{i.kind(), i.name()} }

func (i item) object(field string) item { m, _ := i[field].(map[string]any); return m }

func (i item) text(field string) string { return text(i[field]) }

func (i item) list(field string) []any { l, _ := i[field].([]any); return l }

// texts is a list of strings, with commas.
func (i item) texts(field string) string {
	var out []string
	for _, v := range i.list(field) {
		out = append(out, text(v))
	}
	return strings.Join(out, ",")
}

// each is one field of each object in a list, with commas and once each.
func (i item) each(list, field string) string {
	var out []string
	for _, v := range i.list(list) {
		m, _ := v.(map[string]any)
		if s := item(m).text(field); s != "" && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return strings.Join(out, ",")
}
