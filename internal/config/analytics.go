package config

import (
	"net/url"
	"strings"
)

// The analytics engines.
const (
	EngineDuckDB     = "duckdb"
	EngineClickHouse = "clickhouse"
)

// checkAnalytics refuses an engine without its address, and an address without its engine: the second would silently
// keep clicks in another place than the one that was named.
func (c *Config) checkAnalytics(refuse refuser) {
	const key = "analytics.clickhouse.url"
	a := &c.Analytics
	switch {
	case a.Engine != EngineClickHouse && a.ClickHouse.URL != "":
		refuse(key, "is set, but analytics.engine is %s; set analytics.engine to clickhouse or leave the address out", a.Engine)
	case a.Engine != EngineClickHouse:
	case a.ClickHouse.URL == "" && c.ShipsClicks(): // it never speaks to the server
	case a.ClickHouse.URL == "":
		refuse(key, "is missing; analytics.engine is clickhouse and wants clickhouse://user:password@host:9000/database")
	case !c.Clicks.Enabled:
		refuse("analytics.engine", "is clickhouse, but clicks.enabled is false: there is nothing to count")
	default:
		checkClickHouseURL(key, a.ClickHouse.URL, refuse)
	}
}

// checkClickHouseURL says what is wrong with an address without showing it: it may hold a password.
func checkClickHouseURL(key string, s Secret, refuse refuser) {
	u, err := url.Parse(s.Reveal())
	switch {
	case err != nil:
		refuse(key, "is not an address; special characters of a password are written as %%XX")
	case u.Scheme != "clickhouse":
		refuse(key, "begins with clickhouse:// and names the native port, not with %q", u.Scheme+":")
	case u.Hostname() == "":
		refuse(key, "names no host")
	case u.Port() == "":
		refuse(key, "names no port: the native one is 9000, with TLS 9440")
	case strings.Trim(u.Path, "/") == "":
		refuse(key, "names no database; it ends in host:9000/database")
	}
}
