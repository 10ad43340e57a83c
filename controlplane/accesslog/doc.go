// Package accesslog takes the reports of managed Envoys about requests that
// they refused, or would have refused, and keeps what an operator asks for:
// how many, by service, caller and reason, and a few of the last ones.
//
// The way of a report:
//
//	Envoy -> Export (server.go): what was refused within a second, as log
//	         records of OpenTelemetry (OTLP/gRPC), see envoy.RefusalLog
//	  -> envoy.Outcome: why, which rule, who
//	  -> ledger (ledger.go): counts per service, caller and reason; a sample
//	  -> Report: what the admin API shows
//
// Everything is bounded, since strangers decide how much is refused: what is
// taken in a second, the callers per service, the counts in all, the sample, and
// each text. Beyond a bound refusals are counted under the name of nobody, or
// are left to Envoy, which has a bound of its own and counts what it drops.
//
// Envoy sends no token as such, and of the claims of a token that was verified
// only `iss` and `sub`. A client may put a token where none belongs, as in the
// path: what looks like a JWT is cut out of each text (redact.go); a credential
// of another form can't be told from a path. Nothing of a record is ever logged.
//
// A report counts for the service whose certificate it comes with, whatever it
// says itself.
//
// Counts are in memory: they begin anew with the process, and each replica has
// those of the data planes that are connected to it.
package accesslog
