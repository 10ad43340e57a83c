// Package xds is the delta ADS server, and the ledger of what each data plane
// confirmed.
//
// Content comes in by [Server.Publish]: whole services, encoded once. It goes
// out over one stream per data plane, and what comes back (ACK, NACK, the
// versions that a client claims when it connects) is kept as data, which
// [Server.DataPlanes], [Server.Sent] and [Server.Progress] read.
//
// The model has four parts:
//
//   - An entry is one resource at one version. All streams share it.
//   - A service has entries, and the streams that belong to it. A stream
//     belongs to the service that its certificate is of, and can get nothing else.
//   - A subscription is one stream's view of one type: per name, what was sent,
//     what is confirmed and what was refused. At most one response of a
//     subscription is unanswered, so a slow stream costs one response, and
//     whatever changed in the meantime is sent once, at its newest content.
//   - A data plane is the row that an operator sees: all streams of one node of an
//     instance. It is in sync when each of its subscriptions has confirmed
//     today's content, and it has asked for all that it must enforce.
//
// What all rows together have confirmed goes into the ledger's Book besides
// ([Server.Claims]), which replicas tell each other.
//
// The protocol engine (requests, nonces, watches) is go-control-plane's delta
// server. Each stream runs its own small instance of it, with the stream itself
// as cache and callbacks, so there is no cache to search and no id to map.
//
// Versions are keyed hashes of the content. So equal content is never sent
// again, also after a restart, when clients claim what they hold.
//
// Secrets named "token/AUDIENCE" are no content of a service: Config.Tokens makes
// them for the one instance that asks, while its stream is open, and makes the
// next one at half of their life. They never count for being in sync. One that
// is refused is sent empty, since Envoy keeps what it is told was removed.
//
// Who is at the other end of a stream, Config.Identify says when it is opened.
// What a client says of itself is a label.
//
// State-of-the-world xDS is refused: over it Envoy ignores that a resource was
// removed, and keeps enforcing what it had.
package xds
