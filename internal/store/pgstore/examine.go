package pgstore

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/sleep"
)

// Finding is something that an administrator should know about the database.
type Finding struct {
	What string // what was looked at
	Bad  bool   // it cannot work so; otherwise it could be better
	Text string // "" if all is well; else what is wrong and what to do
}

// Examine looks at the database without changing it, and says what would keep a store from
// working on it, or from working well.
func Examine(ctx context.Context, o Options) []Finding {
	o.setDefaults()
	ctx, cancel := context.WithTimeout(ctx, o.CallTimeout)
	defer cancel()
	var list []Finding
	add := func(what string, bad bool, format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		list = append(list, Finding{what, bad && text != "", text})
	}
	conn, err := examineConnect(ctx, &o, o.URL)
	if err != nil {
		add("database", true, "%s: %v", terse.Message(failure(ctx, "connect", err, false)), err)
		return list
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var version, conns, reserved int
	var standby, fsync, sync, mayCreate, hasSchema bool
	var wal int64
	var encoding string
	err = conn.QueryRow(ctx, `select current_setting('server_version_num')::int, pg_is_in_recovery(), current_setting('fsync')::bool,
		current_setting('synchronous_commit') <> 'off', current_setting('max_connections')::int, current_setting('superuser_reserved_connections')::int,
		pg_size_bytes(current_setting('max_wal_size')), getdatabaseencoding(),
		has_database_privilege(current_database(), 'create'), to_regnamespace('terse') is not null`).
		Scan(&version, &standby, &fsync, &sync, &conns, &reserved, &wal, &encoding, &mayCreate, &hasSchema)
	if err != nil {
		add("database", true, "it answers, but not what was asked: %v", err)
		return list
	}
	add("database", false, "")
	text := func(wrong bool, s string, args ...any) string {
		if !wrong {
			return ""
		}
		return fmt.Sprintf(s, args...)
	}
	add("version", true, "%s", text(version < 130000, "PostgreSQL %d is too old; 13 or later is needed", version/10000))
	add("primary", true, "%s", text(standby, "the server is a replica and takes no writes; store.postgres.url must lead to the primary"))
	add("encoding", true, "%s", text(encoding != "UTF8", "the database has the encoding %s; make one with the encoding UTF8", encoding))
	add("durability", true, "%s", text(!fsync || !sync, "fsync or synchronous_commit is off: links that were acknowledged can be lost"))
	add("connections", true, "%s", text(o.MaxConns+1 > conns-reserved, "store.postgres.max_conns is %d, the server allows %d to everybody", o.MaxConns, conns-reserved))
	add("max_wal_size", false, "%s", text(wal < 2<<30, "%d MB makes large bulk requests checkpoint all the time; 4GB or more is better", wal>>20))
	if !hasSchema {
		add("tables", true, "%s", text(!mayCreate, "there is no schema terse and the user may not make one: create schema terse authorization <user>"))
	} else {
		var have int64
		var lineage string
		err := conn.QueryRow(ctx, "select max(version_id) from terse.migrations").Scan(&have)
		if err == nil {
			err = conn.QueryRow(ctx, "select terse.lineage()").Scan(&lineage)
		}
		if err != nil {
			add("tables", true, "the schema terse is there, but its tables cannot be read: %v", err)
		} else {
			add("tables", false, "")
			add("failover", false, "%s", text(lineage == "", "the server does not tell its timeline: a failover that loses writes goes unnoticed; replicate synchronously"))
		}
	}
	var oldest float64
	if err := conn.QueryRow(ctx, `select coalesce(max(extract(epoch from now() - xact_start)), 0)::float8 from pg_stat_activity
		where backend_xid is not null and pid <> pg_backend_pid()`).Scan(&oldest); err == nil {
		add("transactions", false, "%s", text(oldest > feedHeldLong.Seconds(), "one that writes has been open for %v: it holds up changes for caches and analytics", time.Duration(oldest)*time.Second))
	}
	if o.ReplicaURL != "" {
		list = append(list, examineReplica(ctx, &o, conn, hasSchema))
	}
	return list
}

func examineConnect(ctx context.Context, o *Options, url string) (*pgx.Conn, error) {
	pool, err := newPool(o, url, nil)
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	return pgx.ConnectConfig(ctx, pool.Config().ConnConfig.Copy())
}

// examineWait is how long a replica gets to replay what the primary had when it was asked.
const examineWait = 5 * time.Second

// examineReplica compares the replica with the primary of the connection, which has Terse's tables if tables says so.
func examineReplica(ctx context.Context, o *Options, primary *pgx.Conn, tables bool) Finding {
	f := Finding{What: "replica"}
	conn, err := examineConnect(ctx, o, o.ReplicaURL)
	if err != nil {
		f.Text = fmt.Sprintf("it does not answer, so redirects read from the primary: %v", err)
		return f
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if !tables {
		return f
	}
	m, err := markOf(ctx, primary)
	if err != nil {
		f.Text = fmt.Sprintf("the primary does not say where its log ends, so redirects read from it: %v", err)
		return f
	}
	for {
		lsn, lineage, err := reachedBy(ctx, conn)
		switch {
		case err != nil:
			f.Text = fmt.Sprintf("it does not say how far it is behind, so redirects read from the primary: %v", err)
		case m.lineage != "" && lineage != "" && m.lineage != lineage:
			f.Text = fmt.Sprintf("it has another history (%s) than the primary (%s), so redirects read from the primary", lineage, m.lineage)
		case lsn >= m.lsn:
			return f
		case time.Since(m.at) > examineWait:
			f.Text = fmt.Sprintf("it did not reach in %v what the primary had: redirects read from the primary while it is more than %v behind", examineWait, maxLag)
		default:
			if sleep.For(ctx, 100*time.Millisecond) == nil {
				continue
			}
			f.Text = "it is behind, and there was no time to wait for it"
		}
		return f
	}
}
