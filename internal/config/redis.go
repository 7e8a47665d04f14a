package config

import (
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// redisPrefix is what names of channels and keys may begin with.
var redisPrefix = regexp.MustCompile(`^[a-zA-Z0-9_.:-]{1,64}$`)

// checkRedis refuses an address that cannot work, and one that would do nothing.
func (c *Config) checkRedis(refuse refuser) {
	if !redisPrefix.MatchString(c.Redis.Prefix) {
		refuse("redis.prefix", "%q is not 1 to 64 letters, digits, _, ., : and -", c.Redis.Prefix)
	}
	if c.Redis.LinkCache && c.Store.Postgres.ReplicaURL != "" {
		refuse("redis.link_cache", "is set beside store.postgres.replica_url: what a replica says may be old, and must not be kept for others")
	}
	c.checkClickStreams(refuse)
	if c.Redis.URL == "" {
		if c.Redis.LinkCache {
			refuse("redis.link_cache", "is set without redis.url")
		}
		return
	}
	if c.Store.Engine == EnginePebble {
		refuse("redis.url", "is set, but store.engine is %s, which one process uses alone; several nodes share a database: postgres or dynamodb", c.Store.Engine)
	}
	// The address is not shown: it may hold a password.
	u, err := url.Parse(c.Redis.URL.Reveal())
	switch {
	case err != nil:
		refuse("redis.url", "is not an address; special characters of a password are written as %%XX")
		return
	case u.Scheme != "redis" && u.Scheme != "rediss":
		refuse("redis.url", "begins with redis:// or rediss://, not with %q", u.Scheme+":")
		return
	case u.Hostname() == "":
		refuse("redis.url", "names no host")
	}
	if db := strings.Trim(u.Path, "/"); db != "" {
		if n, err := strconv.Atoi(db); err != nil || n < 0 {
			refuse("redis.url", "ends in the number of a database, not in %q", db)
		}
	}
}

// checkClickStreams refuses a way for clicks that leads nowhere.
func (c *Config) checkClickStreams(refuse refuser) {
	const key = "redis.click_streams"
	switch a := &c.Analytics; {
	case !c.Redis.ClickStreams:
	case c.Redis.URL == "":
		refuse(key, "is set without redis.url, through which clicks would go")
	case !c.Clicks.Enabled:
		refuse(key, "is set, but clicks.enabled is false: there is nothing to send")
	case !a.Enabled:
		refuse(key, "is set, but analytics.enabled is false: nobody would insert the clicks")
	case a.Engine != EngineClickHouse:
		refuse(key, "is set, but analytics.engine is %s: clicks go through Redis to the nodes that insert them into clickhouse", a.Engine)
	}
}
