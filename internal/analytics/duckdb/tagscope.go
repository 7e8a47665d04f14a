package duckdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
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
		fmt.Sprintf(`DELETE FROM meta WHERE "key" = '%s'`, taggedKey),
		fmt.Sprintf(`INSERT INTO meta SELECT '%s', "value" FROM meta WHERE "key" = '%s'`, taggedKey, factsKey),
		fmt.Sprintf("DELETE FROM tagged WHERE NOT EXISTS (SELECT 1 FROM rday r WHERE r.day = tagged.day AND r.workspace_id = tagged.workspace_id AND r.scope >= %d)", scopeTag),
	} {
		if _, err := d.readers.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return nil
}

// retagged is what a batch of facts changes about the tags of clicks: whose clicks have other tags, by workspace.
type retagged struct {
	reset            bool // of everybody's
	links, campaigns map[terse.WorkspaceID][]string
	// since has links with tags of which nothing was known, by workspace: the day that the first of them is of.
	since map[terse.WorkspaceID]int64
}

// retag finds out what a batch changes that is not applied yet, and takes the days of those clicks out of tagged.
func retag(ctx context.Context, conn *sql.Conn, b *analytics.FactBatch) (*retagged, error) {
	t := &retagged{reset: b.Reset, links: map[terse.WorkspaceID][]string{}, campaigns: map[terse.WorkspaceID][]string{}, since: map[terse.WorkspaceID]int64{}}
	if b.Reset {
		return t, t.apply(ctx, conn)
	}
	var ids []string
	for _, l := range b.Links {
		if !l.New {
			ids = append(ids, number(l.Link))
		}
	}
	had, err := tagsOf(ctx, conn, "link_tags", "link_id", ids)
	if err != nil {
		return nil, err
	}
	for _, l := range b.Links {
		switch {
		case !l.New && !sameTags(had[int64(l.Link)], l.Tags):
			t.links[l.Workspace] = append(t.links[l.Workspace], number(l.Link))
		case l.New && len(l.Tags) > 0:
			day := dayOf(l.Created - clockSkew)
			if first, found := t.since[l.Workspace]; !found || day < first {
				t.since[l.Workspace] = day
			}
		}
	}
	ids = ids[:0]
	for _, c := range b.Campaigns {
		ids = append(ids, number(c.Campaign))
	}
	if had, err = tagsOf(ctx, conn, "campaign_tags", "campaign_id", ids); err != nil {
		return nil, err
	}
	for _, c := range b.Campaigns {
		if !sameTags(had[int64(c.Campaign)], c.Tags) {
			t.campaigns[c.Workspace] = append(t.campaigns[c.Workspace], number(c.Campaign))
		}
	}
	return t, t.apply(ctx, conn)
}

func (t *retagged) empty() bool {
	return !t.reset && len(t.links)+len(t.campaigns)+len(t.since) == 0
}

// clockSkew is how much later than its first click the node that made a link may have thought that it is.
const clockSkew = terse.Millis(3_600_000)

// apply takes the days out of tagged.
func (t *retagged) apply(ctx context.Context, conn *sql.Conn) error {
	if t.reset {
		return execAll(ctx, conn, []string{"DELETE FROM tagged"})
	}
	for w, day := range t.since { // facts that were late: a link is mostly younger than any closed day
		if err := execAll(ctx, conn, []string{fmt.Sprintf("DELETE FROM tagged WHERE workspace_id = %s AND day >= %d", number(w), day)}); err != nil {
			return err
		}
	}
	for column, list := range map[string]map[terse.WorkspaceID][]string{"link_id": t.links, "campaign_id": t.campaigns} {
		for w, ids := range list {
			ws := "workspace_id = " + number(w)
			var n int
			if err := conn.QueryRowContext(ctx, "SELECT count(*) FROM tagged WHERE "+ws).Scan(&n); err != nil {
				return err
			}
			if n == 0 {
				continue
			}
			// A day without the cube may have clicks of them.
			q := fmt.Sprintf("DELETE FROM tagged WHERE %[1]s AND (day IN (SELECT day FROM rcube WHERE %[1]s AND cube = %[2]d AND %[3]s IN (%[4]s)) OR day NOT IN (SELECT day FROM rday WHERE %[1]s AND scope = %[5]d AND cubes >> %[2]d & 1 = 1))",
				ws, tagCube, column, strings.Join(ids, ", "), scopeWorkspace)
			if err := execAll(ctx, conn, []string{q}); err != nil {
				return err
			}
		}
	}
	return nil
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

// tagDay is a closed day with the workspaces whose tags are due.
type tagDay struct {
	dayView
	workspaces []string
}

// rollTags computes the scopes of tags that are due, until there is none or, after some batch, the time is over.
func (d *DB) rollTags(ctx context.Context, budget time.Duration) error {
	for began := time.Now(); ; {
		batch, err := d.tagsDue(ctx)
		if err != nil || len(batch) == 0 {
			return err
		}
		done, err := d.rollTagsOf(ctx, batch)
		if err != nil && len(batch) > 1 && ctx.Err() == nil { // one at a time says which it is
			batch = batch[:1]
			done, err = d.rollTagsOf(ctx, batch)
		}
		if err != nil && ctx.Err() == nil {
			d.noTags(batch[0].day, err)
			continue
		}
		if err != nil || !done || time.Since(began) > budget {
			return err
		}
	}
}

// noTags notes that the tags of a day could not be rolled up. That is not tried again before the day or the process is another one:
// neither other days nor the next steps of Maintain wait for it.
func (d *DB) noTags(day int64, err error) {
	d.o.Log.Error("tags of a day are looked up click by click", "day", date(day), "error", err)
	d.recordErrors.Add(1)
	d.tagFailed[day] = true
}

// tagsDue returns closed days that are not in tagged though they have clicks of workspaces with tags: the latest, as many as are
// computed together.
func (d *DB) tagsDue(ctx context.Context) ([]tagDay, error) {
	d.mu.RLock()
	known := d.factsKnown
	d.mu.RUnlock()
	if !known {
		return nil, nil
	}
	due := map[int64][]string{}
	err := d.scan(ctx, fmt.Sprintf("SELECT day, workspace_id FROM rday r WHERE scope = %d AND workspace_id IN (%s) AND NOT EXISTS (SELECT 1 FROM tagged t WHERE t.day = r.day AND t.workspace_id = r.workspace_id)",
		scopeWorkspace, tagWorkspaces), func(r *sql.Rows) error {
		var day int64
		var w string
		err := r.Scan(&day, &w)
		due[day] = append(due[day], w)
		return err
	})
	if err != nil || len(due) == 0 {
		return nil, err
	}
	var batch []tagDay
	var clicks int64
	days, _ := d.view()
	for _, v := range slices.Backward(days) {
		// The others are about to be closed again, or have no clicks.
		if due[v.day] == nil || !v.rolled || v.outdated || v.swept || len(v.cold) != 1 || d.tagFailed[v.day] {
			continue
		}
		n := d.clicksOn(v.day)
		if len(batch) > 0 && clicks+n > d.o.batchRollups {
			break
		}
		// Of a workspace whose clicks are pruned the rollups and the cube say more than what is left of its clicks.
		pruned, found := d.tagPruned[v.day]
		if !found {
			if pruned, err = d.carriedOver(ctx, change{day: v.day}); ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err != nil {
				d.noTags(v.day, err)
				continue
			}
			d.tagPruned[v.day] = pruned
		}
		list := slices.DeleteFunc(due[v.day], func(w string) bool { return slices.Contains(pruned, w) })
		if len(list) > 0 {
			batch, clicks = append(batch, tagDay{v, list}), clicks+n
		}
	}
	return batch, nil
}

// tagWorkspaces selects the workspaces whose tags are scopes.
var tagWorkspaces = fmt.Sprintf("SELECT workspace_id FROM (SELECT workspace_id, tag FROM link_tags UNION SELECT workspace_id, tag FROM campaign_tags) GROUP BY workspace_id HAVING count(*) <= %d", maxTags)

// rollTagsOf computes the scopes of tags of days. False: days have changed meanwhile, or all facts are told anew.
func (d *DB) rollTagsOf(ctx context.Context, days []tagDay) (done bool, err error) {
	d.mu.Lock()
	generation := d.generation
	d.retagged, d.rollingTags = nil, true
	d.mu.Unlock()
	defer func() {
		d.mu.Lock()
		d.retagged, d.rollingTags = nil, false
		d.mu.Unlock()
	}()
	conn, err := d.readers.Conn(ctx) // temporary tables belong to a connection
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	var files []file
	var clicks int64
	for _, v := range days {
		files, clicks = append(files, v.cold...), clicks+d.clicksOn(v.day)
	}
	r := rollup{ctx: ctx, conn: conn, log: d.o.Log, src: readParquet(d.o.Record, files), ofTags: true, topValues: d.o.topValues}
	if clicks > d.o.batchRollups {
		r.copied = filepath.Join(d.rollupDir(days[0].day), "tagged"+tmpSuffix)
	}
	r.drop()
	defer r.drop()
	if err := execAll(ctx, conn, r.tagScopes(days)); err != nil {
		return false, fmt.Errorf("roll up tags: %w", err)
	}

	d.writing.Lock()
	defer d.writing.Unlock()
	d.mu.RLock()
	same, meanwhile := d.generation == generation, d.retagged
	d.mu.RUnlock()
	if !same || slices.ContainsFunc(meanwhile, func(t *retagged) bool { return t.reset }) {
		return false, nil
	}
	ctx = context.WithoutCancel(ctx) // what began is worth finishing
	put := []string{"BEGIN"}
	for _, t := range tagTables {
		put = append(put, fmt.Sprintf("DELETE FROM %s WHERE (day, workspace_id) IN (SELECT day, workspace_id FROM tag_days) AND scope >= %d", t, scopeTag), "INSERT INTO "+t+" BY NAME SELECT * FROM new_"+t)
	}
	put = append(put, "INSERT INTO tagged SELECT day, workspace_id FROM tag_days")
	err = execAll(ctx, conn, put)
	for _, t := range meanwhile {
		if err == nil {
			err = t.apply(ctx, conn)
		}
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
var tagTemps = []string{"tag_days", "tag_names", "tag_links", "tag_campaigns"}

// tagScopes returns the statements that make new_rday and the others of tagTables for the tags of days.
func (r *rollup) tagScopes(days []tagDay) []string {
	var pairs []string
	for i, v := range days {
		for _, w := range v.workspaces {
			pairs = append(pairs, fmt.Sprintf("(%d, %d::BIGINT, %s::INTEGER)", i, v.day, w))
		}
	}
	list := []string{
		"CREATE TEMP TABLE tag_days AS SELECT * FROM (VALUES " + strings.Join(pairs, ", ") + ") p(i, day, workspace_id)",
		// A workspace has one name more, for clicks without a tag.
		"CREATE TEMP TABLE tag_names AS SELECT workspace_id, tag, (row_number() OVER (ORDER BY workspace_id, tag))::INTEGER AS t FROM (SELECT workspace_id, tag FROM link_tags UNION SELECT workspace_id, tag FROM campaign_tags " +
			"UNION SELECT DISTINCT workspace_id, '' FROM tag_days) SEMI JOIN tag_days USING (workspace_id)",
		"CREATE TEMP TABLE tag_links AS SELECT DISTINCT workspace_id, link_id, t FROM link_tags JOIN tag_names USING (workspace_id, tag)",
		"CREATE TEMP TABLE tag_campaigns AS SELECT DISTINCT workspace_id, campaign_id, t FROM campaign_tags JOIN tag_names USING (workspace_id, tag)",
	}
	s := func(t string) string { return fmt.Sprintf("(%s * %d + d.i)::INTEGER AS s", t, len(days)) }
	of := r.src + " c JOIN tag_days d ON c.workspace_id = d.workspace_id AND " + dayColumn + " = d.day " + oftenJoin
	cols := "c." + strings.Join(countedColumns(), ", c.") + ", " + lone
	list = append(list,
		fmt.Sprintf("CREATE TEMP TABLE scopes AS SELECT %s, d.day, workspace_id, (CASE WHEN tag = '' THEN %d ELSE %d END)::UTINYINT AS scope, 0::BIGINT AS id, tag AS domain FROM tag_names JOIN tag_days d USING (workspace_id)", s("t"), scopeUntagged, scopeTag))
	free := fmt.Sprintf("(SELECT %s, %s FROM %s JOIN tag_names n ON c.workspace_id = n.workspace_id AND n.tag = '' ANTI JOIN tag_links l ON c.workspace_id = l.workspace_id AND c.link_id = l.link_id"+
		" ANTI JOIN tag_campaigns k ON c.workspace_id = k.workspace_id AND c.campaign_id = k.campaign_id)", s("n.t"), cols, of)
	list = append(list, r.findOften())
	// A row for each tag of a click.
	list = append(list, r.count(fmt.Sprintf("SELECT %[1]s, %[2]s FROM %[3]s JOIN tag_links t ON c.workspace_id = t.workspace_id AND c.link_id = t.link_id"+
		" UNION ALL SELECT %[1]s, %[2]s FROM %[3]s JOIN tag_campaigns t ON c.workspace_id = t.workspace_id AND c.campaign_id = t.campaign_id"+
		" LEFT JOIN tag_links own ON own.workspace_id = c.workspace_id AND own.link_id = c.link_id AND own.t = t.t WHERE own.t IS NULL", s("t.t"), cols, of)))
	list = append(list,
		// What the shared statements want, and tags do not have.
		"CREATE TEMP TABLE domains AS SELECT 0::BIGINT AS day, 0 AS w, '' AS single, 0 AS n WHERE false",
		"CREATE TEMP TABLE new_cubes (day BIGINT, workspace_id INTEGER, cube INTEGER)")
	list = append(list, createCounts...)
	for _, dim := range rolledDimensions() {
		list = append(list, counting(dim, func(v string) string { return r.scoped(v) })...)
	}
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
	missing := map[int64]bool{} // days with clicks of the workspace
	err := at.scan(ctx, fmt.Sprintf("SELECT day, EXISTS (SELECT 1 FROM tagged t WHERE t.day = r.day AND t.workspace_id = r.workspace_id) FROM rday r WHERE %s AND workspace_id = %s AND scope = %d", dayList(list), number(w), scopeWorkspace),
		func(r *sql.Rows) error {
			var day int64
			var is bool
			err := r.Scan(&day, &is)
			if is {
				days[day] = true
			} else {
				missing[day] = true
			}
			return err
		})
	// Some of the days without clicks would look like all of them: cubes know whether there are all.
	if slices.ContainsFunc(views, func(v dayView) bool { return !v.raw() && missing[v.day] }) {
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
	return fmt.Sprintf("SELECT * FROM (SELECT domain AS k, %s AS c, %s AS v, false AS other FROM rday WHERE %s AND workspace_id = %s AND scope IN (%d, %d) AND %s > 0) t WHERE true%s",
		clicks, ofPeople(q.Bots, "visitors"), dayList(days), number(q.Workspace), scopeTag, scopeUntagged, clicks, s.search(q))
}
