// Package analytics is the query model of clicks: what can be asked, how a
// question is read from a URL, what the numbers mean, and the contract that
// every engine implements. docs/analytics.md defines the numbers for readers.
//
// It is not an engine and imports none: engines live in duckdb/ (embedded, run
// by child/ in a process of its own) and, for clusters, clickhouse/. All of
// them pass the suite in enginetest/.
//
// Invariants:
//
//   - Time zones live here. An engine is given instants (Query.Buckets) and
//     never sees a zone.
//   - Clicks are sums of weights, never counts of rows.
//   - Visitors are distinct per UTC day, because the salt of the visitor hash
//     changes at 00:00 UTC, and add up over days. Within one bucket or value of a
//     breakdown they are distinct per UTC day and bucket or value.
//   - Total = humans + bots; the sum of the buckets of a time series = the
//     clicks of its summary; the sum of a breakdown + other = its total.
package analytics
