// Package jobs runs what is too long for one request: a bulk run over a file that was
// uploaded before, with progress, pause, cancellation, rollback, results and a callback.
//
// It knows nothing about links: package links makes them, batch by batch, and keeps the
// ledger by which a run that is repeated makes no link twice. A job is a document of
// terse.KindJob under its workspace, id = its id; its files lie in the data folder.
// Invariants:
//
//   - a change of state is durable before anybody is told;
//   - a job that was queued or running when the process ended goes on after the next start,
//     and ends as it would have without the interruption;
//   - a failure of one job, even a panic, ends or delays that job alone;
//   - every byte of an upload below its acknowledged offset is on disk;
//   - memory does not grow with the size of a file.
//
// One process owns a data folder, so the list of jobs is kept in memory. Locks, outer
// first: entry.write, Manager.mu, entry.mu; Uploads.mu is taken with none of them held but
// entry.write.
package jobs
