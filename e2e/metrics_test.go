package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/terselink/terse/e2e/proc"
)

// metrics returns the numbers of a server by the name of their series, such as `terse_clicks_dropped_total{reason="bots"}`.
func metrics(t *testing.T, s *proc.Server) map[string]float64 {
	t.Helper()
	m, err := readMetrics(t.Context(), newAPI(t, s))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func readMetrics(ctx context.Context, a *api) (map[string]float64, error) {
	got, err := a.do(ctx, "GET", "/metrics", nil)
	if err != nil {
		return nil, err
	}
	if got.status != 200 {
		return nil, fmt.Errorf("metrics: %d %.300s", got.status, got.body)
	}
	m := map[string]float64{}
	for lines := bufio.NewScanner(bytes.NewReader(got.body)); lines.Scan(); {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil {
			m[name] = v
		}
	}
	return m, nil
}

// clickMetrics are the counters of the click recorder.
type clickMetrics struct {
	captured, spooled, written, failures int
	dropped                              map[string]int // by reason, those that are not 0
	size                                 int            // of the spool, bytes
	held                                 int            // counted by link, in memory
}

func clickMetricsOf(t *testing.T, s *proc.Server) clickMetrics {
	t.Helper()
	c, err := readClickMetrics(t.Context(), newAPI(t, s))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func readClickMetrics(ctx context.Context, a *api) (clickMetrics, error) {
	m, err := readMetrics(ctx, a)
	if err != nil {
		return clickMetrics{}, err
	}
	c := clickMetrics{
		captured: int(m["terse_clicks_captured_total"]), spooled: int(m["terse_clicks_spooled_total"]), written: int(m["terse_spool_written_bytes_total"]),
		failures: int(m[`terse_spool_errors_total{op="write"}`]), size: int(m["terse_spool_bytes"]), held: int(m["terse_clicks_held"]), dropped: map[string]int{},
	}
	for name, v := range m {
		if rest, ok := strings.CutPrefix(name, `terse_clicks_dropped_total{reason="`); ok && v != 0 {
			c.dropped[strings.TrimSuffix(rest, `"}`)] = int(v)
		}
	}
	return c, nil
}

// lost returns how many clicks were dropped, for whatever reason.
func (c clickMetrics) lost() (n int) {
	for _, v := range c.dropped {
		n += v
	}
	return n
}

// settled reports whether every click that was captured is on the disk, dropped or counted by link.
func (c clickMetrics) settled() bool { return c.captured == c.spooled+c.lost()+c.held }
