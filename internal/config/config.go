// Package config is the configuration of a Terse server: one documented struct,
// read from defaults, a YAML file, the environment and flags, each of which
// overrides the one before.
//
// It starts nothing and opens no data. What it promises: a key that it does not
// know is an error in every layer, a value that cannot work is refused with the
// reason, and a secret never leaves it unless Reveal is called.
// docs/configuration.md is generated from the struct (docs.go).
package config

import (
	"slices"
	"time"
)

// Config is everything that can be set about a server. Every field has its key,
// its meaning and its limits in tags, so that the flags of "terse serve", the
// variables of the environment and docs/configuration.md cannot drift from it:
//
//	key    its last part; a struct is a section, and sections nest with dots
//	doc    one sentence for people
//	range  the least and the largest value that are accepted
//	oneof  the accepted values
//	show   the default in words, where it depends on the machine
type Config struct {
	Data            string        `key:"data" doc:"Folder of everything that is kept: links, clicks, keys. Made with mode 0700 if it is missing."`
	RedirectAddr    string        `key:"redirect_addr" doc:"Address that visitors reach."`
	ControlAddr     string        `key:"control_addr" doc:"Address of the API, health and metrics; without the role control of the latter two alone. Keep it away from the public."`
	NodeName        string        `key:"node_name" doc:"Name of this process in the list of nodes; empty: that of the machine."`
	NodeURL         string        `key:"node_url" doc:"URL at which other nodes reach the API of this one, such as http://10.0.0.5:8081, to pass on requests for its jobs and files: docs/cluster.md. Empty: control_addr, if that names an address of a network; nowhere, if it is loopback or every interface."`
	Role            []string      `key:"role" oneof:"redirect,control,worker" doc:"Parts that this process runs, if several share a store: docs/cluster.md. What is not named is not opened."`
	BootstrapKey    Secret        `key:"bootstrap_key" doc:"The owner key, 32 to 128 printable characters without spaces. Without it the first start generates one. It wins over a key that an earlier start made."`
	Upstream        string        `key:"upstream" doc:"URL of the control plane that this process is an edge node of: docs/edge.md. It then needs no store, and its role is redirect."`
	UpstreamKey     Secret        `key:"upstream_key" doc:"API key of scope edge:use for upstream."`
	UpstreamBytes   Bytes         `key:"upstream_bytes" range:"1MiB..1TiB" doc:"What an edge node keeps of the links of upstream on disk, about; those that were not used for longest go first."`
	TrustedProxies  []string      `key:"trusted_proxies" doc:"Networks (CIDR) or addresses of the proxies whose X-Forwarded-For and Forwarded headers are believed."`
	ShutdownTimeout time.Duration `key:"shutdown_timeout" range:"1s..10m" doc:"Longest time that an orderly stop may take; then the process exits all the same."`

	Log       Log       `key:"log"`
	Cache     Cache     `key:"cache"`
	Store     Store     `key:"store"`
	Bulk      Bulk      `key:"bulk"`
	API       API       `key:"api"`
	Redirect  Redirect  `key:"redirect"`
	Clicks    Clicks    `key:"clicks"`
	Geo       Geo       `key:"geo"`
	Analytics Analytics `key:"analytics"`
	Record    Record    `key:"record"`
	Exports   Exports   `key:"exports"`
	Jobs      Jobs      `key:"jobs"`
	Outbound  Outbound  `key:"outbound"`
	Redis     Redis     `key:"redis"`
}

// Log says how the server logs.
type Log struct {
	Level  string `key:"level" oneof:"debug,info,warn,error" doc:"Least level that is logged."`
	Format string `key:"format" oneof:"auto,text,json" doc:"Form of a log line. auto is text on a terminal and JSON elsewhere."`
}

// Cache bounds the links that are kept in memory, ready to redirect.
type Cache struct {
	Bytes     Bytes `key:"bytes" range:"1MiB..1TiB" show:"the smaller of 1GiB and 1/8 of memory" doc:"Memory for links that are ready to redirect."`
	WarmBytes Bytes `key:"warm_bytes" range:"0..1GiB" doc:"Size of the file that keeps the hottest links, for a start while the store cannot be reached; 0: no file."`
}

// Store says where links and documents are kept, and tunes it.
type Store struct {
	Engine     string   `key:"engine" oneof:"pebble,postgres,dynamodb" doc:"Where links are kept. pebble: in the data folder, by this process. postgres: in the tables of a PostgreSQL database. dynamodb: in a DynamoDB table."`
	CacheBytes Bytes    `key:"cache_bytes" range:"1MiB..1TiB" show:"the smaller of 256MiB and 1/16 of memory" doc:"Memory for blocks of the embedded store."`
	Postgres   Postgres `key:"postgres"`
	DynamoDB   DynamoDB `key:"dynamodb"`
}

// DynamoDB says which table to use. Credentials come from where AWS programs find them.
type DynamoDB struct {
	Table          string        `key:"table" doc:"Name of the table, which terse dynamodb create-table makes."`
	Region         string        `key:"region" doc:"AWS region; empty: where AWS programs find it (AWS_REGION, shared files, the machine)."`
	Endpoint       string        `key:"endpoint" doc:"URL of another endpoint than the region's: a private one, or DynamoDB Local."`
	MaxConcurrency int           `key:"max_concurrency" range:"1..10000" doc:"Requests under way at once at most; how many below that the table takes is found out while it runs."`
	KeepExpired    time.Duration `key:"keep_expired" range:"0s..87600h" doc:"How long a link stays after its end before the table removes it: until then a visit gets 410, after that 404."`
}

// Postgres says how to reach a PostgreSQL database.
type Postgres struct {
	URL              Secret        `key:"url" doc:"The primary: postgres://user:password@host:port/database?sslmode=verify-full. The user owns the schema terse, or may make it."`
	ReplicaURL       Secret        `key:"replica_url" doc:"A streaming replica that redirects read from while it is at most 10 s behind; what it does not have, or has in an older version, is read from the primary."`
	MaxConns         int           `key:"max_conns" range:"2..1000" doc:"Connections to the primary at most, and again to the replica."`
	Pooler           bool          `key:"pooler" doc:"The address is that of a pooler in transaction mode, such as PgBouncer: no prepared statements, no settings on connections."`
	StatementTimeout time.Duration `key:"statement_timeout" range:"100ms..10m" doc:"Time after which the database ends a statement."`
}

// Engines of the store.
const (
	EnginePebble   = "pebble"
	EnginePostgres = "postgres"
	EngineDynamoDB = "dynamodb"
)

// Bulk bounds bulk requests.
type Bulk struct {
	MaxBytes Bytes `key:"max_bytes" range:"1MiB..1TiB" doc:"Largest body of one bulk request, after decompression."`
}

// API bounds what a client may ask of the control plane.
type API struct {
	RequestsPerSecond int `key:"requests_per_second" range:"0..1000000" doc:"Requests that each key may make in the long run, over all nodes; more get 429. 0 is no limit. A bulk request is one request."`
	RequestBurst      int `key:"request_burst" range:"1..1000000" doc:"Requests that a key may make at once, after a pause."`
}

// Redirect tunes the redirect plane.
type Redirect struct {
	MaxConnsPerIP int           `key:"max_conns_per_ip" range:"0..1000000" doc:"Open connections allowed for one peer address; 0 is no limit. Behind a proxy every visitor has the proxy's address."`
	CountryHeader string        `key:"country_header" doc:"Header in which trusted_proxies tell the country of a visitor, such as CF-IPCountry. It comes before what the address says, for clicks and rules. Only for a proxy that replaces what visitors send in it."`
	ProxyProtocol bool          `key:"proxy_protocol" doc:"Connections of trusted_proxies, and no others, begin with a header of the PROXY protocol, version 1 or 2, that says who the client is."`
	DrainWait     time.Duration `key:"drain_wait" range:"0s..5m" doc:"Time between not ready and closing the listeners, so that a load balancer can notice."`
}

// Clicks tunes how clicks are recorded.
type Clicks struct {
	Enabled      bool          `key:"enabled" doc:"Record clicks at all."`
	Durability   string        `key:"durability" oneof:"interval,batch" doc:"interval: written within milliseconds, synced every sync_every. batch: a redirect is answered after its click is synced."`
	BufferBytes  Bytes         `key:"buffer_bytes" range:"64KiB..4GiB" doc:"Memory for clicks on their way to the disk. When it is full clicks are dropped and counted; redirects never wait."`
	SyncEvery    time.Duration `key:"sync_every" range:"10ms..1m" doc:"Time between syncs of the spool: what a loss of power can cost with durability interval."`
	MaxBytes     Bytes         `key:"max_bytes" range:"64MiB..100TiB" doc:"Largest size of the spool on disk. From 80 % of it bots are dropped first, then clicks are sampled."`
	KeepSegments time.Duration `key:"keep_segments" range:"0s..87600h" doc:"Time that spool segments are kept after the analytics engine has recorded them, so that it can be rebuilt."`
	HonourOptOut bool          `key:"honour_opt_out" doc:"Who asks not to be followed (Sec-GPC: 1 or DNT: 1) is counted as a person, but has no visitor, and nothing that a workspace keeps of visitors is kept. false counts them like anybody."`
	ReferrerPath bool          `key:"referrer_path" doc:"Clicks have the path of the page that led to them, without its query, beside its host. Paths can say who somebody is or what they read."`
	HostingASNs  []string      `key:"hosting_asns" doc:"Networks (AS numbers, with or without AS) that sell servers, beside those that are known: a click from one without Accept-Language counts as a suspected scanner. It takes geo.asn_mmdb."`
}

// Geo names databases of places that the user brings.
type Geo struct {
	CityMMDB string `key:"city_mmdb" doc:"MaxMind-format file for regions and cities. Countries need none: a database is built in."`
	ASNMMDB  string `key:"asn_mmdb" doc:"MaxMind-format file for networks."`
	CityURL  Secret `key:"city_url" doc:"Where terse geo update gets geo.city_mmdb: an https URL of an .mmdb file, also with gzip or in a tar.gz archive. It may hold a licence key, or user and password."`
	ASNURL   Secret `key:"asn_url" doc:"The same for geo.asn_mmdb."`
}

// Analytics chooses the analytics engine and tunes it.
type Analytics struct {
	Enabled     bool     `key:"enabled" doc:"Run an analytics engine. Without it clicks are spooled and not counted."`
	Engine      string   `key:"engine" oneof:"duckdb,clickhouse" doc:"Where clicks are kept and counted. duckdb: in the data folder, by a process of its own. clickhouse: in the tables of a ClickHouse server."`
	MemoryLimit Bytes    `key:"memory_limit" range:"64MiB..1TiB" show:"the smaller of 2GiB and 1/4 of memory" doc:"Memory of DuckDB's buffers. It takes some more for itself."`
	Threads     int      `key:"threads" range:"1..256" doc:"Threads of DuckDB."`
	RawDays     int      `key:"raw_days" range:"0..36500" doc:"Days that clicks are kept one by one; 0 is for ever. Their numbers stay; filters over several dimensions and exports need the clicks."`
	BotDays     int      `key:"bot_days" range:"0..36500" doc:"Days that clicks of bots are kept one by one; 0 is as long as the others."`
	SweepLinks  int      `key:"sweep_links" range:"0..1000" doc:"So many links of a workspace within two seconds make a visitor a suspected scanner; 0 is never."`
	RollupDays  int      `key:"rollup_days" range:"0..36500" doc:"Days that numbers are kept; 0 is for ever. Totals of links stay."`
	Retention   []string `key:"retention" doc:"Workspaces with other terms, each as ID=RAW_DAYS or ID=RAW_DAYS/BOT_DAYS."`

	ClickHouse ClickHouse `key:"clickhouse"`
}

// ClickHouse says how to reach a ClickHouse server.
type ClickHouse struct {
	URL           Secret        `key:"url" doc:"The server, over its native protocol: clickhouse://user:password@host:9000/terse, with TLS port 9440 and ?secure=true. The database and its tables are made by the first start."`
	MaxConns      int           `key:"max_conns" range:"3..1000" doc:"Connections to the server at most, for questions. There are up to 4 more for clicks and maintenance."`
	QueryTimeout  time.Duration `key:"query_timeout" range:"100ms..10m" doc:"Time after which a question is given up."`
	InsertTimeout time.Duration `key:"insert_timeout" range:"1s..10m" doc:"Time after which an insert is given up and tried again."`
	InsertRows    int           `key:"insert_rows" range:"1000..1000000" doc:"Clicks of an insert at most; they are held in memory, at about 1 KiB each."`
}

// Record says where the long-term copy of clicks is kept beside the data folder.
type Record struct {
	Store string `key:"store" oneof:"local,s3" doc:"Where the record of clicks is kept. local: in the data folder. s3: there, and in a bucket of S3, from which an empty data folder begins again."`
	S3    S3     `key:"s3"`
}

// Exports says where scheduled exports go.
type Exports struct {
	S3 S3 `key:"s3"`
}

// S3 is a place in a bucket. Without a key pair credentials come from where AWS programs find them.
type S3 struct {
	Bucket          string `key:"bucket" doc:"Name of the bucket, which must exist."`
	Prefix          string `key:"prefix" doc:"What the names of all objects begin with, such as terse/production."`
	Region          string `key:"region" doc:"AWS region; empty: where AWS programs find it (AWS_REGION, shared files, the machine), or us-east-1 with an endpoint."`
	Endpoint        string `key:"endpoint" doc:"URL of a server that is not AWS, such as https://minio.example.com."`
	PathStyle       bool   `key:"path_style" doc:"The bucket is the first part of the path and not of the host: what most servers other than AWS want."`
	AccessKeyID     string `key:"access_key_id" doc:"Access key; empty: where AWS programs find their credentials (environment, shared files, the role of the machine)."`
	SecretAccessKey Secret `key:"secret_access_key" doc:"The secret of the access key."`
}

// Stores of the record.
const (
	RecordLocal = "local"
	RecordS3    = "s3"
)

// Jobs tunes work that goes on after its request has ended.
type Jobs struct {
	Workers        int   `key:"workers" range:"1..64" doc:"Jobs that run at the same time."`
	MaxUploadBytes Bytes `key:"max_upload_bytes" range:"1MiB..10TiB" doc:"Largest file that can be uploaded for a job."`
}

// Outbound guards requests to URLs that customers choose, such as the callbacks of jobs.
type Outbound struct {
	Allow []string `key:"allow" doc:"Networks (CIDR) or addresses that may be reached although they are not public."`
	Ports []string `key:"ports" doc:"Ports that may be reached."`
}

// Redis carries messages between the nodes that share a store. Nothing is kept in it that is needed.
type Redis struct {
	URL       Secret        `key:"url" doc:"Server through which nodes that share a database tell each other at once what they have written: redis://user:password@host:6379/0, with TLS rediss://. Every node of the database names the same; without it one node may use the database."`
	Prefix    string        `key:"prefix" doc:"What names in Redis begin with. Instances with databases of their own that share a server need different ones."`
	FeedEvery time.Duration `key:"feed_every" range:"100ms..1m" doc:"How often a node looks in the database for what others have written: what a message that is lost costs at most."`
	// The second level of the cache of links.
	LinkCache     bool          `key:"link_cache" doc:"Keep links that a node has read in Redis, so that a node that has just started asks the database for fewer. Never needed: a look-up waits redis.link_cache_wait for it at most."`
	LinkCacheWait time.Duration `key:"link_cache_wait" range:"1ms..10s" doc:"How long a visit that needs a link waits for Redis before it asks the database."`
	LinkCacheAge  time.Duration `key:"link_cache_age" range:"1s..24h" doc:"How long a link stays there, if it does not expire or change before."`
	// Clicks on their way to ClickHouse.
	ClickStreams bool `key:"click_streams" doc:"Nodes that redirect send their clicks through Redis, and one node with the role worker at a time inserts those of all into ClickHouse: fewer and larger inserts, and nodes with the role redirect alone need not reach ClickHouse. At least one node has the role worker."`
}

// Roles of a process.
const (
	RoleRedirect = "redirect"
	RoleControl  = "control"
	RoleWorker   = "worker"
)

// Has reports whether the process runs the role.
func (c *Config) Has(role string) bool { return slices.Contains(c.Role, role) }

// ShipsClicks reports whether the process sends clicks through Redis and leaves counting them to others: it has no use for an
// analytics engine.
func (c *Config) ShipsClicks() bool {
	return c.Redis.ClickStreams && len(c.Role) == 1 && c.Has(RoleRedirect)
}

// Default returns the configuration of "terse serve" without any setting on a
// machine with that much memory, in bytes.
func Default(memory int64) *Config {
	return &Config{
		Data:          "./data",
		RedirectAddr:  "127.0.0.1:8080",
		ControlAddr:   "127.0.0.1:8081",
		Role:          []string{RoleRedirect, RoleControl, RoleWorker},
		UpstreamBytes: 4 * GiB,
		Log:           Log{Level: "info", Format: "auto"},
		Cache:         Cache{Bytes: share(memory, 8, GiB), WarmBytes: 16 * MiB},
		Store: Store{
			Engine:     EnginePebble,
			CacheBytes: share(memory, 16, 256*MiB),
			Postgres:   Postgres{MaxConns: 16, StatementTimeout: 10 * time.Second},
			DynamoDB:   DynamoDB{Table: "terse", MaxConcurrency: 256, KeepExpired: 90 * 24 * time.Hour},
		},
		Bulk:     Bulk{MaxBytes: 4 * GiB},
		API:      API{RequestBurst: 100},
		Redirect: Redirect{DrainWait: time.Second},
		Clicks: Clicks{
			Enabled:      true,
			Durability:   "interval",
			BufferBytes:  64 * MiB,
			SyncEvery:    time.Second,
			MaxBytes:     10 * GiB,
			KeepSegments: 7 * 24 * time.Hour,
			HonourOptOut: true,
		},
		Analytics: Analytics{
			Enabled: true, Engine: EngineDuckDB, MemoryLimit: share(memory, 4, 2*GiB), Threads: 2, RawDays: 400, BotDays: 30, SweepLinks: 5,
			ClickHouse: ClickHouse{MaxConns: 8, QueryTimeout: 10 * time.Second, InsertTimeout: time.Minute, InsertRows: 32_768},
		},
		Record:          Record{Store: RecordLocal},
		Jobs:            Jobs{Workers: 1, MaxUploadBytes: 16 * GiB},
		Redis:           Redis{Prefix: "terse", FeedEvery: 500 * time.Millisecond, LinkCacheAge: time.Hour, LinkCacheWait: 5 * time.Millisecond},
		Outbound:        Outbound{Ports: []string{"80", "443"}},
		ShutdownTimeout: 15 * time.Second,
	}
}

// share returns 1/part of memory in whole MiB, at most limit and at least 64 MiB.
func share(memory, part int64, limit Bytes) Bytes {
	return max(min(Bytes(memory/part)/MiB*MiB, limit), 64*MiB)
}
