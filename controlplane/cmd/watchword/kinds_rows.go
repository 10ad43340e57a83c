package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// text prints a scalar; a revision is a number in JSON, and must not come out
// as 1e+06.
func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case bool:
		return strconv.FormatBool(v)
	}
	return ""
}

func row(i item, columns ...string) []cell {
	return plain(append([]string{i.name(), i.object("metadata").text("revision")}, columns...)...)
}

func serviceRow(i item) []cell {
	spec := i.object("spec")
	inbound := ""
	if in := spec.object("inbound"); in != nil {
		inbound = in.text("address") + ":" + in.text("port") + " -> " + in.text("localAddress")
	}
	audiences := spec.texts("audiences")
	if audiences == "" {
		audiences = i.name()
	}
	return row(i, audiences, spec.each("routes", "name"), inbound, spec.each("calls", "service"))
}

func issuerRow(i item) []cell {
	spec := i.object("spec")
	keys := keysText(spec.object("keySet"))
	if status := i.object("status"); status != nil && spec.object("keySet")["jwksUri"] != nil {
		keys = fetchedText(status, time.Now())
	}
	return row(i, spec.text("issuer"), keys, spec.texts("algorithms"))
}

// keysText says where an issuer's keys come from, and how many there are.
func keysText(set item) string {
	switch {
	case set["builtin"] != nil:
		return strings.TrimSpace("builtin " + set.object("builtin").text("trustDomain"))
	case set["jwksUri"] != nil:
		return "jwksUri " + set.object("jwksUri").text("uri")
	case set["secret"] != nil:
		return fmt.Sprintf("secret (%d)", len(set.object("secret").list("keys")))
	case set["pem"] != nil:
		return fmt.Sprintf("pem (%d)", len(set.object("pem").list("keys")))
	case set["jwks"] != nil:
		var jwks struct {
			Keys []json.RawMessage `json:"keys"`
		}
		if json.Unmarshal([]byte(set.text("jwks")), &jwks) != nil {
			return "jwks"
		}
		return fmt.Sprintf("jwks (%d)", len(jwks.Keys))
	}
	return ""
}

func consumerRow(i item) []cell {
	spec := i.object("spec")
	match := ""
	if m := spec.object("match"); m != nil {
		match = m.text("issuer")
		if n := len(m.list("claims")); n > 0 {
			match += " (" + count(n, "claim") + ")"
		}
	}
	return row(i, spec.text("username"), spec.text("customId"), strconv.Itoa(len(spec.list("credentials"))), match)
}

func authenticationRow(i item) []cell {
	spec := i.object("spec")
	mode := spec.text("mode")
	if mode == "" {
		mode = "STRICT"
	}
	return row(i, targetText(spec.object("target")), observed(mode, spec), signers(spec))
}

// observed marks what is only observed.
func observed(what string, spec item) string {
	if spec.text("enforcement") == "OBSERVE" {
		return what + " (observed)"
	}
	return what
}

// signers says whose tokens the rules of a policy take.
func signers(spec item) string {
	var out []string
	for _, v := range spec.list("jwtRules") {
		m, _ := v.(map[string]any)
		rule := item(m)
		signer := rule.text("issuer")
		for _, field := range []string{"consumers", "services"} {
			if rule[field] != nil {
				signer = field
			}
		}
		if signer != "" && !slices.Contains(out, signer) {
			out = append(out, signer)
		}
	}
	return strings.Join(out, ",")
}

func authorizationRow(i item) []cell {
	spec := i.object("spec")
	return row(i, targetText(spec.object("target")), observed(spec.text("action"), spec), strconv.Itoa(len(spec.list("rules"))))
}

// targetText is "mesh", "orders", or "orders:read,write" with routes.
func targetText(target item) string {
	services, routes := target.texts("services"), target.texts("routes")
	switch {
	case services == "":
		return "mesh"
	case routes == "":
		return services
	}
	return services + ":" + routes
}
