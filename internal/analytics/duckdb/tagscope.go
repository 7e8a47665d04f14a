package duckdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
)

// Tags are of links and campaigns, not of clicks, and whoever gives a link a tag moves its history. So rollups in the record know
// nothing of tags. The tables of closed days do: each tag of a workspace is a scope in rday, r15, rdim and rdim15, computed from the
// clicks of the day with the tags of now. That is the last thing Maintain does, the latest days first, and not for longer
// than tagBudget at a time.
//
// The table tagged has the days and workspaces whose scopes are those of now. What becomes of a click by new facts takes its day out in
// the transaction of the facts; so does everything that replaces the rollups of a day. Of a day that is not in tagged the
// cube of links and campaigns answers, or its clicks do: the same, more slowly. So does a day whose clicks are gone when tags change.

// maxTags is how many tags a workspace has at most, for its tags to be scopes: a tag has as many rows a day as a domain.
const maxTags = 1000

// defaultTagBudget is how long the scopes of tags are computed twice a minute, beside the last batch of days.
const defaultTagBudget = 10 * time.Second

// createTagged makes the table, in files of any age: rollups of tags can be made whenever there is time.
const createTagged = "CREATE TABLE IF NOT EXISTS tagged (day BIGINT NOT NULL, workspace_id INTEGER NOT NULL)"

// taggedKey is the row of meta that says of which facts tagged knows: a process that does not know the table has moved on if it is not
// the place of the facts.
const taggedKey = "tagged_at"

// openTagged forgets what a process of an earlier version did not keep up.
func (d *DB) openTagged(ctx context.Context) error {
	for _, q := range []string{
		fmt.Sprintf(`DELETE FROM tagged WHERE NOT EXISTS (SELECT 1 FROM meta a JOIN meta b ON a."value" = b."value" WHERE a."key" = '%s' AND b."key" = '%s')`, factsKey, taggedKey),
		fmt.Sprintf("DELETE FROM tagged WHERE NOT EXISTS (SELECT 1 FROM rday r WHERE r.day = tagged.day AND r.workspace_id = tagged.workspace_id AND r.scope >= %d)", scopeTag),
	} {
		if _, err := d.readers.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// retag takes days out of tagged whose clicks have other tags after a batch of facts, which is not applied yet, and reports whether
// there may be one that is being computed.
func retag(ctx context.Context, conn *sql.Conn, b *analytics.FactBatch) (changed bool, err error) {
	if b.Reset {
		_, err := conn.ExecContext(ctx, "DELETE FROM tagged")
		return true, err
	}
	links, campaigns := map[terse.WorkspaceID][]string{}, map[terse.WorkspaceID][]string{}
	var ids []string
	for _, l := range b.Links {
		if !l.New {
			ids = append(ids, number(l.Link))
		}
	}
	had, err := tagsOf(ctx, conn, "link_tags", "link_id", ids)
	if err != nil {
		return false, err
	}
	for _, l := range b.Links {
		if !l.New && !sameTags(had[int64(l.Link)], l.Tags) {
			links[l.Workspace] = append(links[l.Workspace], number(l.Link))
		}
	}
	ids = ids[:0]
	for _, c := range b.Campaigns {
		ids = append(ids, number(c.Campaign))
	}
	if had, err = tagsOf(ctx, conn, "campaign_tags", "campaign_id", ids); err != nil {
		return false, err
	}
	for _, c := range b.Campaigns {
		if !sameTags(had[int64(c.Campaign)], c.Tags) {
			campaigns[c.Workspace] = append(campaigns[c.Workspace], number(c.Campaign))
		}
	}
	for column, list := range map[string]map[terse.WorkspaceID][]string{"link_id": links, "campaign_id": campaigns} {
		for w, ids := range list {
			ws := "workspace_id = " + number(w)
			// A day without the cube may have clicks of them.
			q := fmt.Sprintf("DELETE FROM tagged WHERE %[1]s AND (day IN (SELECT day FROM rcube WHERE %[1]s AND cube = %[2]d AND %[3]s IN (%[4]s)) OR day NOT IN (SELECT day FROM rday WHERE %[1]s AND scope = %[5]d AND cubes >> %[2]d & 1 = 1))",
				ws, tagCube, column, strings.Join(ids, ", "), scopeWorkspace)
			if _, err := conn.ExecContext(ctx, q); err != nil {
				return false, err
			}
		}
	}
	late, err := tagLate(ctx, conn, b.Links)
	return late || len(links)+len(campaigns) > 0, err
}

// tagLate takes days out of tagged that have clicks of links whose first tags come now: facts that were late. Links are
// mostly younger than any closed day. It reports whether there was such a day.
func tagLate(ctx context.Context, conn *sql.Conn, links []analytics.LinkTags) (any bool, err error) {
	byWorkspace := map[terse.WorkspaceID][]string{}
	for _, l := range links {
		if l.New && len(l.Tags) > 0 {
			byWorkspace[l.Workspace] = append(byWorkspace[l.Workspace], number(l.Link))
		}
	}
	for w, ids := range byWorkspace {
		ws, of := "workspace_id = "+number(w), "link_id IN ("+strings.Join(ids, ", ")+")"
		q := fmt.Sprintf("DELETE FROM tagged WHERE %[1]s AND day IN (SELECT day FROM rcube WHERE %[1]s AND cube = %[2]d AND %[3]s UNION ALL SELECT day FROM rlink WHERE %[1]s AND %[3]s)", ws, tagCube, of)
		result, err := conn.ExecContext(ctx, q)
		if err != nil {
			return false, err
		}
		n, err := result.RowsAffected()
		if err != nil {
			return false, err
		}
		any = any || n > 0
	}
	return any, nil
}

// tagCube is the number of the cube of links and campaigns.
var tagCube = slices.IndexFunc(cubes, func(c cube) bool { return c.has(analytics.Tag) })

// tagsOf returns what is known of links or campaigns.
func tagsOf(ctx context.Context, conn *sql.Conn, table, column string, ids []string) (map[int64][]string, error) {
	had := map[int64][]string{}
	if len(ids) == 0 {
		return had, nil
	}
	err := scanOn(ctx, conn, "SELECT "+column+", tag FROM "+table+" WHERE "+column+" IN ("+strings.Join(ids, ", ")+")", func(r *sql.Rows) error {
		var id int64
		var tag string
		err := r.Scan(&id, &tag)
		had[id] = append(had[id], tag)
		return err
	}, nil)
	return had, err
}

func sameTags(a, b []string) bool {
	return len(a) == len(b) && slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// rollTags computes the scopes of tags that are due, until there is none or, after some batch, the time is over.
func (d *DB) rollTags(ctx context.Context, budget time.Duration) error {
	for began := time.Now(); ; {
		batch, err := d.tagsDue(ctx)
		if err != nil || len(batch) == 0 {
			return err
		}
		d.mu.RLock()
		retags := d.retags
		d.mu.RUnlock()
		done, err := d.rollTagsOf(ctx, batch, retags)
		if err != nil && ctx.Err() == nil && !errors.Is(err, errWriter) {
			d.o.Log.Error("tags of a day are looked up click by click", "day", date(batch[0].day), "days", len(batch), "error", err)
			d.recordErrors.Add(1)
			err, done = nil, true // and neither this day nor others wait for it
		}
		if err != nil || !done {
			return err
		}
		for _, v := range batch {
			d.tagTried[v.day] = retags
		}
		if time.Since(began) > budget {
			return nil
		}
	}
}

// tagsDue returns closed days that are not in tagged though they have clicks of workspaces with tags: the latest, as many as are
// computed together.
func (d *DB) tagsDue(ctx context.Context) ([]dayView, error) {
	d.mu.RLock()
	known, retags := d.factsKnown, d.retags
	d.mu.RUnlock()
	if !known {
		return nil, nil
	}
	due := map[int64]bool{}
	err := d.scan(ctx, fmt.Sprintf("SELECT DISTINCT day FROM rday r WHERE scope = %d AND workspace_id IN (%s) AND NOT EXISTS (SELECT 1 FROM tagged t WHERE t.day = r.day AND t.workspace_id = r.workspace_id)",
		scopeWorkspace, tagWorkspaces), func(r *sql.Rows) error {
		var day int64
		err := r.Scan(&day)
		due[day] = true
		return err
	})
	if err != nil || len(due) == 0 {
		return nil, err
	}
	var batch []dayView
	var clicks int64
	days, _ := d.view()
	for _, v := range slices.Backward(days) {
		// The others are about to be closed again, or have no clicks.
		if !due[v.day] || !v.rolled || v.outdated || v.swept || len(v.cold) != 1 {
			continue
		}
		// A workspace may have rollups of a day and no clicks of it any more.
		if n, tried := d.tagTried[v.day]; tried && n == retags {
			continue
		}
		n := d.clicksOn(v.day)
		if len(batch) > 0 && clicks+n > batchRollups {
			break
		}
		batch, clicks = append(batch, v), clicks+n
	}
	return batch, nil
}

// tagWorkspaces selects the workspaces whose tags are scopes.
var tagWorkspaces = fmt.Sprintf("SELECT workspace_id FROM (SELECT workspace_id, tag FROM link_tags UNION SELECT workspace_id, tag FROM campaign_tags) GROUP BY workspace_id HAVING count(*) <= %d", maxTags)

// rollTagsOf computes the scopes of tags of days. False: tags or days have changed since retags were so many.
func (d *DB) rollTagsOf(ctx context.Context, days []dayView, retags uint64) (done bool, err error) {
	d.mu.Lock()
	generation := d.generation
	d.lateTags, d.rollingTags = nil, true
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		d.lateTags, d.rollingTags = nil, false
		d.mu.Unlock()
	}()
	conn, err := d.readers.Conn(ctx) // temporary tables belong to a connection
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	var files []file
	var list []int64
	for _, v := range days {
		files, list = append(files, v.cold...), append(list, v.day)
	}
	r := rollup{ctx: ctx, conn: conn, src: readParquet(d.o.Record, files), topValues: d.o.topValues, tagged: true}
	r.drop()
	defer r.drop()
	if err := execAll(ctx, conn, r.tagScopes(list)); err != nil {
		return false, fmt.Errorf("roll up tags: %w", err)
	}

	d.writing.Lock()
	defer d.writing.Unlock()
	d.mu.RLock()
	same, late := d.retags == retags && d.generation == generation, d.lateTags
	d.mu.RUnlock()
	if !same {
		return false, nil
	}
	ctx = context.WithoutCancel(ctx) // what began is worth finishing
	put := []string{"BEGIN"}
	of := dayList(list) + " AND workspace_id IN (SELECT workspace_id FROM tag_names)"
	for _, t := range tagTables {
		put = append(put, fmt.Sprintf("DELETE FROM %s WHERE %s AND scope >= %d", t, of, scopeTag), "INSERT INTO "+t+" BY NAME SELECT * FROM new_"+t)
	}
	put = append(put, "DELETE FROM tagged WHERE "+of, fmt.Sprintf("INSERT INTO tagged SELECT DISTINCT day, workspace_id FROM new_rday WHERE scope >= %d", scopeTag))
	err = execAll(ctx, conn, put)
	if err == nil {
		_, err = tagLate(ctx, conn, late)
	}
	if err == nil {
		err = execAll(ctx, conn, []string{"COMMIT"})
	}
	if err != nil {
		_, back := conn.ExecContext(ctx, "ROLLBACK")
		return false, fmt.Errorf("roll up tags: %w", errors.Join(err, back))
	}
	return true, nil
}

func execAll(ctx context.Context, conn *sql.Conn, list []string) error {
	for _, q := range list {
		if _, err := conn.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// tagTables are the tables in which tags are scopes.
var tagTables = []string{"rday", "r15", "rdim", partsTable}

// tagTemps are the temporary tables of tagScopes, beside those that it shares.
var tagTemps = []string{"tag_names", "tag_links", "tag_campaigns"}

// tagScopes returns the statements that make new_rday and the others of tagTables for the tags of days.
func (r *rollup) tagScopes(days []int64) []string {
	list := []string{
		// A workspace has one name more, for clicks without a tag.
		"CREATE TEMP TABLE tag_names AS SELECT workspace_id, tag, (row_number() OVER (ORDER BY workspace_id, tag))::INTEGER AS t FROM (SELECT workspace_id, tag FROM link_tags UNION SELECT workspace_id, tag FROM campaign_tags " +
			"UNION SELECT DISTINCT workspace_id, '' FROM (" + tagWorkspaces + ")) WHERE workspace_id IN (" + tagWorkspaces + ")",
		"CREATE TEMP TABLE tag_links AS SELECT DISTINCT workspace_id, link_id, t FROM link_tags JOIN tag_names USING (workspace_id, tag)",
		"CREATE TEMP TABLE tag_campaigns AS SELECT DISTINCT workspace_id, campaign_id, t FROM campaign_tags JOIN tag_names USING (workspace_id, tag)",
	}
	numbers := make([]string, len(days))
	rows := make([]string, len(days))
	for i, day := range days {
		numbers[i] = strconv.FormatInt(day, 10)
		rows[i] = fmt.Sprintf("(%d, %d)", i, day)
	}
	n := len(days)
	s := func(t string) string {
		return fmt.Sprintf("(%s * %d + list_position([%s], %s) - 1)::INTEGER AS s", t, n, strings.Join(numbers, ", "), dayColumn)
	}
	list = append(list, fmt.Sprintf("CREATE TEMP TABLE scopes AS SELECT (t * %d + i)::INTEGER AS s, day::BIGINT AS day, workspace_id, (CASE WHEN tag = '' THEN %d ELSE %d END)::UTINYINT AS scope, 0::BIGINT AS id, tag AS domain FROM tag_names, (VALUES %s) d(i, day)",
		n, scopeUntagged, scopeTag, strings.Join(rows, ", ")))
	cols := strings.Join(countedColumns(), ", c.")
	list = append(list,
		fmt.Sprintf("CREATE TEMP TABLE counted AS SELECT %[1]s, c.%[2]s FROM %[3]s c JOIN tag_links t ON c.workspace_id = t.workspace_id AND c.link_id = t.link_id"+
			" UNION ALL SELECT %[1]s, c.%[2]s FROM %[3]s c JOIN tag_campaigns t ON c.workspace_id = t.workspace_id AND c.campaign_id = t.campaign_id"+
			" LEFT JOIN tag_links own ON own.workspace_id = c.workspace_id AND own.link_id = c.link_id AND own.t = t.t WHERE own.t IS NULL", s("t.t"), cols, r.src),
		// What the shared statements want, and tags do not have.
		"CREATE TEMP TABLE domains AS SELECT 0::BIGINT AS day, 0 AS w, '' AS single, 0 AS n WHERE false",
		"CREATE TEMP TABLE new_cubes (day BIGINT, workspace_id INTEGER, cube INTEGER)")
	list = append(list, createCounts...)
	for _, dim := range rolledDimensions() {
		list = append(list, counting(dim, func(v string) string { return r.scoped(v) })...)
	}
	free := fmt.Sprintf("(SELECT %s, c.* FROM %s c JOIN tag_names n ON c.workspace_id = n.workspace_id AND n.tag = '' ANTI JOIN tag_links l ON c.workspace_id = l.workspace_id AND c.link_id = l.link_id"+
		" ANTI JOIN tag_campaigns k ON c.workspace_id = k.workspace_id AND c.campaign_id = k.campaign_id)", s("n.t"), r.src)
	list = append(list, counting("", func(v string) string { return "(SELECT s, " + v + " AS v, " + scopedColumns + " FROM " + free + ")" })...)
	return slices.Concat(list, r.pivot(), r.slots(), r.parts())
}

// taggedDays returns the days of a list whose tags are scopes in a workspace.
func (at *snapshot) taggedDays(ctx context.Context, w terse.WorkspaceID, views []dayView) (map[int64]bool, error) {
	list := make([]int64, len(views))
	for i, v := range views {
		list[i] = v.day
	}
	days := map[int64]bool{}
	if len(list) == 0 {
		return days, nil
	}
	err := at.scan(ctx, "SELECT day FROM tagged WHERE "+dayList(list)+" AND workspace_id = "+number(w), func(r *sql.Rows) error {
		var day int64
		err := r.Scan(&day)
		days[day] = true
		return err
	})
	// Some of the days without clicks would look like all of them: cubes know whether there are all.
	if slices.ContainsFunc(views, func(v dayView) bool { return !v.raw() && !days[v.day] }) {
		for _, v := range views {
			if !v.raw() {
				delete(days, v.day)
			}
		}
	}
	return days, err
}

// planTags takes out of the raw days of a breakdown by tag, of a whole workspace and without filters, those whose tags are scopes. able
// says whether a closed day can be answered from rollups.
func (at *snapshot) planTags(ctx context.Context, p plan, q analytics.Query, able func(v dayView) bool) (plan, error) {
	if q.By != analytics.Tag || q.Scope != (analytics.Scope{}) || len(q.Filters) > 0 || !q.RedirectsOnly() {
		return p, nil
	}
	var views []dayView
	for _, v := range within(at.days, q) {
		if v.rolled && (able(v) || !v.raw()) {
			views = append(views, v)
		}
	}
	days, err := at.taggedDays(ctx, q.Workspace, views)
	if err != nil || len(days) == 0 {
		return p, err
	}
	err = at.scan(ctx, fmt.Sprintf("SELECT day, bot_visits FROM rday WHERE %s AND workspace_id = %s AND scope = %d", dayList(slices.Sorted(maps.Keys(days))), number(q.Workspace), scopeWorkspace), func(r *sql.Rows) error {
		var day, botVisits int64
		err := r.Scan(&day, &botVisits)
		if botVisits == 0 || q.Bots == analytics.BotsExclude {
			p.tags = append(p.tags, day)
		}
		return err
	})
	p.raw = slices.DeleteFunc(slices.Clone(p.raw), func(v dayView) bool { return slices.Contains(p.tags, v.day) })
	return p, err
}

// rolledTags returns the SELECT of the days of a breakdown by tag whose tags are scopes: k, c, v, l, other.
func (s *statement) rolledTags(days []int64, q analytics.Query) string {
	clicks := byBots(q.Bots, "clicks")
	return fmt.Sprintf("SELECT * FROM (SELECT domain AS k, %s AS c, %s AS v, '' AS l, false AS other FROM rday WHERE %s AND workspace_id = %s AND scope IN (%d, %d) AND %s > 0) t WHERE true%s",
		clicks, ofPeople(q.Bots, "visitors"), dayList(days), number(q.Workspace), scopeTag, scopeUntagged, clicks, s.search(q))
}
