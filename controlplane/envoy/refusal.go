package envoy

import (
	_ "embed"
	"encoding/json"
	"fmt"

	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

//go:embed refusal.lua
var refusalLua string

// The RBAC filters that refuse, in the order of the chain; each begins what it
// writes to metadata with its prefix. The second list is of those that only
// record.
var (
	enforcedStatPrefixes = []string{"watchword_guard_", "watchword_verify_", "watchword_claims_", "watchword_deny_", "watchword_authorize_", "watchword_revoked_", leaseStatPrefix}
	observedStatPrefixes = []string{"watchword_observed_verify_", "watchword_observed_claims_", "watchword_observed_deny_", "watchword_observed_authorize_"}
)

// refusalScript gives a refusal its status, body and headers: RBAC knows only
// 403. It is Lua, since what Envoy has for it (local_reply_config) is part of
// the listener, and so neither ours in an Envoy that somebody else owns, nor
// changed without draining connections. If it fails, the refusal is a bare 403.
// A response that is not a refusal costs it a look at the status.
func refusalScript(p *plan) *luav3.Lua {
	forbidden := luaTable{}
	for _, w := range reason.All() {
		if w.Status() == 403 {
			forbidden = append(forbidden, luaEntry{string(w), "true"})
		}
	}
	// No policy has a say in these.
	unavailable := luaTable{{string(reason.LeaseExpired), "true"}}
	responses := luaTable{}
	for _, t := range p.treatments {
		if len(t.responses) > 0 {
			responses = append(responses, luaEntry{t.id, luaResponses(t.responses)})
		}
	}
	return luaFilter(
		"local STAGES = "+luaStrings(enforcedStatPrefixes),
		"local OBSERVED = "+luaStrings(observedStatPrefixes),
		fmt.Sprint("local OBSERVES = ", observes(p.rs)),
		"local FORBIDDEN = "+forbidden.String(),
		"local UNAVAILABLE = "+unavailable.String(),
		"local TREATMENT = "+luaString(p.treatmentMetadata()),
		"local RESPONSES = "+responses.String(),
		"local REALM = "+luaString(p.rs.GetService()),
		refusalLua)
}

func luaResponses(list []*dataplanev1.Response) string {
	var out []string
	for _, r := range list {
		t := luaTable{}
		if len(r.GetReasons()) > 0 {
			words := luaTable{}
			for _, w := range r.GetReasons() {
				words = append(words, luaEntry{w, "true"})
			}
			t = append(t, luaEntry{"reasons", words.String()})
		}
		if r.GetStatus() != 0 {
			t = append(t, luaEntry{"status", fmt.Sprint(r.GetStatus())})
		}
		if r.GetBody() != "" {
			t = append(t, luaEntry{"body", luaString(r.GetBody())}, luaEntry{"type", luaString(contentType(r))})
		}
		out = append(out, t.String())
	}
	return luaList(out)
}

func contentType(r *dataplanev1.Response) string {
	switch {
	case r.GetContentType() != "":
		return r.GetContentType()
	case json.Valid([]byte(r.GetBody())):
		return "application/json"
	}
	return "text/plain"
}

// observes says whether anything of a ruleset is only recorded.
func observes(rs *dataplanev1.Ruleset) bool {
	for _, r := range rs.GetRoutes() {
		if r.GetAuthentication().GetObserve() || r.GetObservedAuthentication() != nil || r.GetObservedAuthorization() != nil {
			return true
		}
	}
	return false
}
