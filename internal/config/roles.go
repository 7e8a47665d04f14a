package config

import "strings"

// roles is how many there are.
const roles = 3

// checkRoles refuses a part of the roles where the rest could not be run by another process, or would not find what this one has.
func (c *Config) checkRoles(refuse refuser) {
	if c.Upstream != "" {
		return // checkUpstream
	}
	var missing []string
	for _, role := range [roles]string{RoleRedirect, RoleControl, RoleWorker} {
		if !c.Has(role) {
			missing = append(missing, role)
		}
	}
	if len(missing) == 0 || len(missing)+len(c.Role) != roles { // the second: it is refused already
		return
	}
	without := strings.Join(missing, " and ")
	switch {
	case c.Store.Engine == EnginePebble:
		refuse("role", "%s is missing: store.engine pebble belongs to this process alone, so it runs every role; nodes with different roles share postgres or dynamodb", without)
	case c.Redis.URL == "":
		refuse("role", "%s is missing: other nodes would run it, and nodes tell each other of changes by way of redis.url, which is not set", without)
	}
	if c.Clicks.Enabled && c.Analytics.Enabled && c.Analytics.Engine == EngineDuckDB && c.Has(RoleRedirect) != c.Has(RoleControl) {
		refuse("analytics.engine", "duckdb counts the clicks of the process that redirects, for the control plane of the same process; nodes with different roles share clickhouse, or have analytics.enabled: false")
	}
}
