package duckdb

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"

	"github.com/terselink/terse/internal/analytics"
)

// A chart with a filter by days, weeks or months of a zone cuts UTC days, and neither rdim nor a cube knows when in the day. So
// rdim15 has, of the workspace and each domain, every value of a few dimensions by quarters of an hour, with what r15 has of
// all clicks but the visitors of a quarter and of an hour: charts by the hour are of days that are open, mostly.
//
// These dimensions have few values, all of them from lists of our own, so nothing is left out as in rdim.
var partDimensions = []analytics.Dimension{analytics.Country, analytics.Device, analytics.OS, analytics.Browser, analytics.Trigger}

const partsTable = "rdim15"

// createParts makes the table.
func createParts() string {
	return "CREATE TABLE " + partsTable + " (day BIGINT NOT NULL, " + scopeKey + ", dim VARCHAR NOT NULL, txt VARCHAR NOT NULL, slot UTINYINT NOT NULL, clicks_p BIGINT NOT NULL, clicks_b BIGINT NOT NULL, " +
		"qr_p BIGINT NOT NULL, qr_b BIGINT NOT NULL, firsts BIGINT NOT NULL, lasts BIGINT NOT NULL)"
}

// parts returns the statements that make new_rdim15.
func (r *rollup) parts() []string {
	list := []string{strings.Replace(createParts(), "TABLE ", "TEMP TABLE new_", 1)}
	for _, dim := range partDimensions {
		clicks := r.scoped(fmt.Sprintf("%s AS txt, %s", dimensionColumns[dim], slotOfDay), scopeWorkspace, scopeDomain) + " WHERE outcome = 'redirect'"
		part := func(cols, from string) string { return "SELECT s, txt, " + cols + " FROM " + from }
		parts := strings.Join([]string{
			part("v AS slot, "+slotCounts+", count(*) FILTER (lone) AS firsts, count(*) FILTER (lone) AS lasts", clicks+" GROUP BY s, txt, v"),
			part("f, 0, 0, 0, 0, count(*), 0", "ends GROUP BY s, txt, f"),
			part("l, 0, 0, 0, 0, 0, count(*)", "ends GROUP BY s, txt, l"),
		}, " UNION ALL ")
		list = append(list, "INSERT INTO new_"+partsTable+" WITH ends AS MATERIALIZED (SELECT s, txt, min(v) AS f, max(v) AS l FROM "+clicks+" AND "+aVisit+" GROUP BY s, txt, visitor) "+
			"SELECT "+rollupKey+", '"+string(dim)+"', txt, slot, clicks_p, clicks_b, qr_p, qr_b, firsts, lasts FROM (SELECT s, txt, slot, sum(clicks_p) AS clicks_p, sum(clicks_b) AS clicks_b, sum(qr_p) AS qr_p, sum(qr_b) AS qr_b, sum(firsts) AS firsts, sum(lasts) AS lasts FROM ("+parts+") GROUP BY s, txt, slot) JOIN scopes USING (s)")
	}
	return append(list, onlyDomain("new_"+partsTable))
}

// parted reports whether rdim15 knows the filters and the scope of a query.
func parted(q analytics.Query) bool {
	return len(q.Filters) == 1 && !q.Filters[0].Not && len(q.Filters[0].Values) == 1 && slices.Contains(partDimensions, q.Filters[0].Dim) && q.RedirectsOnly() &&
		q.Scope.Link == 0 && q.Scope.Campaign == 0
}

// fromParts takes out of the raw days of a plan those that rdim15 has. able says whether a closed day can be answered from it.
func (at *snapshot) fromParts(ctx context.Context, p plan, q analytics.Query, able func(v dayView) bool) (plan, error) {
	if !parted(q) {
		return p, nil
	}
	var list []int64
	tagged := map[int64]bool{}
	if q.Scope.Tag != "" {
		var err error
		if tagged, err = at.taggedDays(ctx, q.Workspace, p.raw); err != nil {
			return p, err
		}
	}
	for _, v := range p.raw {
		if v.rolled && able(v) && (q.Scope.Tag == "" || tagged[v.day]) {
			list = append(list, v.day)
		}
	}
	if len(list) == 0 {
		return p, nil
	}
	// A workspace with clicks that day has rows of each of the dimensions, or none at all: then its rollups are of an
	// earlier version, or carried over from one.
	ws := dayList(list) + " AND workspace_id = " + number(q.Workspace) + " AND scope = " + fmt.Sprint(scopeWorkspace)
	err := at.scan(ctx, "SELECT day, bot_visits FROM rday WHERE "+ws+" AND day IN (SELECT day FROM "+partsTable+" WHERE "+ws+" AND dim = '"+string(q.Filters[0].Dim)+"')", func(r *sql.Rows) error {
		var day, botVisits int64
		err := r.Scan(&day, &botVisits)
		if botVisits == 0 || q.Bots == analytics.BotsExclude {
			p.parts = append(p.parts, day)
		}
		return err
	})
	p.raw = slices.DeleteFunc(slices.Clone(p.raw), func(v dayView) bool { return slices.Contains(p.parts, v.day) })
	return p, err
}

// partRows returns the condition of the rows of rdim15 that a query asks for.
func (s *statement) partRows(days []int64, q analytics.Query) string {
	scope, _ := s.scopeOf(q)
	return dayList(days) + " AND " + scope + " AND dim = '" + string(q.Filters[0].Dim) + "' AND txt" + s.oneOf(q.Filters[0])
}
