package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics/clickhouse"
	"github.com/terselink/terse/internal/auth"
	"github.com/terselink/terse/internal/bucket"
	"github.com/terselink/terse/internal/config"
	"github.com/terselink/terse/internal/edge"
	"github.com/terselink/terse/internal/geo"
	"github.com/terselink/terse/internal/redisbus"
	"github.com/terselink/terse/internal/store/dynamostore"
	"github.com/terselink/terse/internal/store/pgstore"
)

// Finding is a line of Doctor.
type Finding struct {
	What string `json:"what"`
	// State is ok, warning (it works and could be better) or problem (it does not work so).
	State string `json:"state"`
	Text  string `json:"text,omitempty"` // what is wrong, and what to do
}

// The states of a Finding.
const (
	FindingOK      = "ok"
	FindingWarning = "warning"
	FindingProblem = "problem"
)

// Doctor looks at everything that a server with the configuration would use, and changes none of
// it. A server may be running meanwhile.
func Doctor(ctx context.Context, cfg *config.Config) []Finding {
	d := &doctor{cfg: cfg}
	_, err := config.ReadServerInfo(cfg.Data)
	d.running = err == nil
	d.data()
	if cfg.Upstream != "" {
		d.addresses()
		d.places()
		d.upstream(ctx)
		return d.list
	}
	d.ownerKey()
	d.addresses()
	d.places()
	d.buckets(ctx)
	switch cfg.Store.Engine {
	case config.EngineDynamoDB:
		d.table(ctx)
	case config.EnginePostgres:
		p := cfg.Store.Postgres
		for _, f := range pgstore.Examine(ctx, pgstore.Options{
			URL: p.URL.Reveal(), ReplicaURL: p.ReplicaURL.Reveal(), MaxConns: p.MaxConns, Pooler: p.Pooler, StatementTimeout: p.StatementTimeout,
		}) {
			d.add("store: "+f.What, f.Bad, f.Text)
		}
	default:
		d.embedded()
	}
	d.redis(ctx)
	d.nodes(ctx)
	d.clickHouse(ctx)
	return d.list
}

type doctor struct {
	cfg     *config.Config
	running bool // a server left its note in the data folder
	list    []Finding
}

func (d *doctor) add(what string, bad bool, text string) {
	f := Finding{What: what, State: FindingOK, Text: text}
	if text != "" {
		f.State = FindingWarning
		if bad {
			f.State = FindingProblem
		}
	}
	d.list = append(d.list, f)
}

// clickHouse looks at the server that counts clicks, if there is one.
func (d *doctor) clickHouse(ctx context.Context) {
	c := d.cfg.Analytics
	if !c.Enabled || c.Engine != config.EngineClickHouse || d.cfg.ShipsClicks() {
		return
	}
	found, err := clickhouse.Check(ctx, clickhouse.Options{URL: c.ClickHouse.URL.Reveal(), QueryTimeout: c.ClickHouse.QueryTimeout, InsertTimeout: c.ClickHouse.QueryTimeout})
	if err != nil {
		d.add("analytics: clickhouse", true, err.Error())
		return
	}
	d.list = append(d.list, Finding{"analytics: clickhouse", FindingOK, found})
}

// upstream looks at the control plane of an edge node.
func (d *doctor) upstream(ctx context.Context) {
	client, err := edge.NewClient(d.cfg.Upstream, d.cfg.UpstreamKey.Reveal())
	if err != nil {
		d.add("upstream", true, err.Error())
		return
	}
	defer client.Close()
	found, err := client.Check(ctx)
	if err != nil {
		d.add("upstream", true, fmt.Sprintf("%v; until it does, this edge node redirects what it has in its copy and keeps its clicks", err))
		return
	}
	d.list = append(d.list, Finding{"upstream", FindingOK, found})
}

// redis looks at the server that carries messages between nodes, if there is one.
func (d *doctor) redis(ctx context.Context) {
	r := d.cfg.Redis
	if r.URL == "" {
		return
	}
	found, err := redisbus.Check(ctx, busOptions(d.cfg, "doctor"))
	if err != nil {
		// Nodes go on without it.
		d.add("redis", true, fmt.Sprintf("%v; until it does, nodes find the changes of others in the database, every %v", err, r.FeedEvery))
		return
	}
	d.list = append(d.list, Finding{"redis", FindingOK, found})
	if r.ClickStreams {
		d.clickStreams(ctx)
	}
	d.redisRights(ctx)
}

// redisRights tries what the settings want of the server beside messages.
func (d *doctor) redisRights(ctx context.Context) {
	r := d.cfg.Redis
	lacks, err := redisbus.CheckRights(ctx, busOptions(d.cfg, "doctor"), redisbus.Needs{Jobs: d.cfg.Has(config.RoleWorker), LinkCache: r.LinkCache, ClickStreams: r.ClickStreams, Rates: d.cfg.API.RequestsPerSecond > 0})
	if err != nil {
		d.add("redis: rights", false, fmt.Sprintf("they cannot be seen: %v", err))
		return
	}
	without := map[string]string{
		"jobs": "each node runs its jobs alone", "link cache": "links are asked of the database", "click streams": "clicks wait in the spools, or what was counted stays in Redis",
		"rates of keys": "each node counts the requests of a key alone",
	}
	for _, l := range lacks {
		text := l.Text
		if text != "" {
			text += fmt.Sprintf(" (docs/redis.md): %s until it may", without[l.Part])
		}
		d.add("redis: rights for "+l.Part, l.Part == "click streams", text)
	}
}

// clickStreams looks whether clicks can go through the server.
func (d *doctor) clickStreams(ctx context.Context) {
	const what = "redis: click streams"
	problem, advice, err := redisbus.CheckClicks(ctx, busOptions(d.cfg, "doctor"))
	switch {
	case err != nil:
		d.add(what, false, fmt.Sprintf("whether the server suits them cannot be seen: %v", err))
	case problem != "":
		d.add(what, true, problem)
	default:
		d.add(what, false, advice)
	}
}

// lowDisk is how much of a disk should be free, in percent.
const lowDisk = 10

func (d *doctor) data() {
	info, err := os.Stat(d.cfg.Data)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		parent := filepath.Dir(filepath.Clean(d.cfg.Data))
		if _, err := os.Stat(parent); err != nil {
			d.add("data folder", true, fmt.Sprintf("%s is not there and cannot be made: %v", d.cfg.Data, err))
			return
		}
		d.list = append(d.list, Finding{"data folder", FindingOK, d.cfg.Data + " is not there yet; the first start makes it"})
		return
	case err != nil:
		d.add("data folder", true, err.Error())
		return
	case info.Mode().Perm()&0o077 != 0:
		d.add("data folder", false, fmt.Sprintf("%s can be read by others (mode %v): chmod 700", d.cfg.Data, info.Mode().Perm()))
	default:
		d.add("data folder", true, writable(d.cfg.Data))
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.cfg.Data, &st); err != nil || st.Blocks == 0 {
		return
	}
	text := ""
	if free := st.Bavail * 100 / st.Blocks; free < lowDisk {
		text = fmt.Sprintf("%d %% of the disk of %s is free", free, d.cfg.Data)
	}
	d.add("disk", false, text)
}

// writable makes a file in the folder and removes it.
func writable(dir string) string {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return err.Error()
	}
	if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
		return err.Error()
	}
	return ""
}

func (d *doctor) ownerKey() {
	path := filepath.Join(d.cfg.Data, auth.OwnerFile)
	info, err := os.Stat(path)
	switch {
	case err != nil: // another may keep it, and before the first start there is none
	case info.Mode().Perm()&0o077 != 0:
		d.add("owner key", true, fmt.Sprintf("%s can be read by others (mode %v): chmod 600", path, info.Mode().Perm()))
	default:
		d.add("owner key", false, "")
	}
}

func (d *doctor) addresses() {
	for _, a := range [][2]string{{"redirect_addr", d.cfg.RedirectAddr}, {"control_addr", d.cfg.ControlAddr}} {
		if d.running { // then they are its own
			break
		}
		text := ""
		if ln, err := net.Listen("tcp", a[1]); err != nil {
			text = fmt.Sprintf("%s cannot be listened on: %v", a[1], err)
		} else {
			_ = ln.Close() // nothing came in
		}
		d.add(a[0], true, text)
	}
	host, _, err := net.SplitHostPort(d.cfg.ControlAddr)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip != nil && !ip.IsLoopback()) {
		d.add("control plane", false, d.cfg.ControlAddr+" may be reached from outside: keep it behind a firewall or a proxy with TLS")
	}
}

func (d *doctor) places() {
	if d.cfg.Geo.CityMMDB == "" && d.cfg.Geo.ASNMMDB == "" {
		return
	}
	_, err := geo.Open(geo.Options{CityPath: d.cfg.Geo.CityMMDB, ASNPath: d.cfg.Geo.ASNMMDB})
	text := ""
	if err != nil {
		text = err.Error()
	}
	d.add("places", true, text)
}

// buckets asks for the buckets of the configuration.
func (d *doctor) buckets(ctx context.Context) {
	ask := func(what string, s *config.S3) {
		o := bucketOf(s)
		o.Attempts, o.Timeout = 2, tableRetry
		b, err := bucket.Open(ctx, o)
		if err == nil {
			err = b.Ping(ctx)
			b.Close()
		}
		text := ""
		if err != nil {
			text = terse.Message(err) + "; " + what + " stay on the local disk until it does"
			if terse.ErrorCode(err) != terse.CodeUnavailable {
				text = terse.Message(err) + ": look at the name of the bucket, the region and the credentials"
			}
		}
		d.add("bucket of "+what, true, text)
	}
	if d.cfg.Record.Store == config.RecordS3 {
		ask("the record", &d.cfg.Record.S3)
	}
	if d.cfg.Exports.S3.Bucket != "" {
		ask("scheduled exports", &d.cfg.Exports.S3)
	}
}

// tableRetry is how long the doctor asks for a table that does not answer.
const tableRetry = 3 * time.Second

// table asks the DynamoDB table whether a server could use it.
func (d *doctor) table(ctx context.Context) {
	t := d.cfg.Store.DynamoDB
	cfg, err := dynamostore.LoadConfig(ctx, t.Region)
	if err != nil {
		d.add("store: table", true, fmt.Sprintf("table %s: %v", t.Table, err))
		return
	}
	for _, f := range dynamostore.Examine(ctx, dynamostore.Options{Table: t.Table, Config: cfg, Endpoint: t.Endpoint, RetryFor: tableRetry}) {
		d.add("store: "+f.What, f.Bad, f.Text)
	}
}

// embedded looks at the store in the data folder, which one process uses.
func (d *doctor) embedded() {
	entries, err := os.ReadDir(filepath.Join(d.cfg.Data, storeDir))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		d.list = append(d.list, Finding{"store", FindingOK, "not there yet; the first start makes it"})
	case err != nil:
		d.add("store", true, err.Error())
	default:
		text := "the folder holds no database"
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), "MANIFEST-") {
				text = ""
			}
		}
		d.add("store", true, text)
	}
}
