package duckdb

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
)

// schemaVersion is in the table meta. A file of another version is not opened.
const schemaVersion = "6"

// eventVersion is the column v of every row: the version of the event schema.
const eventVersion uint8 = 1

const dayMillis = 86_400_000

// column is one column of a day table and how an event fills it.
type column struct {
	name, typ string
	size      uintptr // bytes of a value in memory; 0: a text
	number    func(ev *clicks.Event) uint64
	text      func(ev *clicks.Event) string
}

// columns is the table of a day, in order.
var columns = []column{
	{name: "event_id", typ: "UUID", size: 16},
	integer("ts", "TIMESTAMP_MS", func(ev *clicks.Event) uint64 { return uint64(ev.At) }),
	integer("workspace_id", "INTEGER", func(ev *clicks.Event) uint64 { return uint64(ev.Workspace) }),
	integer("link_id", "BIGINT", func(ev *clicks.Event) uint64 { return uint64(ev.Link) }),
	integer("campaign_id", "BIGINT", func(ev *clicks.Event) uint64 { return uint64(ev.Campaign) }),
	text("domain", func(ev *clicks.Event) string { return ev.Domain }),
	text("code", func(ev *clicks.Event) string { return ev.Code }),
	text("destination", func(ev *clicks.Event) string { return ev.Destination }),
	integer("rule", "UTINYINT", func(ev *clicks.Event) uint64 { return uint64(ev.Rule) }),
	integer("outcome", "UTINYINT", func(ev *clicks.Event) uint64 { return uint64(ev.Outcome) }),
	text("trigger", func(ev *clicks.Event) string { return ev.Trigger }),
	integer("visitor", "BIGINT", func(ev *clicks.Event) uint64 { return ev.Visitor }),
	integer("repeat", "UTINYINT", func(ev *clicks.Event) uint64 { return uint64(bit(ev.Repeat)) }),
	integer("bot", "UTINYINT", func(ev *clicks.Event) uint64 { return uint64(ev.Bot) }),
	text("bot_name", func(ev *clicks.Event) string { return ev.BotName }),
	text("country", func(ev *clicks.Event) string { return ev.Country }),
	text("region", func(ev *clicks.Event) string { return ev.Region }),
	text("city", func(ev *clicks.Event) string { return ev.City }),
	integer("asn", "BIGINT", func(ev *clicks.Event) uint64 { return uint64(ev.ASN) }),
	text("device", func(ev *clicks.Event) string { return ev.Device }),
	text("os", func(ev *clicks.Event) string { return ev.OS }),
	text("os_ver", func(ev *clicks.Event) string { return ev.OSVersion }),
	text("browser", func(ev *clicks.Event) string { return ev.Browser }),
	text("browser_ver", func(ev *clicks.Event) string { return ev.BrowserVer }),
	text("lang", func(ev *clicks.Event) string { return ev.Language }),
	text("ref_host", func(ev *clicks.Event) string { return ev.RefHost }),
	text("ref_path", func(ev *clicks.Event) string { return ev.RefPath }),
	text("source", func(ev *clicks.Event) string { return ev.Source }),
	text("utm_source", func(ev *clicks.Event) string { return ev.UTMSource }),
	text("utm_medium", func(ev *clicks.Event) string { return ev.UTMMedium }),
	text("utm_campaign", func(ev *clicks.Event) string { return ev.UTMCampaign }),
	text("utm_term", func(ev *clicks.Event) string { return ev.UTMTerm }),
	text("utm_content", func(ev *clicks.Event) string { return ev.UTMContent }),
	integer("weight", "USMALLINT", func(ev *clicks.Event) uint64 { return uint64(max(ev.Weight, 1)) }),
	text("node", func(ev *clicks.Event) string { return ev.Node }),
	integer("v", "UTINYINT", func(*clicks.Event) uint64 { return uint64(eventVersion) }),
	// Of workspaces that keep them; last, where migrate adds them to older tables.
	text("user_agent", func(ev *clicks.Event) string { return ev.UserAgent }),
	text("ip", func(ev *clicks.Event) string { return ev.IP }),
}

// sizes are the bytes of a value in memory, by type.
var sizes = map[string]uintptr{"TIMESTAMP_MS": 8, "BIGINT": 8, "INTEGER": 4, "USMALLINT": 2, "UTINYINT": 1}

func integer(name, typ string, get func(*clicks.Event) uint64) column {
	return column{name: name, typ: typ, size: sizes[typ], number: get}
}

func text(name string, get func(*clicks.Event) string) column {
	return column{name: name, typ: "VARCHAR", text: get}
}

func bit(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// dimensionColumns names the column of every dimension. It is the only way from a
// query to an identifier.
var dimensionColumns = map[analytics.Dimension]string{
	analytics.Country: "country", analytics.Region: "region", analytics.City: "city", analytics.Device: "device",
	analytics.OS: "os", analytics.Browser: "browser", analytics.Language: "lang", analytics.Referrer: "ref_host",
	analytics.Source: "source", analytics.UTMSource: "utm_source", analytics.UTMMedium: "utm_medium",
	analytics.UTMCampaign: "utm_campaign", analytics.UTMTerm: "utm_term", analytics.UTMContent: "utm_content",
	analytics.Link: "link_id", analytics.Campaign: "campaign_id", analytics.Domain: "domain", analytics.Code: "code",
	analytics.Destination: "destination", analytics.Rule: "rule", analytics.Outcome: "outcome",
	analytics.Trigger: `"trigger"`, analytics.Bot: "bot", analytics.BotName: "bot_name", analytics.ASN: "asn",
	analytics.OSVersion: "os_ver", analytics.BrowserVer: "browser_ver", analytics.Node: "node",
}

const tablePrefix = "clicks_"

// tableName returns the table of a UTC day, given in days since 1970: "clicks_20261103".
func tableName(day int64) string {
	return tablePrefix + time.Unix(day*86_400, 0).UTC().Format("20060102")
}

// tableDay is the inverse of tableName; false if s is no table of a day.
func tableDay(s string) (day int64, ok bool) {
	digits, ok := strings.CutPrefix(s, tablePrefix)
	if !ok {
		return 0, false
	}
	t, err := time.Parse("20060102", digits)
	if err != nil {
		return 0, false
	}
	day = t.Unix() / 86_400
	return day, tableName(day) == s
}

// createDay returns the statement that makes the table of a day.
func createDay(day int64) string {
	var b strings.Builder
	b.WriteString("CREATE TABLE IF NOT EXISTS " + tableName(day) + " (")
	for i, c := range columns {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q %s NOT NULL", c.name, c.typ)
	}
	b.WriteString(")")
	return b.String()
}

// createMeta makes the tables beside the days; it runs in a transaction with the
// rows that every file has.
var createMeta = []string{
	`CREATE TABLE meta ("key" VARCHAR NOT NULL, "value" VARCHAR NOT NULL)`,
	`CREATE TABLE ingest_offsets (source VARCHAR NOT NULL, boot VARCHAR NOT NULL, segment UBIGINT NOT NULL, "offset" BIGINT NOT NULL, events BIGINT NOT NULL)`,
	`INSERT INTO meta VALUES ('schema', '` + schemaVersion + `'), ('rebuilding', '1'), ('` + adoptingKey + `', '1')`,
}

// adoptingKey is in the table meta until a new database has taken over what the record holds.
const adoptingKey = "adopting"

// createState makes the tables that say what is in the record, and the rollups.
func createState() []string {
	return append([]string{
		`CREATE TABLE files (name VARCHAR NOT NULL, day BIGINT NOT NULL, hour INTEGER NOT NULL, "rows" BIGINT NOT NULL, bytes BIGINT NOT NULL,
			boot VARCHAR NOT NULL, segment UBIGINT NOT NULL, "offset" BIGINT NOT NULL, cold BOOLEAN NOT NULL)`,
		`CREATE TABLE exported (day BIGINT NOT NULL, hour INTEGER NOT NULL, "rows" BIGINT NOT NULL)`,
	}, createRollups()...)
}

// storable reports whether an event fits into the tables: its numbers are below
// the limits of every engine and of Parquet readers without unsigned types, its time
// is between the years 2000 and 2100.
func storable(ev *clicks.Event) bool {
	const from, to = 946_684_800_000, 4_102_444_800_000
	return ev.At >= from && ev.At < to && ev.Workspace < 1<<31 && ev.Link < 1<<63 && ev.Campaign < 1<<63
}

// dayOf returns the UTC day of t in days since 1970.
func dayOf(t terse.Millis) int64 { return int64(t) / dayMillis }

// timestamp returns a literal of the type of the column ts.
func timestamp(t terse.Millis) string {
	return "TIMESTAMP_MS '" + t.Time().Format("2006-01-02 15:04:05.000") + "'"
}

func number[T ~uint64 | ~uint32 | ~uint8](n T) string { return strconv.FormatUint(uint64(n), 10) }
