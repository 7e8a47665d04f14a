package duckdb

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A closed day is rolled up again when clicks of it are erased, or come late. Retention may have taken clicks of it
// before (retain.go), whose numbers stay: what is left of a workspace's clicks does not say them any more, so its rows of
// the rollups are carried over as they are. The others are computed. Of a workspace in which something is erased the
// rows are computed whatever was pruned: what was erased must not be in them.

// carriedOver returns the workspaces of a day whose clicks in its files are not those that their rollups count.
func (d *DB) carriedOver(ctx context.Context, c change) (ids []string, err error) {
	d.mu.RLock()
	rolled := d.rolled[c.day]
	d.mu.RUnlock()
	if !rolled {
		return nil, nil
	}
	counted, there := []string{"workspace_id"}, []string{"workspace_id"}
	for i, name := range outcomeNames {
		for suffix, who := range map[string]string{"_p": "bot = 0", "_b": "bot <> 0"} {
			counted = append(counted, "o"+strconv.Itoa(i)+suffix)
			there = append(there, "coalesce("+sum("weight", "outcome = "+quote(name)+" AND "+who)+", 0)::BIGINT")
		}
	}
	q := fmt.Sprintf("SELECT %s FROM rday WHERE day = %d AND scope = %d", strings.Join(counted, ", "), c.day, scopeWorkspace)
	if cold := d.coldFiles(c.day); len(cold) > 0 {
		q += " EXCEPT SELECT " + strings.Join(there, ", ") + " FROM " + readParquet(d.o.Record, cold) + " GROUP BY workspace_id"
	}
	err = d.scan(ctx, "SELECT DISTINCT workspace_id FROM ("+q+") WHERE workspace_id <> "+number(c.erased)+" ORDER BY 1", func(r *sql.Rows) error {
		var id string
		err := r.Scan(&id)
		ids = append(ids, id)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("compare rollups with clicks: %w", err)
	}
	return ids, nil
}

// rollupOf returns the query of the rows of a rollup of a day: those computed, and those that are carried over.
func (d *DB) rollupOf(p prepared, table string) string {
	if len(p.carried) == 0 {
		return fmt.Sprintf("SELECT * FROM new_%s WHERE day = %d ORDER BY ALL", table, p.day)
	}
	ids := strings.Join(p.carried, ", ")
	from := table
	if table == "rlink" { // the table may have lost them to link_totals
		from = parquet(quote(d.rollupFile(p.day, table)))
	}
	carried := fmt.Sprintf("SELECT * FROM %s WHERE day = %d AND workspace_id IN (%s)", from, p.day, ids)
	if slices.Contains(tagTables, table) { // tags are not of the record
		carried += fmt.Sprintf(" AND scope < %d", scopeTag)
	}
	if !p.any {
		return carried + " ORDER BY ALL"
	}
	return fmt.Sprintf("SELECT * FROM (SELECT * FROM new_%s WHERE day = %d AND workspace_id NOT IN (%s) UNION ALL BY NAME %s) ORDER BY ALL", table, p.day, ids, carried)
}
