// Package pebblestore is the embedded store of Terse: a terse.Store on a Pebble
// database in one directory of one process. It is the default engine and is
// made for bulk: links that are inserted together are packed in blocks of up
// to 64 rows, under their number, so that writes append.
//
// It is not a cache, it knows no rule about links, and it cannot be shared:
// a second process on the same directory is refused.
//
// # Layout
//
// docs/format/pebble.md describes every key and value byte by byte. In short:
// a link lives in a row (key r) or in a block (key b); a row always overrides a
// block, so an update or a deletion of a link in a block writes a row. Every
// applied write takes the next sequence number and leaves a change (key c) and,
// for inserted links, entries in the lists of their workspace (l) and campaign (g).
//
// # Invariants
//
//   - A write is acknowledged only after the WAL that holds it was synced.
//   - A block is set once and never changes: readers may keep a decoded one until a purge removes blocks.
//   - A number that was ever inserted stays occupied: a deletion leaves a tombstone. Only a purge leaves
//     nothing, and the counter of the space never goes back.
//   - Sequence numbers are given and applied by one goroutine, in order; Changes
//     shows only those that are synced, so that no crash takes back what a
//     follower has seen.
//   - Index entries (h) are hints: every reader checks them against the link, so
//     a stale one costs a read and can never give a wrong answer.
//   - After an error of the disk that Pebble cannot take back, nothing is written
//     any more: see Store.Failed.
//
// # Concurrency
//
// There are no lock orders to remember. Callers encode their write into a
// batch by themselves, the committer goroutine checks the batch against the
// database (versions, free aliases, free numbers; new numbers without reading, see fresh)
// and applies it, and the syncer goroutine waits for the WAL and acknowledges; while it waits the committer
// applies more, so concurrent writes share one sync. The committer reads only
// memory that the operation owns, so a caller may leave early.
//
// BUG(durability): A bit that flips in the last 32 KiB of the write-ahead log, in a file that no clean stop has
// closed, looks to Pebble 2.1.7 like a write that was cut off by the crash, and so does one certain bit in the
// header of each record, which makes it look like the end mark. What follows it in the log is then dropped without an
// error. Damage anywhere else (measured: 600 of 601 flips before the last 32 KiB) is found, and the log refused.
package pebblestore
