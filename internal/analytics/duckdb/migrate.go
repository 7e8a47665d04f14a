package duckdb

import (
	"context"
	"fmt"
)

// migrate brings a file of an earlier schema version to the present one, in one transaction.
func (d *DB) migrate(ctx context.Context, from string, days []int64) error {
	var list []string
	switch from {
	case "1":
		list = fromSchema1(days)
	case "2":
		list = fromSchema2()
	case "3":
		list = fromSchema3()
	case "4": // which had no rdim15
		list = []string{createParts()}
	}
	list = append(list, fromSchema5(days)...)
	list = append(list, fmt.Sprintf(`UPDATE meta SET "value" = '%s' WHERE "key" = 'schema'`, schemaVersion))
	if err := d.write(ctx, func(ctx context.Context) error {
		for _, q := range list {
			if err := d.exec(ctx, q); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return fmt.Errorf("migrate from schema %s: %w", from, err)
	}
	d.o.Log.Info("the analytics file was brought to the present schema", "from", from, "days", len(days))
	return nil
}

// fromSchema5: version 5 and those before had no User-Agents and addresses. Nobody had asked for any.
func fromSchema5(days []int64) []string {
	var list []string
	for _, day := range days {
		for _, c := range []string{"user_agent", "ip"} {
			list = append(list, fmt.Sprintf("ALTER TABLE %s ADD COLUMN %s VARCHAR DEFAULT ''", tableName(day), c),
				fmt.Sprintf("ALTER TABLE %s ALTER %s SET NOT NULL", tableName(day), c))
		}
	}
	return list
}

// fromSchema2: version 2 had no cubes. Days are rolled up again by and by.
func fromSchema2() []string {
	return append(createCubes(), createParts(),
		"ALTER TABLE rday ADD COLUMN cubes BIGINT DEFAULT 0", "ALTER TABLE rday ALTER cubes SET NOT NULL",
		"ALTER TABLE rolled ADD COLUMN version BIGINT DEFAULT 1", "ALTER TABLE rolled ALTER version SET NOT NULL")
}

// fromSchema3: version 3 had no cube of links and campaigns. Days are rolled up again by and by.
func fromSchema3() []string {
	return []string{createParts(), "ALTER TABLE rcube ADD COLUMN link_id BIGINT DEFAULT 0", "ALTER TABLE rcube ALTER link_id SET NOT NULL"}
}

// fromSchema1: version 1 had raw clicks alone, with unsigned numbers where the record has signed ones; its
// days become hot tables, which are then moved into the record like any other.
func fromSchema1(days []int64) []string {
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
	return append(list, "DROP TABLE IF EXISTS link_tags", "DROP TABLE IF EXISTS campaign_tags", "DROP TABLE IF EXISTS conversions", `DELETE FROM meta WHERE "key" = '`+factsKey+`'`)
}
