//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"

	"github.com/terselink/terse/client"
	"github.com/terselink/terse/e2e/proc"
)

// uploadPiece is how many bytes of a file one request of an upload carries.
const uploadPiece = 8 << 20

// job300 measures a job over 300 domains: rows that name their domains, in a compressed file, with results as
// Parquet. Of the results it checks that every row has a link and no two have the same.
func (b *bench) job300(ctx context.Context) (err error) {
	rows := pick(b, uint64(10_000_000), 500_000)
	const name, domains = "job300", 300
	s, err := b.start(ctx, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.remove(name)) }()
	defer stop(s, &err)
	hosts, err := b.makeDomains(ctx, s, domains)
	if err != nil {
		return err
	}
	c, err := client.New(client.Options{Server: s.URL(""), Key: proc.Key})
	if err != nil {
		return err
	}
	f := namedRows(hosts)
	upload, size, err := sendUpload(ctx, c, f, &rowReader{f: f, length: shortDestination, rows: rows})
	if err != nil {
		return err
	}
	before, err := s.Memory()
	if err != nil {
		return err
	}
	began := time.Now()
	j, err := c.CreateJob(ctx, client.NewJob{Kind: "bulk", ResultFormat: "parquet", Source: client.JobSource{UploadID: upload}})
	if err != nil {
		return err
	}
	var told time.Time
	err = c.JobEvents(ctx, j.ID, func(now *client.Job) bool {
		if j = now; time.Since(told) > 5*time.Second {
			told = time.Now()
			b.say("job300: %d rows, %s", j.Done, amount(j.RowsPerSecond, "rows/s"))
		}
		return true
	})
	took := time.Since(began)
	if err != nil {
		return err
	}
	after, err := s.Memory()
	if err != nil {
		return err
	}
	if j.State != "done" || j.Created != rows || j.Failed != 0 {
		return fmt.Errorf("the job is %s with %d links of %d rows, %d failed: %+v", j.State, j.Created, rows, j.Failed, j.Error)
	}
	twice, err := b.resultsTwice(ctx, c, j.ID, rows)
	if err != nil {
		return err
	}
	const mb = 1e6
	growth := float64(after.Peak-before.Resident) / mb
	rate := float64(rows) / took.Seconds()
	b.say("job300: %d rows in %.1f s, +%.0f MB, %d duplicates", rows, took.Seconds(), growth, twice)
	b.report.measured("job300", growth, "%s over %d domains in %.1f s, %s; file of %.0f MB; %.0f MB before, %.0f MB at most; %d links twice",
		amount(float64(rows), "rows"), domains, took.Seconds(), amount(rate, "rows/s"), float64(size)/mb, float64(before.Resident)/mb, float64(after.Peak)/mb, twice)
	if twice > 0 {
		return fmt.Errorf("%d results name a link that an earlier one has", twice)
	}
	return nil
}

// makeDomains makes domains and returns their hosts.
func (b *bench) makeDomains(ctx context.Context, s *proc.Server, n int) ([]string, error) {
	hosts := make([]string, n)
	for i := range hosts {
		hosts[i] = fmt.Sprintf("d%d.example.com", i)
		if _, err := call(ctx, s, "POST", "/api/v1/domains", map[string]string{"host": hosts[i]}, nil); err != nil {
			return nil, err
		}
	}
	return hosts, nil
}

// sendUpload uploads rows, compressed while they are made, and returns the upload and its bytes.
func sendUpload(ctx context.Context, c *client.Client, f *form, rows io.Reader) (id string, size int64, err error) {
	encoding := "zstd"
	u, err := c.CreateUpload(ctx, client.NewUpload{Filename: "rows.ndjson.zst", ContentType: f.contentType, Encoding: encoding})
	if err != nil {
		return "", 0, err
	}
	r, w := io.Pipe()
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return "", 0, err
	}
	go func() {
		_, err := io.Copy(z, rows)
		w.CloseWithError(errors.Join(err, z.Close()))
	}()
	piece := make([]byte, uploadPiece)
	for {
		n, err := io.ReadFull(r, piece)
		if n > 0 {
			if _, err := c.AppendUpload(ctx, u.ID, size, piece[:n]); err != nil {
				return "", 0, errors.Join(err, r.Close())
			}
			size += int64(n)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return u.ID, size, nil
		}
		if err != nil {
			return "", 0, err
		}
	}
}

// resultsTwice reads the results of a job and returns how many name a link that an earlier one has. It returns an
// error unless there is one link for each row, in the order of the rows.
func (b *bench) resultsTwice(ctx context.Context, c *client.Client, job string, rows uint64) (twice int, err error) {
	body, err := c.JobResult(ctx, job, false)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	path := filepath.Join(b.dir, "results.parquet")
	file, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, file.Close(), os.Remove(path)) }()
	if _, err := io.Copy(file, body); err != nil {
		return 0, fmt.Errorf("read the results: %w", err)
	}
	type result struct {
		Index    int64  `parquet:"index"`
		ShortURL string `parquet:"short_url,optional"`
	}
	r := parquet.NewGenericReader[result](file)
	defer r.Close()
	links := make([]uint64, 0, rows)
	page := make([]result, 4096)
	for {
		n, err := r.Read(page)
		for i := range page[:n] {
			if page[i].Index != int64(len(links)) || page[i].ShortURL == "" {
				return 0, fmt.Errorf("result %d is of row %d: %q", len(links), page[i].Index, page[i].ShortURL)
			}
			links = append(links, xxhash.Sum64String(page[i].ShortURL))
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, fmt.Errorf("read the results: %w", err)
		}
	}
	if uint64(len(links)) != rows {
		return 0, fmt.Errorf("%d results of %d rows", len(links), rows)
	}
	// Two links have the same hash with a probability of 1 in 370,000 among 10 million.
	slices.Sort(links)
	return int(rows) - len(slices.Compact(links)), nil
}
