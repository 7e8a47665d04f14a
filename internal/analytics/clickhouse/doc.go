// Package clickhouse keeps clicks, conversions and facts of links in ClickHouse and answers the
// questions of package analytics there. It speaks the native protocol and makes its tables itself.
//
// Files: options.go (where the server is), dialect.go (all that differs between versions of ClickHouse),
// schema.go and migrate.go (tables), insert.go (a batch as columns), ingest.go (spool to table), feed.go (many spools to table), doubt.go
// (inserts whose outcome is not known), query.go (statements), engine.go (answers), rows.go
// (clicks one by one), facts.go, conversions.go, pending.go, rollup.go (numbers of closed days), plan.go (which
// days are read from them), retain.go and erase.go (what goes), audit.go (duplicates), run.go (the loop around
// all), metrics.go.
//
// Invariants:
//
//   - Nothing of a redirect waits for this package. Clicks lie in the spool until the position after them is
//     in the table ingest_offsets.
//   - The position is written after the rows. Whatever happens between the two, the first batch after a
//     position is looked up by event ids before it is written again (doubt.go), so a click is counted once.
//   - Rollups are never added to: a day is computed again under a new generation, and the row in rolled
//     that names the generation is what readers go by.
//   - Facts belong to an epoch, and readers see one epoch: telling everything again is not seen until it is whole.
package clickhouse
