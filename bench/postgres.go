//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// postgres measures bulk requests of 1 M and of 100,000 rows on a server whose links are in PostgreSQL, and raw COPY of
// as many rows of 100 bytes beside it, in the same database. The settings of durability are the server's own.
func (b *bench) postgres(ctx context.Context) (err error) {
	address, done, err := b.startPostgres(ctx)
	if err != nil {
		b.report.note("PostgreSQL was SKIPPED: %v", err)
		return nil
	}
	defer func() { err = errors.Join(err, done()) }()
	rows, small := pick(b, uint64(1_000_000), 200_000), uint64(100_000)
	s, err := b.start(ctx, "postgres", "TERSE_STORE_ENGINE=postgres", "TERSE_STORE_POSTGRES_URL="+address)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.remove("postgres")) }()
	defer stop(s, &err)
	var rates, hundred, raw []float64
	for round := range pick(b, 3, 1) {
		body := ndjson.body(rows, shortDestination)
		took, err := sendBulk(ctx, s, &ndjson, bytes.NewReader(body), int64(len(body)), rows, nil)
		if err != nil {
			return err
		}
		rates = append(rates, float64(rows)/took.Seconds())
		body = ndjson.body(small, shortDestination)
		took, err = sendBulk(ctx, s, &ndjson, bytes.NewReader(body), int64(len(body)), small, nil)
		if err != nil {
			return err
		}
		hundred = append(hundred, took.Seconds())
		rate, err := rawCopy(ctx, address, rows)
		if err != nil {
			return err
		}
		raw = append(raw, rate)
		b.say("postgres: round %d, %s, 100,000 links in %.3f s, raw COPY %s", round+1, amount(rates[round], "links/s"), took.Seconds(), amount(rate, "rows/s"))
	}
	b.report.measured("postgres", median(rates), "raw COPY %s", amount(median(raw), "rows/s"))
	b.report.measured("postgres100k", median(hundred), "%s", amount(float64(small)/median(hundred), "links/s"))
	b.report.detail("postgres", fmt.Sprintf("%d rows over one request", rows), "%s median, %s best of %d", amount(median(rates), "links/s"), amount(slices.Max(rates), "links/s"), len(rates))
	return nil
}

// startPostgres starts a server of its own with scripts/engines and returns the address of a new database.
func (b *bench) startPostgres(ctx context.Context) (address string, done func() error, err error) {
	server, done, err := b.startEngine(ctx, "postgres")
	if err != nil {
		return "", nil, err
	}
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		return "", nil, errors.Join(err, done())
	}
	_, err = conn.Exec(ctx, "create database bench")
	if err = errors.Join(err, conn.Close(ctx)); err != nil {
		return "", nil, errors.Join(err, done())
	}
	return strings.TrimSuffix(server, "/postgres") + "/bench", done, nil
}

// startEngine starts a server of its own with scripts/engines and returns its address.
func (b *bench) startEngine(ctx context.Context, engine string) (address string, done func() error, err error) {
	if err := os.Chmod(b.dir, 0o711); err != nil { // the server runs as somebody without rights
		return "", nil, err
	}
	engines := func(command string) (string, error) {
		cmd := exec.CommandContext(context.WithoutCancel(ctx), "scripts/engines", command, engine)
		cmd.Env = append(os.Environ(), "ENGINES_DIR="+filepath.Join(b.dir, "engines-"+engine))
		var errs bytes.Buffer
		cmd.Stderr = &errs
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("scripts/engines %s: %w: %s", command, err, bytes.TrimSpace(errs.Bytes()))
		}
		return string(out), err
	}
	done = func() error { _, err := engines("stop"); return err }
	if _, err := engines("start"); err != nil {
		return "", nil, errors.Join(err, done())
	}
	out, err := engines("env")
	_, address, ok := strings.Cut(strings.TrimSpace(out), "=")
	if err != nil || !ok {
		return "", nil, errors.Join(fmt.Errorf("no %s: %q", engine, out), err, done())
	}
	return address, done, nil
}

// rawCopy copies rows of a number and 100 bytes into a table with nothing but a primary key, as one transaction,
// and returns the rate. The rows are made before the clock starts.
func rawCopy(ctx context.Context, address string, rows uint64) (rate float64, err error) {
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close(ctx)) }()
	if _, err := conn.Exec(ctx, "drop table if exists raw_copy; create table raw_copy (number bigint primary key, destination text not null)"); err != nil {
		return 0, err
	}
	body := []byte("PGCOPY\n\xff\r\n\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	for i := range rows {
		body = append(body, 0, 2, 0, 0, 0, 8, byte(i>>56), byte(i>>48), byte(i>>40), byte(i>>32), byte(i>>24), byte(i>>16), byte(i>>8), byte(i), 0, 0, 0, longDestination)
		body = appendDestination(body, i, longDestination)
	}
	body = append(body, 0xff, 0xff)
	began := time.Now()
	if _, err := conn.PgConn().CopyFrom(ctx, bytes.NewReader(body), "copy raw_copy from stdin with (format binary)"); err != nil {
		return 0, err
	}
	rate = float64(rows) / time.Since(began).Seconds()
	_, err = conn.Exec(ctx, "drop table raw_copy")
	return rate, err
}
