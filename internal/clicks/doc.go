// Package clicks records what the redirect plane decided: capture into memory
// without waiting, a durable spool on local disk, enrichment, and the event
// that analytics engines store. It knows no analytics engine.
//
//	redirect plane --Capture--> shards (memory) --writer--> segments (disk)
//	segments --Reader--> Raw --Enricher--> Event --> analytics
//
// Invariants:
//
//   - Capture never waits for the disk, for the writer or for another shard,
//     and never allocates. What does not fit is dropped and counted by reason.
//   - An IP address lives in a shard's memory until the writer has made the
//     visitor and the place from it. It never reaches a file.
//   - A segment is appended to by the process that created it and by no other;
//     a new process makes a new boot, which sorts after all before it.
//   - A group is self-contained: it can be decoded without the groups before it.
//   - Captured = Spooled + dropped by reason + what is in memory.
//   - A reader hands out every intact record exactly once, in the order it was
//     written. What it skips it counts; damage it copies aside first.
//
// Bounds: a click is written at most FlushEvery (5 ms) after Capture, unless
// the disk stalls, and synced within SyncEvery (1 s). So kill -9 loses at most
// 10 ms of clicks and a power cut at most about a second; CaptureSync with
// DurabilityBatch loses none that it answered nil for.
//
// Locks: a shard's mutex and the syncer's are never held together, and no lock
// is held during disk work. The format of the spool is in docs/format/spool.md, the meaning of the
// fields in docs/clicks.md.
package clicks
