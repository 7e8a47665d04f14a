// Package live shows clicks as they come: counters of every second and a sample of the clicks,
// for whoever watches. It reads the spool as the analytics engine does, beside it and only
// while somebody watches, so redirects pay nothing for it.
//
// It keeps nothing: a view of what happens now. Numbers to rely on are those of
// package analytics. Invariants:
//
//   - a feed (a workspace, or one link, campaign or domain of it) is made by its first watcher and
//     outlives the last one by Options.Linger, so that a connection that broke can resume;
//   - a watcher that does not keep up is dropped; nobody waits for it;
//   - at most MaxSampled clicks a second are shown of a feed; the counters count all.
//
// After Join a view has the clicks of all nodes. A hub asks the others, every second, for the feeds that somebody watches here;
// who was asked tells everybody, once a second, what it counted and a part of the sample. Nothing is sent while nobody
// watches. The transport may lose all of it: the counters say whose clicks they have, and whether any are missing
// (docs/adr/0028-live-view-of-nodes.md).
package live
