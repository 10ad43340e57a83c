// Package parity sends the same requests to dataplane/ruleset and to a real
// Envoy that enforces the same ruleset: both must come to the same decision, for
// the same reason, and hand the same request to the service.
//
// TestCases are written by hand, one for each thing that a ruleset can say.
// TestParity makes up rulesets, tokens and requests, as many as -parity.cases
// says, and reports the first disagreement in its smallest form. Where the two
// may differ, and why, is in ruleset.KnownDifferences; a difference that is not
// there fails. TestAttacks are requests that once came further than they should,
// and TestAnyBytes, as many as -parity.bytes says, may have anything anywhere.
package parity
