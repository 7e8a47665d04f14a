package clickhouse

import (
	"fmt"
	"slices"
	"strings"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
)

const (
	dayMillis  = 86_400_000
	slotMillis = 900_000
)

// Kinds of columns that dialects store in different ways; other kinds are the names of types.
const (
	kindName   = "name"   // a text with few values
	kindText   = "text"   // any text
	kindMillis = "millis" // Unix ms
	kindID     = "id"     // a number of a link or campaign
)

// column is one column of the table clicks and how an event fills it.
type column struct {
	name, kind string
	number     func(ev *clicks.Event) uint64
	text       func(ev *clicks.Event) string
}

// columns is the table clicks, in order, without event_id and day.
var columns = []column{
	{name: "ts_ms", kind: kindMillis, number: func(ev *clicks.Event) uint64 { return uint64(ev.At) }},
	{name: "workspace_id", kind: "UInt32", number: func(ev *clicks.Event) uint64 { return uint64(ev.Workspace) }},
	{name: "link_id", kind: kindID, number: func(ev *clicks.Event) uint64 { return uint64(ev.Link) }},
	{name: "campaign_id", kind: kindID, number: func(ev *clicks.Event) uint64 { return uint64(ev.Campaign) }},
	{name: "domain", kind: kindName, text: func(ev *clicks.Event) string { return ev.Domain }},
	{name: "code", kind: kindText, text: func(ev *clicks.Event) string { return ev.Code }},
	{name: "destination", kind: kindText, text: func(ev *clicks.Event) string { return ev.Destination }},
	{name: "rule", kind: "UInt8", number: func(ev *clicks.Event) uint64 { return uint64(ev.Rule) }},
	{name: "outcome", kind: "UInt8", number: func(ev *clicks.Event) uint64 { return uint64(ev.Outcome) }},
	{name: "trigger", kind: kindName, text: func(ev *clicks.Event) string { return ev.Trigger }},
	{name: "visitor", kind: "UInt64", number: func(ev *clicks.Event) uint64 { return ev.Visitor }},
	{name: "repeat", kind: "UInt8", number: func(ev *clicks.Event) uint64 { return bit(ev.Repeat) }},
	{name: "bot", kind: "UInt8", number: func(ev *clicks.Event) uint64 { return uint64(ev.Bot) }},
	{name: "bot_name", kind: kindName, text: func(ev *clicks.Event) string { return ev.BotName }},
	{name: "country", kind: kindName, text: func(ev *clicks.Event) string { return ev.Country }},
	{name: "region", kind: kindName, text: func(ev *clicks.Event) string { return ev.Region }},
	{name: "city", kind: kindText, text: func(ev *clicks.Event) string { return ev.City }},
	{name: "asn", kind: "UInt32", number: func(ev *clicks.Event) uint64 { return uint64(ev.ASN) }},
	{name: "device", kind: kindName, text: func(ev *clicks.Event) string { return ev.Device }},
	{name: "os", kind: kindName, text: func(ev *clicks.Event) string { return ev.OS }},
	{name: "os_ver", kind: kindName, text: func(ev *clicks.Event) string { return ev.OSVersion }},
	{name: "browser", kind: kindName, text: func(ev *clicks.Event) string { return ev.Browser }},
	{name: "browser_ver", kind: kindName, text: func(ev *clicks.Event) string { return ev.BrowserVer }},
	{name: "lang", kind: kindName, text: func(ev *clicks.Event) string { return ev.Language }},
	{name: "ref_host", kind: kindText, text: func(ev *clicks.Event) string { return ev.RefHost }},
	{name: "ref_path", kind: kindText, text: func(ev *clicks.Event) string { return ev.RefPath }},
	{name: "source", kind: kindName, text: func(ev *clicks.Event) string { return ev.Source }},
	{name: "utm_source", kind: kindText, text: func(ev *clicks.Event) string { return ev.UTMSource }},
	{name: "utm_medium", kind: kindText, text: func(ev *clicks.Event) string { return ev.UTMMedium }},
	{name: "utm_campaign", kind: kindText, text: func(ev *clicks.Event) string { return ev.UTMCampaign }},
	{name: "utm_term", kind: kindText, text: func(ev *clicks.Event) string { return ev.UTMTerm }},
	{name: "utm_content", kind: kindText, text: func(ev *clicks.Event) string { return ev.UTMContent }},
	{name: "weight", kind: "UInt16", number: func(ev *clicks.Event) uint64 { return uint64(max(ev.Weight, 1)) }},
	{name: "node", kind: kindName, text: func(ev *clicks.Event) string { return ev.Node }},
	{name: "v", kind: "UInt8", number: func(*clicks.Event) uint64 { return eventVersion }},
	{name: "user_agent", kind: kindText, text: func(ev *clicks.Event) string { return ev.UserAgent }},
	{name: "ip", kind: kindText, text: func(ev *clicks.Event) string { return ev.IP }},
}

// addedColumns are those that tables of earlier builds do not have: addColumns gives them to these.
var addedColumns = []string{"user_agent", "ip"}

// eventVersion is the column v of every row: the version of the event schema.
const eventVersion = 1

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

// dimensionColumns names the column of every dimension. It is the only way from a query to an identifier.
var dimensionColumns = map[analytics.Dimension]string{
	analytics.Country: "country", analytics.Region: "region", analytics.City: "city", analytics.Device: "device",
	analytics.OS: "os", analytics.Browser: "browser", analytics.Language: "lang", analytics.Referrer: "ref_host",
	analytics.Source: "source", analytics.UTMSource: "utm_source", analytics.UTMMedium: "utm_medium",
	analytics.UTMCampaign: "utm_campaign", analytics.UTMTerm: "utm_term", analytics.UTMContent: "utm_content",
	analytics.Link: "link_id", analytics.Campaign: "campaign_id", analytics.Domain: "domain", analytics.Code: "code",
	analytics.Destination: "destination", analytics.Rule: "rule", analytics.Outcome: "outcome",
	analytics.Trigger: "trigger", analytics.Bot: "bot", analytics.BotName: "bot_name", analytics.ASN: "asn",
	analytics.OSVersion: "os_ver", analytics.BrowserVer: "browser_ver", analytics.Node: "node",
}

// notOfConversions are the columns of a click that its conversions do not have.
var notOfConversions = []string{"outcome", "visitor", "repeat", "weight", "v", "user_agent", "ip"}

// ownOfConversions are those that a conversion has of its own.
var ownOfConversions = []string{"ts_ms", "workspace_id"}

// conversionColumns are the columns that a conversion takes from its click: it has a place in each breakdown of clicks.
var conversionColumns = slices.DeleteFunc(slices.Clone(columns), func(c column) bool {
	return slices.Contains(notOfConversions, c.name) || slices.Contains(ownOfConversions, c.name)
})

// names returns the names of columns as a list.
func names(cols []column) string {
	list := make([]string, len(cols))
	for i, c := range cols {
		list[i] = c.name
	}
	return strings.Join(list, ", ")
}

// numberedNames returns an array of the names that a dimension has for its numbers.
func numberedNames(d analytics.Dimension, n int) string {
	list := make([]string, n)
	for i := range n {
		list[i] = literal(d.Text(uint64(i)))
	}
	return "[" + strings.Join(list, ", ") + "]"
}

// outcomes is how many outcomes have a name, bots how many classes of bots.
const (
	outcomes = int(clicks.OutcomePreview) + 1
	bots     = int(clicks.BotSelf) + 1
)

// createTables returns the statements of the first version of the schema.
func createTables(d *dialect) []string {
	defs := func(cols []column) string {
		var b strings.Builder
		for _, c := range cols {
			fmt.Fprintf(&b, ", %s %s", c.name, d.column(c.kind))
		}
		return b.String()
	}
	end := d.tableSettings()
	return append([]string{
		"CREATE TABLE IF NOT EXISTS clicks (event_id UUID, day Date" + defs(columns) +
			", ts " + aliasOf(d.timestamp()) +
			", outcome_name " + aliasOf(fmt.Sprintf("%s[outcome + 1]", numberedNames(analytics.Outcome, outcomes))) +
			", bot_class " + aliasOf(fmt.Sprintf("%s[bot + 1]", numberedNames(analytics.Bot, bots))) +
			// Replacing, so that OPTIMIZE ... FINAL of a partition takes out what was written twice (audit.go).
			") ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(day) ORDER BY (workspace_id, day, link_id, ts_ms, event_id) PRIMARY KEY (workspace_id, day, link_id)" + end,
		"CREATE TABLE IF NOT EXISTS ingest_offsets (source String, ver UInt64, position String, events UInt64) ENGINE = ReplacingMergeTree(ver) PARTITION BY tuple() ORDER BY source" + end,
		"CREATE TABLE IF NOT EXISTS erasures (at Int64, workspace_id UInt32, link_id UInt64, visitor UInt64) ENGINE = MergeTree PARTITION BY tuple() ORDER BY (workspace_id, at)" + end,
		"CREATE TABLE IF NOT EXISTS facts_state (name String, ver UInt64, epoch UInt64, shown UInt64, at UInt64, known UInt8) ENGINE = ReplacingMergeTree(ver) PARTITION BY tuple() ORDER BY name" + end,
		"CREATE TABLE IF NOT EXISTS link_tags (epoch UInt64, workspace_id UInt32, link_id UInt64, ver UInt64, tags Array(String)) ENGINE = ReplacingMergeTree(ver) PARTITION BY epoch ORDER BY (workspace_id, link_id)" + end,
		"CREATE TABLE IF NOT EXISTS campaign_tags (epoch UInt64, workspace_id UInt32, campaign_id UInt64, ver UInt64, tags Array(String)) ENGINE = ReplacingMergeTree(ver) PARTITION BY epoch ORDER BY (workspace_id, campaign_id)" + end,
		"CREATE TABLE IF NOT EXISTS conversions (epoch UInt64, workspace_id UInt32, conversion_id String, ver UInt64, kind UInt8, amount Int64, currency String, customer_id String, " +
			"click_id UUID, pending UInt8, day Date, ts_ms " + d.column(kindMillis) + defs(conversionColumns) + ", ts " + aliasOf(d.timestamp()) +
			") ENGINE = ReplacingMergeTree(ver) PARTITION BY epoch ORDER BY (workspace_id, conversion_id)" + end,
	}, createRollups(d)...)
}

func aliasOf(expr string) string { return "ALIAS " + expr }

// storable reports whether an event fits into the tables and into those of every other engine.
func storable(ev *clicks.Event) bool {
	return storedAt(ev.At) && ev.Workspace < 1<<31 && ev.Link < 1<<63 && ev.Campaign < 1<<63
}

// storedAt reports whether there may be a click of that time: in this century.
func storedAt(t terse.Millis) bool {
	const from, to = 946_684_800_000, 4_102_444_800_000
	return t >= from && t < to
}

// dayOf returns the UTC day of t in days since 1970.
func dayOf(t terse.Millis) int64 { return int64(t) / dayMillis }
