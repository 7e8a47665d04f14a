package duckdb

import (
	"context"
	"fmt"
)

// migrate brings a file of schema version 1 to the present one, in one transaction. Version 1
// had raw clicks alone, with unsigned numbers where the record has signed ones; its
// days become hot tables, which are then moved into the record like any other.
func (d *DB) migrate(ctx context.Context, days []int64) error {
	list := createState()
	for _, day := range days {
		t := tableName(day)
		for _, c := range []struct{ name, typ string }{{"workspace_id", "INTEGER"}, {"link_id", "BIGINT"}, {"campaign_id", "BIGINT"}, {"asn", "BIGINT"}} {
			list = append(list, fmt.Sprintf("ALTER TABLE %s ALTER %s TYPE %s", t, c.name, c.typ))
		}
		// The same 64 bits, as a signed number.
		list = append(list, fmt.Sprintf("ALTER TABLE %s ALTER visitor TYPE BIGINT USING (CASE WHEN visitor > 9223372036854775807 THEN (visitor::HUGEINT - 18446744073709551616)::BIGINT ELSE visitor::BIGINT END)", t))
	}
	// Facts come from the store again.
	list = append(list, "DROP TABLE IF EXISTS link_tags", "DROP TABLE IF EXISTS campaign_tags", "DROP TABLE IF EXISTS conversions", `DELETE FROM meta WHERE "key" = '`+factsKey+`'`)
	list = append(list, fmt.Sprintf(`UPDATE meta SET "value" = '%s' WHERE "key" = 'schema'`, schemaVersion))
	if err := d.write(ctx, func(ctx context.Context) error {
		for _, q := range list {
			if err := d.exec(ctx, q); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return fmt.Errorf("migrate from schema 1: %w", err)
	}
	d.o.Log.Info("the analytics file was brought to the present schema", "days", len(days))
	return nil
}
