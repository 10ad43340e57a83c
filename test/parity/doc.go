// Package parity sends the same requests to all that enforce a ruleset: a real Envoy,
// the Go library (package dataplane) as middleware of a net/http server, and the same
// in front of package proxy, as in watchword-sidecar. All must come to the decision of
// the reference, dataplane/ruleset, for the same reason, tell the caller the same, and
// hand the same request to the service.
//
// TestCases are written by hand, one for each thing that a ruleset can say.
// TestParity makes up rulesets, tokens and requests, as many as -parity.cases
// says, and reports the first disagreement in its smallest form. Where the two
// may differ, and why, is in ruleset.KnownDifferences; a difference that is not
// there fails; of the library and the sidecar there may be none. TestAttacks are
// requests that once came further than they should, and TestAnyBytes, as many as
// -parity.bytes says, may have anything anywhere. What a server answers with 400 before
// it asks any ruleset is of a kind that TestServers shows.
package parity
