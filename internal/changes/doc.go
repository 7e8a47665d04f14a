// Package changes tells the nodes that share a store what the others have written, so that no cache goes on from
// something old.
//
// Two ways lead from a write to another node:
//
//   - A message. Whoever has written publishes what, through a Transport (Redis), which may lose anything. It arrives
//     within milliseconds. Messages are numbered by sender; one that is missing is found out by the next message or
//     heartbeat, and the feed is read at once.
//   - The feed of the store (terse.Store.Changes), read every Options.Every. It misses nothing. So a message
//     that is lost, whatever the reason, costs that time at most.
//
// Invariants:
//
//   - publishing never waits: what does not fit is dropped and counted, and its number is skipped, so that the others
//     notice;
//   - hearing of a change twice, late or in another order is harmless: whoever applies it compares versions, or reads
//     the store;
//   - the position in the feed moves past a change only when it has been applied.
//
// The package knows no Redis and no cache: Transport is the one, Target the other. docs/redis.md describes it for operators.
package changes
