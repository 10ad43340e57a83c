package main

import (
	"encoding/json"
	"fmt"
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

func authenticationRow(i item) []cell {
	spec := i.object("spec")
	mode := spec.text("mode")
	if mode == "" {
		mode = "STRICT"
	}
	return row(i, targetText(spec.object("target")), mode, spec.each("jwtRules", "issuer"))
}

func authorizationRow(i item) []cell {
	spec := i.object("spec")
	return row(i, targetText(spec.object("target")), spec.text("action"), strconv.Itoa(len(spec.list("rules"))))
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
