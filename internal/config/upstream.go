package config

import (
	"net/url"
	"slices"
)

// checkUpstream refuses what an edge node cannot be beside one.
func (c *Config) checkUpstream(refuse refuser) {
	if c.Upstream == "" {
		if c.UpstreamKey != "" {
			refuse("upstream_key", "is set, but upstream is not: it is the key of an edge node for its control plane")
		}
		return
	}
	u, err := url.Parse(c.Upstream)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		refuse("upstream", "is not an address such as https://control.example.com")
	}
	if c.UpstreamKey == "" {
		refuse("upstream_key", "is missing; upstream wants a key of scope edge:use, which its owner makes")
	}
	if !slices.Equal(c.Role, []string{RoleRedirect}) {
		refuse("role", "an edge node (upstream) has the role redirect and no other; its control plane does the rest")
	}
	if c.Store.Engine != EnginePebble {
		refuse("store.engine", "is %s, but an edge node (upstream) has no store: links are those of its control plane", c.Store.Engine)
	}
	if c.Redis.URL != "" {
		refuse("redis.url", "is set, but an edge node (upstream) hears of changes from its control plane alone")
	}
	if c.Analytics.Engine != EngineDuckDB {
		refuse("analytics.engine", "is %s, but an edge node (upstream) sends its clicks to its control plane, which counts them", c.Analytics.Engine)
	}
}
