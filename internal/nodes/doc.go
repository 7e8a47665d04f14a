// Package nodes knows the processes that use one store: each writes a document with what it
// is and raises its version every Beat. Whoever wants to know who lives lists them.
//
// It decides nothing: what must be done by one process only is guarded by package fence, not
// by who looks alive here. Invariants:
//
//   - a process is dead to an observer that saw no heartbeat for DeadAfter by its own monotonic
//     clock. Only what an observer has not watched that long is judged by the time in the document;
//   - two processes that have the same id, because a data folder was copied, both appear: the one
//     that was there first takes another id;
//   - a process that stops in order takes its document with it; one that died is listed for Forget.
package nodes
