// Package simulation runs the protocol of rotation and revocation (docs/rotation.md)
// in a made-up world: one etcd, replicas, data planes, callers and operators, all from
// one seed, in one goroutine, with a clock of its own. The world is made of slow and
// cut links, processes that stand still, die and come back, and clocks that differ.
// What decides is the real code: keyset.Step and keyset.Revoke, ledger.Book and
// ledger.Observer, rotation.Step. What the simulated replica does around it (replica.go,
// publish.go, leader.go) is what a real one must do.
//
// After every event that could have made them untrue it is checked (check.go):
//
//   - I1. For each data plane whose lease has not ended by its own clock, for each
//     audience that it accepts, and each process that can sign now: it has the key
//     that the process would sign with. Of readers of the JWKS endpoint the same, until
//     the max-age of what they read has passed. A key that signs because another was
//     revoked is left out for data planes whose lease is from a replica that had not
//     applied the revocation.
//   - I2. When a key goes that was not revoked, no token that it signed is valid at any
//     data plane by that one's own clock, and no process can sign with it. And no
//     data plane with a lease refuses a valid token for lack of its key.
//   - I3. After a receipt, no data plane with a lease accepts what was revoked, unless
//     its lease is from a member that the receipt lists as departed.
//   - At most three keys are published; Open names active keys only.
//   - What a member claims never falls.
//   - Hold: a data plane without leases that is connected to a replica with authority,
//     and has confirmed on this stream all that the replica has published, refuses no
//     valid token; if stragglers are held.
//   - In the end everything heals; then a rotation that somebody asks for is done,
//     no key and no entry is left over, and all are in sync, in bounded time.
//
// What a run does is a list of actions with their times (script.go), made of the seed.
// Delays are of their link and not of the run, so that a list with some actions left out
// runs much the same: that is how a failing one is shrunk (shrink.go).
//
// Each rule of the protocol can be broken on purpose (rules.go), in the simulated replica
// alone; the tests prove that each is noticed.
package simulation
