// Package export writes clicks as NDJSON, CSV or Parquet, in memory that does not grow with
// their number. The API streams with it, jobs and shares of other programs may.
//
// It is no query: clicks come from a Source, which analytics engines are. The
// columns are those of the event schema in docs/clicks.md; text formats show ids as the
// API does, Parquet has the numbers.
package export
