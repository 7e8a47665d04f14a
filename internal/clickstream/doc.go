// Package clickstream carries clicks from the spools of nodes that redirect to the nodes that count them, by way of a stream
// that may be lost at any time (Redis). docs/adr/0027-click-streams.md has the argument, docs/format/clickstream.md the bytes.
//
// Sender reads the spool of its node and adds entries to the stream; Receiver, on one node at a time, hands their clicks to the
// analytics engine. What counts is neither in the stream nor in its consumer group: it is the place in each spool that the engine keeps
// beside its rows.
//
// Invariants:
//
//   - An entry names the place in the spool where it begins and where each of its groups ends. The receiver takes a group only if it
//     follows the place of its spool, so whatever arrives twice is left out, and what did not arrive is noticed.
//   - When something is missing the receiver says so, and the sender begins again from the place of the engine. So the stream may lose
//     anything, and be emptied, without a click being lost or counted twice.
//   - The spool is trimmed up to the place that the engine has written, and no further.
//   - An entry that ends processes holds its own spool until there is a copy of it, and no other.
//   - A sender has at most a window of bytes in the stream that are not stored yet, so that nodes without a receiver do not fill the server.
package clickstream
