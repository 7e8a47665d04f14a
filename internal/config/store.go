package config

import (
	"net/url"
	"regexp"
	"strings"
)

// checkStore refuses an engine without its address, and an address without its engine: the
// second would silently keep links in another place than the one that was named.
func (c *Config) checkStore(refuse refuser) {
	c.checkDynamoDB(refuse)
	p := &c.Store.Postgres
	if c.Store.Engine != EnginePostgres {
		if p.URL != "" {
			refuse("store.postgres.url", "is set, but store.engine is %s; set store.engine to postgres or leave the address out", c.Store.Engine)
		}
		if p.ReplicaURL != "" {
			refuse("store.postgres.replica_url", "is set, but store.engine is %s", c.Store.Engine)
		}
		return
	}
	if p.URL == "" {
		refuse("store.postgres.url", "is missing; store.engine is postgres and wants postgres://user:password@host:port/database")
	} else {
		checkPostgresURL("store.postgres.url", p.URL, refuse)
	}
	if p.ReplicaURL != "" {
		checkPostgresURL("store.postgres.replica_url", p.ReplicaURL, refuse)
	}
}

// tableName is what DynamoDB allows.
var tableName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{3,255}$`)

func (c *Config) checkDynamoDB(refuse refuser) {
	d := &c.Store.DynamoDB
	if c.Store.Engine != EngineDynamoDB {
		if d.Endpoint != "" {
			refuse("store.dynamodb.endpoint", "is set, but store.engine is %s; set store.engine to dynamodb or leave the endpoint out", c.Store.Engine)
		}
		if d.Region != "" {
			refuse("store.dynamodb.region", "is set, but store.engine is %s", c.Store.Engine)
		}
		return
	}
	if !tableName.MatchString(d.Table) {
		refuse("store.dynamodb.table", "%q is not the name of a table: 3 to 255 letters, digits, _, . and -", d.Table)
	}
	if d.Endpoint != "" {
		u, err := url.Parse(d.Endpoint)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			refuse("store.dynamodb.endpoint", "%q is not a URL such as https://dynamodb.eu-central-1.amazonaws.com", d.Endpoint)
		}
	}
}

// checkPostgresURL says what is wrong with an address without showing it: it may hold a password.
func checkPostgresURL(key string, s Secret, refuse refuser) {
	u, err := url.Parse(s.Reveal())
	switch {
	case err != nil:
		refuse(key, "is not an address; special characters of a password are written as %%XX")
	case u.Scheme != "postgres" && u.Scheme != "postgresql":
		refuse(key, "begins with postgres://, not with %q", u.Scheme+":")
	case u.Host == "":
		refuse(key, "names no host")
	case strings.Trim(u.Path, "/") == "":
		refuse(key, "names no database; it ends in host:port/database")
	}
}
