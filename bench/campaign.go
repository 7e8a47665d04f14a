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
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse/e2e/proc"
)

// valueRows are rows of a campaign with two values, as a shop sends them.
var valueRows = form{name: "values", contentType: "application/x-ndjson", row: func(dst []byte, i uint64, _ int) []byte {
	dst = append(dst, `{"sku":"A`...)
	dst = strconv.AppendUint(dst, i%977, 10)
	dst = append(dst, `","u":"`...)
	dst = appendDigits(dst, mix(i), 16, 10)
	return append(dst, "\"}\n"...)
}}

// namedRows are rows of links that name one of many domains each.
func namedRows(hosts []string) *form {
	return &form{name: "rows that name domains", contentType: "application/x-ndjson", row: func(dst []byte, i uint64, length int) []byte {
		dst = append(dst, `{"domain":"`...)
		dst = append(dst, hosts[mix(i)%uint64(len(hosts))]...)
		dst = append(dst, `","destination":"`...)
		dst = appendDestination(dst, i, length)
		return append(dst, "\"}\n"...)
	}}
}

// call sends a small request to the control plane and decodes the answer into out, if it is not nil. It returns
// the time that it took.
func call(ctx context.Context, s *proc.Server, method, path string, in, out any) (time.Duration, error) {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.URL(path), body)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer "+proc.Key)
	req.Header.Set("Content-Type", "application/json")
	began := time.Now()
	resp, err := bulkHTTP.Do(req)
	if err != nil {
		return 0, err
	}
	answer, err := io.ReadAll(resp.Body)
	took := time.Since(began)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return 0, err
	}
	if resp.StatusCode/100 != 2 {
		return 0, fmt.Errorf("%s %s: status %d: %s", method, path, resp.StatusCode, answer)
	}
	if out != nil {
		err = json.Unmarshal(answer, out)
	}
	return took, err
}

// newCampaign makes a campaign and returns its path in the API.
func newCampaign(ctx context.Context, s *proc.Server, destination string, hosts []string) (string, error) {
	type domain struct {
		Host string `json:"host"`
	}
	in := struct {
		Name        string   `json:"name"`
		Destination string   `json:"destination"`
		Domains     []domain `json:"domains,omitempty"`
	}{Name: "bench", Destination: destination}
	for _, h := range hosts {
		in.Domains = append(in.Domains, domain{h})
	}
	var out struct {
		ID string `json:"id"`
	}
	_, err := call(ctx, s, "POST", "/api/v1/campaigns", in, &out)
	return "/api/v1/campaigns/" + out.ID, err
}

// campaign measures rows with two values, their disk space and a repoint of them all, which a sample of
// links must follow.
func (b *bench) campaign(ctx context.Context) (err error) {
	rows := pick(b, uint64(1_000_000), 200_000)
	const name = "campaign"
	s, err := b.start(ctx, name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.remove(name)) }()
	defer func() { stop(s, &err) }()
	path, err := newCampaign(ctx, s, "https://shop.example.com/p/{sku}?u={u}", nil)
	if err != nil {
		return err
	}
	var rates []float64
	var sample []string // short URLs
	body := valueRows.body(rows, 0)
	rounds := pick(b, 5, 2)
	for round := range rounds {
		sample = sample[:0]
		var line []byte
		took, err := sendRows(ctx, s, path+"/links", &valueRows, bytes.NewReader(body), int64(len(body)), rows, func(p []byte) {
			// The first result of every piece of the answer is as good as any other.
			if i := bytes.IndexByte(p, '\n'); i >= 0 && len(sample) < 1000 {
				if line = append(line[:0], p[i+1:min(len(p), i+200)]...); bytes.HasPrefix(line, []byte(`{"index":`)) {
					if _, rest, ok := strings.Cut(string(line), `"short_url":"`); ok {
						url, _, _ := strings.Cut(rest, `"`)
						sample = append(sample, url)
					}
				}
			}
		})
		if err != nil {
			return err
		}
		rates = append(rates, float64(rows)/took.Seconds())
		b.say("campaign: round %d, rows of two values: %s", round+1, amount(rates[round], "links/s"))
	}
	b.report.measured("values", median(rates), "%s best of %d; rows of %.0f bytes", amount(slices.Max(rates), "links/s"), rounds, float64(len(body))/float64(rows))

	var changes []float64
	for round := range pick(b, 21, 5) {
		to := fmt.Sprintf("https://round%d.example.com/{u}", round)
		took, err := call(ctx, s, "PATCH", path, map[string]string{"destination": to}, nil)
		if err != nil {
			return err
		}
		changes = append(changes, took.Seconds()*1e3)
		if err := follows(ctx, sample, fmt.Sprintf("https://round%d.example.com/", round)); err != nil {
			return err
		}
	}
	total := rows * uint64(rounds)
	b.report.measured("repoint", slices.Max(changes), "slowest of %d changes of %s, median %.1f ms; after each all of %d links that were asked followed",
		len(changes), amount(float64(total), "links"), median(changes), len(sample))

	if err := s.Stop(); err != nil {
		return err
	}
	used, err := diskUse(filepath.Join(b.dir, name, "store"))
	if err != nil {
		return err
	}
	if s, err = b.start(ctx, name); err != nil {
		return err
	}
	b.report.measured("valuedisk", float64(used)/float64(total), "%s hold %.0f MB, logs and all", amount(float64(total), "links"), float64(used)/1e6)

	took, err := call(ctx, s, "DELETE", path, nil, nil)
	if err != nil {
		return err
	}
	b.report.detail("campaign", "deletion of "+amount(float64(total), "links")+" answered in", "%.1f ms", took.Seconds()*1e3)
	return nil
}

// follows asks for links and returns an error unless every one leads below the destination.
func follows(ctx context.Context, links []string, destination string) error {
	if len(links) == 0 {
		return errors.New("no links were sampled")
	}
	for _, link := range links {
		req, err := http.NewRequestWithContext(ctx, "GET", link, nil)
		if err != nil {
			return err
		}
		resp, err := noRedirects.Do(req)
		for try := 0; err == nil && resp.StatusCode == http.StatusServiceUnavailable && try < lateTries; try++ {
			_ = resp.Body.Close() // it is of no interest
			<-time.After(latePause)
			resp, err = noRedirects.Do(req)
		}
		if err != nil {
			return err
		}
		if err := resp.Body.Close(); err != nil {
			return err
		}
		if to := resp.Header.Get("Location"); resp.StatusCode != http.StatusFound || !strings.HasPrefix(to, destination) {
			return fmt.Errorf("%s leads to %q with status %d, want %s", link, to, resp.StatusCode, destination)
		}
	}
	return nil
}

// On a busy machine a read of the store may take longer than a visitor waits, who is answered 503 then. What has to be right, and
// not fast, is asked for again.
const (
	lateTries = 600
	latePause = 100 * time.Millisecond
)

var noRedirects = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}

// manyDomains makes 10 million links over 300 domains, half of them as rows of a campaign, half as rows that
// name their domains.
func (b *bench) manyDomains(ctx context.Context) (err error) {
	rows := pick(b, uint64(5_000_000), 150_000) // each
	const name, domains = "domains", 300
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
	path, err := newCampaign(ctx, s, "https://shop.example.com/p/{sku}?u={u}", hosts)
	if err != nil {
		return err
	}
	values, err := sendRows(ctx, s, path+"/links", &valueRows, &rowReader{f: &valueRows, rows: rows}, -1, rows, nil)
	if err != nil {
		return err
	}
	b.say("campaign: %s over %d domains as values in %.1f s", amount(float64(rows), "links"), domains, values.Seconds())
	named := namedRows(hosts)
	links, err := sendBulk(ctx, s, named, &rowReader{f: named, length: shortDestination, rows: rows}, -1, rows, nil)
	if err != nil {
		return err
	}
	rate := func(d time.Duration) string { return amount(float64(rows)/d.Seconds(), "links/s") }
	b.report.measured("domains", float64(2*rows)/(values+links).Seconds(), "%s over %d domains in %.1f s: campaign rows %s, rows that name domains %s",
		amount(float64(2*rows), "links"), domains, (values + links).Seconds(), rate(values), rate(links))
	return nil
}
