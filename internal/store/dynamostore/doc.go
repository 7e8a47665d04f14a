// Package dynamostore keeps links and documents in one DynamoDB table with one index.
// docs/dynamodb.md describes the table for those who run it, docs/adr/0014-dynamodb.md why it is so.
//
// The answers to the questions that every engine is asked (docs/adding-a-store.md):
//
//   - The counter of a space is one item; UpdateItem ADD takes a lease. A reply that was lost
//     burns the range, and nothing else.
//   - A link lies under domain#code, so its put is conditional on that key being free. A link that
//     is Named has a second item under its number.
//   - An alias that reserves an index checks in its transaction that the counter has not passed
//     it; a lease reads the reservations, consistently, after its addition.
//   - A deleted link leaves a tombstone under its code, an alias one under its number.
//   - A listing reads the index by_workspace, whose sort key is (created, number): newest
//     first, and no insert or deletion moves anything.
//   - FindPlain reads hints, small items under a hash of the destination that are written before
//     the links become visible, and verifies what they name.
//   - The feed is numbered by a counter drawn before the commit, and a reader never passes a number
//     that is missing: after a second it seals it, which makes the commit that drew it fail and
//     draw again (change.go).
//
// A chunk that fits into one transaction is one. A larger one is written under a marker (chunk.go):
// its items name the marker, nobody sees them before it says committed, and that is one write.
//
// Limits of this package: one region; at most about 45 documents in a chunk; filters of a
// listing other than the range of time are applied to what the index returns.
package dynamostore
