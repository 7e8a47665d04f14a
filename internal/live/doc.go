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
package live
