// Package child runs the embedded analytics engine in a process of its own, because
// DuckDB fails by aborting, and an abort must never take redirects down.
//
// The parent (Supervisor) starts the same binary with a hidden subcommand, whose body is
// Main, and restarts it with back-off when it dies. The two speak over:
//
//   - standard input: one line of JSON (config), then nothing; its end tells the child to stop;
//   - standard output: one line for every event of its life (opened);
//   - standard error: the child's log, which the parent passes on;
//   - a unix socket of mode 0600 in the data folder: HTTP with JSON, one path for each
//     method of analytics.Engine. Only this package speaks it, and both ends are the same
//     binary, so it has no versions.
//
// The child tails the spool by itself; no click ever passes between the two. It is
// stateless: it may be killed at any moment and loses and duplicates nothing, because a
// click and the position after it are one transaction (package duckdb). It ends when its
// parent does: by the end of its input, and on Linux by a signal that the kernel
// sends.
//
// The supervisor sets the database file aside, to be rebuilt from the spool, when a checkpoint
// damaged it or two openings in a row failed. A child that is killed from outside
// while it opens does not count as failed until that has happened five times (the out-of-memory
// killer looks the same), a file that another process holds never does.
package child
