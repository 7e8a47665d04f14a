// Package duckdb is the embedded analytics engine: one DuckDB file that holds a
// table of clicks per UTC day and the place in the spool up to which they were
// read. docs/format/duckdb.md describes the tables, CLICKS.md section 8 the
// evidence behind the rules below.
//
// It is meant to run in a process of its own (package child), because DuckDB fails
// by aborting. It knows neither the spool's format nor how events are made: it
// reads a Source.
//
// Invariants:
//
//   - A click and the position after it are written in one transaction, so a
//     process that dies at any moment leaves each click of the spool in the
//     tables exactly once or still to be read, never both.
//   - One connection writes, and only from the goroutine that runs Ingest. Readers
//     have connections of their own, at most Options.Readers at a time.
//   - No primary key, unique constraint or index; no UPDATE or DELETE of clicks.
//     Whole day tables are dropped.
//   - Automatic checkpoints are off. A checkpoint runs between two transactions,
//     and the end of every table it wrote is read back and compared.
//   - No value of a visitor or user becomes SQL: texts are parameters, numbers are
//     printed from Go integers, names come from the tables in schema.go.
//   - DuckDB reaches no file but its own: external access and extensions are off.
//
// Any error of the writing side is final for the DB: the process ends, and the next
// one reads again from the last committed position.
package duckdb
