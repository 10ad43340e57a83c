// Package accesslog takes the reports of managed Envoys about requests that
// they refused, or would have refused, and keeps what an operator asks for:
// how many, by service, caller and reason, and a few of the last ones.
//
// The way of a report:
//
//	Envoy -> StreamAccessLogs (server.go): one stream per worker, batches
//	  -> envoy.Outcome: why, which rule, who
//	  -> ledger (ledger.go): counts per service, caller and reason; a sample
//	  -> Report: what the admin API shows
//
// Everything is bounded, since strangers decide how much is refused: the rate
// at which entries are taken, the callers per service, the counts in all, the
// sample, and each text. What is beyond a bound is counted under the name of
// nobody, or, before it is read, left to Envoy, which drops and counts it.
//
// Entries hold all claims of a token that was verified. Of those only `iss` and
// `sub` are looked at, and nothing of an entry is ever logged. No token comes
// this way: the log is the one for TCP, which knows nothing of a request but
// what we ask for (see envoy.RefusalLog); one for HTTP is refused unread.
//
// Counts are in memory: they begin anew with the process, and each replica has
// those of the data planes that are connected to it.
package accesslog
