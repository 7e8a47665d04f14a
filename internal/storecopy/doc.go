// Package storecopy copies everything that one store holds into another, of whatever
// engines: the same numbers, codes, versions and times, and counters that go on where they were.
//
// The procedure, for two stores that nobody else uses meanwhile:
//
//  1. The source is read once: what there is of each kind and on each domain, and a digest of all of it.
//  2. The target must be empty, or hold an unfinished copy of that very digest. A document in it (StateID) says
//     what it is and how far the copy has come; a server refuses to start on it (Unfinished).
//  3. Documents, reservations and retired codes are loaded, counters leased up to where they are, links inserted
//     workspace by workspace, oldest first. Each step may be done twice: what is there and the same stays.
//  4. The target is read as the source was, and compared by number and digest; a sample of links is looked up as
//     visitors do and compared field by field. Only then the document goes.
//
// Because every step may be repeated, a copy that was killed goes on from the last place that was noted. Because
// the digest is that of the content, a source that has changed meanwhile is noticed.
//
// It is not a backup: it reads a source that stands still. Clicks are not in a store.
package storecopy
