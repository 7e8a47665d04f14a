//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/terselink/terse/e2e/proc"
)

// bulkHTTP sends long bodies with few copies.
var bulkHTTP = &http.Client{Transport: &http.Transport{
	DisableCompression: true, WriteBufferSize: 256 << 10, ReadBufferSize: 256 << 10, MaxIdleConnsPerHost: 4,
}}

// sendBulk sends one bulk request, gives the answer to take as it comes in, and returns the time from the
// first byte sent to the last one received. It returns an error unless every row made a link.
func sendBulk(ctx context.Context, s *proc.Server, f *form, body io.Reader, size int64, rows uint64, take func([]byte)) (time.Duration, error) {
	return sendRows(ctx, s, "/api/v1/links/bulk", f, body, size, rows, take)
}

// sendRows is sendBulk for any operation that is answered as bulk requests are.
func sendRows(ctx context.Context, s *proc.Server, path string, f *form, body io.Reader, size int64, rows uint64, take func([]byte)) (time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, "POST", s.URL(path), body)
	if err != nil {
		return 0, err
	}
	req.ContentLength = size
	req.Header.Set("Authorization", "Bearer "+proc.Key)
	req.Header.Set("Content-Type", f.contentType)
	req.Header.Set("Accept", ndjson.contentType)
	began := time.Now()
	resp, err := bulkHTTP.Do(req)
	if err != nil {
		return 0, fmt.Errorf("bulk: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		b, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
		return 0, errors.Join(fmt.Errorf("bulk: status %d: %s", resp.StatusCode, b), err)
	}
	buf := make([]byte, 256<<10)
	var end []byte // of the answer
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			end = append(end[max(0, len(end)-256):], buf[max(0, n-256):n]...)
			if take != nil {
				take(buf[:n])
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("bulk: read the answer: %w", err)
		}
	}
	took := time.Since(began)
	if want := fmt.Sprintf(`{"done":true,"created":%d,"reused":0,"failed":0}`+"\n", rows); !bytes.HasSuffix(end, []byte(want)) {
		return 0, fmt.Errorf("bulk: the answer ends with %q, want %q", end[max(0, len(end)-200):], want)
	}
	return took, nil
}

// bulk measures bulk requests of 1 M rows in every form, of 100,000 rows, and raw Pebble beside them. Every
// round uses the same server, whose store grows as it would in use.
func (b *bench) bulk(ctx context.Context) (err error) {
	rows := pick(b, uint64(1_000_000), 200_000)
	small := uint64(100_000)
	rounds := pick(b, 5, 2)
	s, err := b.start(ctx, "bulk")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.remove("bulk")) }()
	defer stop(s, &err)

	rates := map[string][]float64{}
	var hundred, raw []float64
	forms := []*form{&ndjson, &csvForm, &jsonArray}
	var processor float64
	for round := range rounds {
		for _, f := range forms {
			if round > 0 && f != &ndjson && round >= pick(b, 3, 1) {
				continue
			}
			body := f.body(rows, shortDestination)
			before, err := proc.ProcessorSeconds(s.PID())
			if err != nil {
				return err
			}
			took, err := sendBulk(ctx, s, f, bytes.NewReader(body), int64(len(body)), rows, nil)
			if err != nil {
				return err
			}
			after, err := proc.ProcessorSeconds(s.PID())
			if err != nil {
				return err
			}
			if f == &ndjson {
				processor = (after - before) / took.Seconds()
			}
			rate := float64(rows) / took.Seconds()
			rates[f.name] = append(rates[f.name], rate)
			b.say("bulk: round %d, %s: %s (%.0f bytes a row)", round+1, f.name, amount(rate, "links/s"), float64(len(body))/float64(rows))
		}
		body := ndjson.body(small, shortDestination)
		took, err := sendBulk(ctx, s, &ndjson, bytes.NewReader(body), int64(len(body)), small, nil)
		if err != nil {
			return err
		}
		hundred = append(hundred, took.Seconds())
		rate, err := b.rawPebble(rows)
		if err != nil {
			return err
		}
		raw = append(raw, rate)
		b.say("bulk: round %d, 100,000 links in %.3f s, raw Pebble %s", round+1, took.Seconds(), amount(rate, "links/s"))
	}
	b.report.measured("bulk", median(rates["NDJSON"]), "raw Pebble batches %s", amount(median(raw), "links/s"))
	b.report.measured("bulk100k", median(hundred), "%s", amount(float64(small)/median(hundred), "links/s"))
	for _, f := range forms {
		r := rates[f.name]
		b.report.detail("bulk", fmt.Sprintf("%d rows as %s", rows, f.name), "%s median, %s best of %d", amount(median(r), "links/s"), amount(slices.Max(r), "links/s"), len(r))
	}
	b.report.detail("bulk", "processor of the server during an NDJSON request", "%.2f cores", processor)
	return nil
}

// rawPebble writes as many values of 100 bytes under ascending keys to a Pebble of its own, in synced
// batches of 10,000, as plainly as can be, and returns the rate.
func (b *bench) rawPebble(rows uint64) (rate float64, err error) {
	const batchRows = 10_000
	defer func() { err = errors.Join(err, b.remove("pebble")) }()
	db, err := pebble.Open(filepath.Join(b.dir, "pebble"), &pebble.Options{MemTableSize: 64 << 20, Logger: quietPebble{}})
	if err != nil {
		return 0, fmt.Errorf("raw Pebble: %w", err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	values := make([]byte, 0, batchRows*longDestination)
	var key [8]byte
	var spent time.Duration
	for at := uint64(0); at < rows; at += batchRows {
		values = values[:0]
		for i := range uint64(batchRows) {
			values = appendDestination(values, at+i, longDestination)
		}
		began := time.Now()
		batch := db.NewBatch()
		for i := range uint64(batchRows) {
			for j := range key {
				key[j] = byte((at + i) >> (56 - 8*j))
			}
			if err := batch.Set(key[:], values[i*longDestination:(i+1)*longDestination], nil); err != nil {
				return 0, fmt.Errorf("raw Pebble: %w", err)
			}
		}
		if err := batch.Commit(pebble.Sync); err != nil {
			return 0, fmt.Errorf("raw Pebble: %w", err)
		}
		spent += time.Since(began)
	}
	return float64(rows) / spent.Seconds(), nil
}

// quietPebble drops Pebble's messages.
type quietPebble struct{}

func (quietPebble) Infof(string, ...any)              {}
func (quietPebble) Errorf(string, ...any)             {}
func (quietPebble) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// median returns the middle of some values, which it does not change.
func median(values []float64) float64 {
	v := slices.Sorted(slices.Values(values))
	if len(v) == 0 {
		return 0
	}
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// memory measures how much a new server grows while a body of 1 GB streams through one request.
func (b *bench) memory(ctx context.Context) (err error) {
	size := pick(b, int64(1_000_000_000), 150_000_000)
	rows := uint64(size) / 130
	s, err := b.start(ctx, "memory")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.remove("memory")) }()
	defer stop(s, &err)
	before, err := s.Memory()
	if err != nil {
		return err
	}
	body := &rowReader{f: &ndjson, length: shortDestination, rows: rows}
	took, err := sendBulk(ctx, s, &ndjson, body, -1, rows, nil)
	if err != nil {
		return err
	}
	after, err := s.Memory()
	if err != nil {
		return err
	}
	const mb = 1e6
	growth := float64(after.Peak-before.Resident) / mb
	b.say("memory: %.0f MB of rows in %.1f s, +%.0f MB", float64(body.read)/mb, took.Seconds(), growth)
	b.report.measured("memory", growth, "%.0f MB before, %.0f MB at most; body of %.0f MB at %s",
		float64(before.Resident)/mb, float64(after.Peak)/mb, float64(body.read)/mb, amount(float64(rows)/took.Seconds(), "links/s"))
	return nil
}
