// Package code makes and reads the last part of a short URL: the alphabets, the
// keyed permutation that turns an index into a code and back, the word list, the
// one canonicaliser of codes and aliases, and the allocator that issues indexes
// from leased ranges.
//
// It is not a store and knows no links: whether a code exists is asked of others.
// Nothing here is secret but the permutation key, which the caller keeps with the
// domain; codes are hard to guess, they are not passwords (docs/codes.md).
//
// Invariants:
//
//   - A Permutation is a bijection of exactly [0, A^L), and its values never change
//     for the same PermVersion: testdata/vectors holds them.
//   - Every code of a space has exactly L characters; leading zero digits are kept.
//   - An Allocator never issues an index twice, whatever its store answers, and
//     never one that the store reserved.
//   - Canonical(Canonical(x)) = Canonical(x).
//   - Blocked depends on the code and on WordsVersion only.
//
// Alphabet and Permutation are immutable and safe for any number of goroutines,
// and so is Allocator. An Encoder belongs to one goroutine.
package code
