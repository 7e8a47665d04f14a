// Package pgstore keeps links and documents in PostgreSQL 13 or later: a terse.Store on
// ordinary tables in the schema "terse" of one database, which people may read beside it
// (docs/postgresql.md) and several nodes write at once.
//
// The seven questions of docs/adding-a-store.md:
//
//   - The counter of a space is a row of spaces. A lease locks the row, moves it and reads the
//     reservations in one transaction. The row names the server's history (timeline): after a
//     failover or a restore the next lease jumps over what may have been issued in between.
//   - The primary keys of links and aliases refuse what is in use. After such a refusal
//     one more query names every link that is in the way.
//   - An alias that looks like a code locks the row of the space FOR SHARE before it reads
//     the counter; a lease locks it FOR UPDATE. One of them waits for the other.
//   - A deleted link leaves its row, without content; its alias is deleted, a code is not.
//   - A listing pages by the position of the insert, a number that never changes.
//   - FindPlain looks in an index by a hash of the destination. Bulk inserts do not write it:
//     it catches up with the inserts of a workspace on a domain when somebody asks.
//   - The change feed is numbered by transaction id, and read up to the oldest
//     transaction that is still running: a smaller number cannot appear later.
//
// # Locks
//
// A transaction takes locks in this order, each kind in ascending order: rows of spaces, documents,
// reservations, aliases and numbers, counts of campaigns. Two that still meet in opposite order are ended by
// the server (40P01) and run again.
//
// # Outcomes
//
// Every write ends in a batch whose last statement is COMMIT. If the connection fails
// before that batch is sent, nothing was applied; if it fails after, the outcome is unknown.
package pgstore
