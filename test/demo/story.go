package main

import (
	"regexp"
	"strings"
)

// step is one line of the story.
type step struct {
	// section is the heading above the step, if it is the first below it.
	section string
	say     string
	do      action
	// want is the outcome; each * stands for any text.
	want string
	// essential means that nothing after it can come out right without it.
	essential bool
}

func (s step) matches(got string) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(s.want), `\*`, `.*`)
	return regexp.MustCompile(`^` + pattern + `$`).MatchString(got)
}

// The tokens of the story.
var (
	frontendForOrders   = token{caller: "frontend", audience: "orders"}
	frontendForPayments = token{caller: "frontend", audience: "payments", byOperator: true}
	reportsForOrders    = token{caller: "reports", audience: "orders", byOperator: true}
	reportsForPayments  = token{caller: "reports", audience: "payments"}
)

// order is the request whose answer the policies change: orders takes it and
// calls payments with a token of its own.
var order = request{to: "orders", method: "POST", path: "/orders", token: frontendForOrders}

const (
	orderTaken   = `200, orders saw spiffe://mesh.local/frontend, payments saw spiffe://mesh.local/orders`
	orderRefused = `403 consumer_denied`
	onBoth       = `HTTP/1.1 and HTTP/2: `
	oneEach      = `, 1 TCP connection each`
)

var story = []step{
	{section: "A mesh",
		say: "the control plane starts, with an etcd of its own",
		do:  startControlPlane{}, want: `ready`, essential: true},
	{say: "four services are described, and who may call whom",
		do: apply{file: "mesh"}, want: `revision *: no connected data plane *`, essential: true},
	{say: "three Envoys enrol with a join token each, and get their configuration",
		do: startEnvoys{"frontend", "orders", "payments"}, want: `3 data planes, 3 in sync at revision *`, essential: true},
	{say: "frontend enrols, and gets a token with the key that it enrolled",
		do: askToken{token: frontendForOrders}, want: `200, a Bearer token for 300 s`, essential: true},
	{say: "somebody who owns another Envoy of orders enrols it",
		do: enrolOwnEnvoy{}, want: `enrolled`, essential: true},

	{section: "Every door has a lock",
		say: "a join token is used twice",
		do:  joinTwice{service: "reports"}, want: `enrolled; the second time refused`},
	{say: "somebody without a certificate asks for the configuration of orders",
		do: spy{wants: "orders"}, want: `Unauthenticated`},
	{say: "frontend asks for it, with its own certificate",
		do: spy{as: "frontend", wants: "orders"}, want: `gets mesh.revoked/frontend`},
	{say: "an instance of reports is revoked, and asks for a token",
		do: revoke{service: "reports", token: token{caller: "reports", audience: "orders"}}, want: `401 invalid_client: *`},
	{say: "the audit knows who did it",
		do: audited{method: "RevokeInstances"}, want: `* unix:* RevokeInstances *`},

	{section: "Who may call orders",
		say: "no token",
		do:  request{to: "orders", path: "/orders/7"}, want: `401 token_missing`},
	{say: "a token for another audience",
		do: request{to: "orders", path: "/orders/7", token: frontendForPayments}, want: `403 audience_mismatch`},
	{say: "the right token",
		do: request{to: "orders", path: "/orders/7", token: frontendForOrders}, want: `200, orders saw spiffe://mesh.local/frontend`},
	{say: "a caller that the policy does not allow",
		do: request{to: "orders", path: "/orders/7", token: reportsForOrders}, want: `403 consumer_denied`},
	{say: "reports asks for a token for a service that it does not call",
		do: askToken{token: reportsForPayments}, want: `400 invalid_target: *`},
	{say: "a caller that claims to be somebody else",
		do:   request{to: "orders", path: "/orders/7", token: frontendForOrders, pretend: "spiffe://mesh.local/admin"},
		want: `200, orders saw spiffe://mesh.local/frontend`},
	{say: "the same on a page that is open to all",
		do:   request{to: "frontend", path: "/welcome", pretend: "spiffe://mesh.local/admin"},
		want: `200, frontend saw nobody`},

	{section: "Why, and what if",
		say: "orders' Envoy has reported what it refused",
		do:  refusals{service: "orders", enforcement: "enforced", want: []string{"audience_mismatch", "consumer_denied", "token_missing"}}, want: `audience_mismatch, consumer_denied, token_missing`},
	{say: "the control plane explains one of them, step by step",
		do: explain{service: "orders", token: reportsForOrders}, want: `consumer_denied: restricted, and no allow rule matches`},
	{say: "a policy is tried out: observed, not enforced",
		do: apply{file: "changes/observed.yaml"}, want: `revision *: 1 of 1 in sync, *`},
	{say: "what it would refuse goes on",
		do: request{to: "orders", method: "POST", path: "/orders", token: frontendForOrders}, want: orderTaken},
	{say: "and is counted",
		do: refusals{service: "orders", enforcement: "observed", want: []string{"consumer_denied"}}, want: `consumer_denied`},

	{section: "A change reaches connections that are open",
		say: "orders calls payments, with a token of its own",
		do:  kept{request: order}, want: onBoth + orderTaken + oneEach},
	{say: "a policy is applied",
		do: apply{file: "changes/read-only.yaml"}, want: `revision *: 2 of 2 in sync, *`},
	{say: "the same connections",
		do: kept{request: order}, want: onBoth + orderRefused + oneEach},
	{say: "the policy is deleted",
		do: remove{kind: "authorizationpolicy", name: "read-only"}, want: `revision *: 2 of 2 in sync, *`},
	{say: "the same connections",
		do: kept{request: order}, want: onBoth + orderTaken + oneEach},

	{section: "A mixed mesh",
		say: "three more services are described: their data planes speak TLS with each other",
		do:  apply{file: "mixed"}, want: `revision *: no connected data plane *`},
	{say: "web gets an Envoy, ledger links the Go library, and mailer gets the sidecar; web and mailer are one plain program without any token code",
		do: startMixed{dataPlanes: 6}, want: `6 data planes, 6 in sync at revision *`},
	{say: "each calls the two others",
		do: callEachOther{}, want: `6 of 6: the callee saw who called`},

	{section: "Without the control plane",
		say: "the control plane is killed",
		do:  killControlPlane{}, want: `killed; status ends with exit code 6, not reachable`},
	{say: "the same connections go on, 100 requests",
		do: kept{request: order, times: 50}, want: onBoth + orderTaken + oneEach},
	{say: "the mixed mesh goes on, too",
		do: callEachOther{}, want: `6 of 6: the callee saw who called`},
	{say: "a new connection without a token is still refused",
		do: request{to: "orders", path: "/orders/7"}, want: `401 token_missing`},
	{say: "an Envoy that never had a configuration refuses everybody",
		do:   startOwnEnvoy{ask: request{to: "own", path: "/orders/7", token: frontendForOrders}},
		want: `403 "RBAC: access denied"`},
	{say: "the control plane starts again",
		do: restartControlPlane{dataPlanes: 7}, want: `7 data planes, 7 in sync at revision *`},
	{say: "a new token, and the Envoy that had no configuration",
		do:   request{to: "own", path: "/orders/7", token: token{caller: "frontend", audience: "orders", byOperator: true}},
		want: `200, orders saw spiffe://mesh.local/frontend`},
	{say: "the connections from before",
		do: kept{request: order}, want: onBoth + orderTaken + oneEach},
}
