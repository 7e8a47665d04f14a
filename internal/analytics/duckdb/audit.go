package duckdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
)

// Audit opens a database that no process uses and counts the clicks of its tables and its record: rows, distinct
// event ids, and the sum of the ids as numbers modulo 2^62. The first two are equal unless a click was written twice.
func Audit(ctx context.Context, o Options) (rows, distinct, ids int64, err error) {
	d, err := Open(ctx, o)
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	var parts []string
	days, _ := d.view()
	for _, v := range rawDays(days) {
		parts = append(parts, "SELECT event_id::VARCHAR AS event_id FROM "+v.source().from)
	}
	if len(parts) == 0 {
		return 0, 0, 0, nil
	}
	q := "SELECT count(*), count(DISTINCT event_id), (sum(('0x' || replace(right(event_id, 17), '-', ''))::UBIGINT::HUGEINT) % 4611686018427387904)::BIGINT FROM (" +
		strings.Join(parts, " UNION ALL ") + ")"
	if err := d.scan(ctx, q, func(r *sql.Rows) error { return r.Scan(&rows, &distinct, &ids) }); err != nil {
		return 0, 0, 0, fmt.Errorf("audit analytics: %w", err)
	}
	return rows, distinct, ids, nil
}
