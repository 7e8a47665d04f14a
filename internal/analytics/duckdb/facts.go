package duckdb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strconv"
	"strings"

	ddb "github.com/duckdb/duckdb-go/v2"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
)

// createFacts makes the tables of what is known beside clicks. They are made in files of any age: their
// content comes from the store, and the position in meta (factsKey) says whether it is there.
func createFacts() []string {
	var cols strings.Builder
	for _, c := range conversionColumns() {
		fmt.Fprintf(&cols, ", %s %s NOT NULL", c.name, c.typ)
	}
	return []string{
		"CREATE TABLE IF NOT EXISTS link_tags (workspace_id INTEGER NOT NULL, link_id BIGINT NOT NULL, tag VARCHAR NOT NULL)",
		createTagged,
		"CREATE TABLE IF NOT EXISTS campaign_tags (workspace_id INTEGER NOT NULL, campaign_id BIGINT NOT NULL, tag VARCHAR NOT NULL)",
		"CREATE TABLE IF NOT EXISTS conversions (conversion_id VARCHAR NOT NULL, kind UTINYINT NOT NULL, amount BIGINT NOT NULL, currency VARCHAR NOT NULL, " +
			"customer_id VARCHAR NOT NULL, click_id UUID NOT NULL, pending BOOLEAN NOT NULL" + cols.String() + ")",
	}
}

// factsKey is the row of meta that holds the change of the store up to which facts are known.
const factsKey = "facts_at"

// openFacts makes the tables and reads the position.
func (d *DB) openFacts(ctx context.Context) error {
	for _, q := range createFacts() {
		if _, err := d.readers.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	d.pending = true // until it is known better
	return d.scan(ctx, `SELECT "value" FROM meta WHERE "key" = $1`, func(r *sql.Rows) error {
		var s string
		if err := r.Scan(&s); err != nil {
			return err
		}
		seq, err := strconv.ParseUint(s, 10, 64)
		d.facts, d.factsKnown = seq, err == nil
		return err
	}, factsKey)
}

// FactsAt implements analytics.FactSink.
func (d *DB) FactsAt(context.Context) (uint64, bool, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.facts, d.factsKnown, nil
}

// PutFacts implements analytics.FactSink. It writes on a connection of its own, never beside
// a transaction or a checkpoint of Ingest.
func (d *DB) PutFacts(ctx context.Context, b analytics.FactBatch) (err error) {
	d.writing.Lock()
	defer d.writing.Unlock()
	d.mu.RLock()
	at, known := d.facts, d.factsKnown
	d.mu.RUnlock()
	if !b.Follows(at, known) {
		return &terse.Error{Code: terse.CodePrecondition, Message: fmt.Sprintf("the engine's facts are of change %d (known: %v), not of %d", at, known, b.From)}
	}
	if enough, err := d.enoughSpace(); err != nil || !enough {
		return errors.Join(err, &terse.Error{Code: terse.CodeUnavailable, Message: "the disk of the analytics engine is nearly full"})
	}
	ctx = context.WithoutCancel(ctx) // what began is worth finishing
	conn, err := d.readers.Conn(ctx)
	if err != nil {
		return fmt.Errorf("put facts: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	retagged, err := putFacts(ctx, conn, &b)
	if err != nil {
		_, back := conn.ExecContext(ctx, "ROLLBACK")
		return &terse.Error{Code: terse.CodeUnavailable, Message: "the analytics engine failed", Op: "put facts", Err: errors.Join(err, back)}
	}
	d.mu.Lock()
	d.facts, d.factsKnown = b.At, !b.Partial
	if d.rollingTags && !retagged.empty() {
		d.retagged = append(d.retagged, retagged)
	}
	d.mu.Unlock()
	// What is told in parts looks for its clicks in the end.
	d.lookAgain(b.Conversions)
	if d.pending && !b.Partial && (len(b.Conversions) > 0 || !known) {
		d.join(ctx)
	}
	return nil
}

// putFacts returns whose clicks have other tags now.
func putFacts(ctx context.Context, conn *sql.Conn, b *analytics.FactBatch) (*retagged, error) {
	exec := func(q string, args ...any) error {
		_, err := conn.ExecContext(ctx, q, args...)
		return err
	}
	if err := exec("BEGIN"); err != nil {
		return nil, err
	}
	t, err := retag(ctx, conn, b)
	if err != nil {
		return nil, err
	}
	if b.Reset {
		for _, table := range []string{"link_tags", "campaign_tags", "conversions"} {
			if err := exec("DELETE FROM " + table); err != nil {
				return nil, err
			}
		}
	}
	if err := putTags(ctx, conn, b); err != nil {
		return nil, err
	}
	if len(b.Conversions) > 0 {
		if err := putConversions(ctx, conn, b.Conversions); err != nil {
			return nil, err
		}
	}
	if err := exec(`DELETE FROM meta WHERE "key" IN ($1, $2)`, factsKey, taggedKey); err != nil {
		return nil, err
	}
	if !b.Partial {
		if err := exec(`INSERT INTO meta VALUES ($1, $3), ($2, $3)`, factsKey, taggedKey, strconv.FormatUint(b.At, 10)); err != nil {
			return nil, err
		}
	}
	return t, exec("COMMIT")
}

// putTags replaces the tags of links and campaigns. Of what is new there is nothing to delete.
func putTags(ctx context.Context, conn *sql.Conn, b *analytics.FactBatch) error {
	var known []string
	for _, l := range b.Links {
		if !l.New {
			known = append(known, number(l.Link))
		}
	}
	if err := deleteIn(ctx, conn, "link_tags", "link_id", known); err != nil {
		return err
	}
	known = known[:0]
	for _, c := range b.Campaigns {
		known = append(known, number(c.Campaign))
	}
	if err := deleteIn(ctx, conn, "campaign_tags", "campaign_id", known); err != nil {
		return err
	}
	return conn.Raw(func(c any) error {
		err := appendRows(c, "link_tags", func(row func(...driver.Value) error) error {
			for _, l := range b.Links {
				for _, tag := range l.Tags {
					if err := row(int32(l.Workspace), int64(l.Link), strings.ToValidUTF8(tag, "\uFFFD")); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		return appendRows(c, "campaign_tags", func(row func(...driver.Value) error) error {
			for _, l := range b.Campaigns {
				for _, tag := range l.Tags {
					if err := row(int32(l.Workspace), int64(l.Campaign), strings.ToValidUTF8(tag, "\uFFFD")); err != nil {
						return err
					}
				}
			}
			return nil
		})
	})
}

// deleteIn deletes the rows whose column is one of the values, which are literals.
func deleteIn(ctx context.Context, conn *sql.Conn, table, column string, values []string) error {
	if len(values) == 0 {
		return nil
	}
	_, err := conn.ExecContext(ctx, "DELETE FROM "+table+" WHERE "+column+" IN ("+strings.Join(values, ", ")+")")
	return err
}

// appendRows appends the rows that fill hands to its argument, in the transaction of the connection.
func appendRows(c any, table string, fill func(row func(...driver.Value) error) error) error {
	a, err := ddb.NewAppenderFromConn(c.(driver.Conn), "", table)
	if err != nil {
		return err
	}
	if err := fill(a.AppendRow); err != nil {
		return errors.Join(err, a.Clear(), a.Close()) // it leaks otherwise
	}
	return a.Close()
}

// tagged returns the condition of the clicks that have one of the tags, which may be "" for none.
func (s *statement) tagged(w terse.WorkspaceID, tags []string) string {
	ws := "workspace_id = " + number(w)
	var texts []string
	untagged := false
	for _, tag := range tags {
		if tag == "" {
			untagged = true
		} else {
			texts = append(texts, s.param(tag))
		}
	}
	var any []string
	if len(texts) > 0 {
		in := " AND tag IN (" + strings.Join(texts, ", ") + ")"
		any = append(any, "link_id IN (SELECT link_id FROM link_tags WHERE "+ws+in+")", "campaign_id IN (SELECT campaign_id FROM campaign_tags WHERE "+ws+in+")")
	}
	if untagged {
		any = append(any, s.untagged(w))
	}
	return "(" + strings.Join(any, " OR ") + ")"
}

// untagged returns the condition of the clicks that have no tag.
func (s *statement) untagged(w terse.WorkspaceID) string {
	ws := " WHERE workspace_id = " + number(w)
	return "(link_id NOT IN (SELECT link_id FROM link_tags" + ws + ") AND campaign_id NOT IN (SELECT campaign_id FROM campaign_tags" + ws + "))"
}

// byTag returns a table expression of the rows of source: once for each of their tags, in the column k (” for none),
// beside the columns of source, which has link_id and campaign_id. The tags are looked up once
// for all rows, so source is better all days than one.
func (s *statement) byTag(w terse.WorkspaceID, source string) string {
	ws := "workspace_id = " + number(w)
	links := "(SELECT link_id, tag FROM link_tags WHERE " + ws + ")"
	campaigns := "(SELECT campaign_id, tag FROM campaign_tags WHERE " + ws + ")"
	return "(SELECT coalesce(t.tag, '') AS k, c.* FROM " + source + " c LEFT JOIN " + links + " t ON c.link_id = t.link_id" +
		" WHERE t.tag IS NOT NULL OR c.campaign_id NOT IN (SELECT campaign_id FROM campaign_tags WHERE " + ws + ")" +
		" UNION ALL SELECT t.tag AS k, c.* FROM " + source + " c JOIN " + campaigns + " t ON c.campaign_id = t.campaign_id" +
		" LEFT JOIN " + links + " own ON own.link_id = c.link_id AND own.tag = t.tag WHERE own.tag IS NULL)"
}

// tagDays returns the rows of a breakdown by tag, one for each tag and day: all days go through one look-up of
// tags. "" if there is no day.
func (s *statement) tagDays(days []dayView, q analytics.Query) string {
	all := s.union(days, func(from string, day int64) string {
		return fmt.Sprintf("SELECT %d AS d, link_id, campaign_id, weight, visitor FROM %s WHERE %s AND %s AND %s%s", day, from, s.where(q), s.redirected(q), chosen(q.Bots), inDay(q, day))
	})
	if all == "" {
		return ""
	}
	return "SELECT k, sum(weight) AS c, count(DISTINCT visitor) FILTER (visitor <> 0) AS v, false AS other FROM " + s.byTag(q.Workspace, "("+all+")") + " WHERE true" + s.search(q) + " GROUP BY k, d"
}
