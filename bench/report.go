//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// report is what a run found out.
type report struct {
	At      time.Time `json:"at"`
	Quick   bool      `json:"quick"`
	Seconds float64   `json:"seconds"`
	Machine machine   `json:"machine"`
	Budgets []*budget `json:"budgets"`
	Details []detail  `json:"details"`
	Notes   []string  `json:"notes"`
}

// machine is where it ran. Load is the load average of the minute before: what else was going on.
type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory string `json:"memory"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
	Commit string `json:"commit"`
	Load   string `json:"load"`
}

// budget is a row of the table of the design.
type budget struct {
	Key      string   `json:"key"`
	What     string   `json:"what"`
	Unit     string   `json:"unit"`
	Bar      float64  `json:"bar"`
	Goal     float64  `json:"goal"`
	AtMost   bool     `json:"at_most"` // less is better
	Measured *float64 `json:"measured"`
	Peer     string   `json:"peer"`
	Absent   string   `json:"absent,omitzero"` // why it is not measured
}

// detail is a figure beside the table.
type detail struct {
	Part  string `json:"part"`
	What  string `json:"what"`
	Value string `json:"value"`
}

func newReport(quick bool) *report {
	return &report{At: time.Now().UTC(), Quick: quick, Machine: thisMachine(), Budgets: []*budget{
		{Key: "redirect", What: "redirect throughput, every click captured, beside nginx return 302", Unit: "x", Bar: 0.8, Goal: 1},
		{Key: "latency", What: "redirect latency at 12,000 requests/s, open loop, p99", Unit: "ms", Bar: 5, Goal: 1, AtMost: true},
		{Key: "idlep99", What: "redirect p99 at that rate beside 10,000 idle connections", Unit: "ms", Bar: 5, Goal: 1, AtMost: true},
		{Key: "idle", What: "memory of an idle connection, of 10,000", Unit: "B", Bar: 4096, Goal: 1024, AtMost: true},
		{Key: "once", What: "max_clicks 1, 1,000 visitors at once: rounds with exactly one redirect", Unit: "%", Bar: 100, Goal: 100},
		{Key: "unknown", What: "store reads per 1,000 random unknown codes, 10 M of them", Unit: "reads", Bar: 1, Goal: 0.1, AtMost: true},
		{Key: "unknownmem", What: "growth of memory over them, after the first tenth", Unit: "MB", Bar: 64, Goal: 16, AtMost: true},
		{Key: "busy", What: "redirect p99 at that rate while a bulk runs, of its p99 alone", Unit: "x", Bar: 3, Goal: 1.5, AtMost: true},
		{Key: "bulk", What: "bulk over one HTTP request, 1 M personalised NDJSON rows, durable", Unit: "links/s", Bar: 1e6, Goal: 2e6},
		{Key: "bulk100k", What: "100,000 links over one request", Unit: "s", Bar: 0.15, Goal: 0.06, AtMost: true},
		{Key: "values", What: "campaign rows with two values over one request, durable", Unit: "links/s", Bar: 1.5e6, Goal: 2e6},
		{Key: "valuedisk", What: "disk per campaign link with two values", Unit: "B", Bar: 40, Goal: 25, AtMost: true},
		{Key: "repoint", What: "repoint of a campaign of 1 M links answered, every redirect follows", Unit: "ms", Bar: 10, Goal: 3, AtMost: true},
		{Key: "domains", What: "links over 300 domains, one request each for campaign rows and named rows", Unit: "links/s", Bar: 500e3, Goal: 1e6},
		{Key: "job300", What: "server memory while a job makes 10 M links over 300 domains", Unit: "MB", Bar: 256, Goal: 128, AtMost: true},
		{Key: "postgres", What: "bulk over one HTTP request, 1 M rows, PostgreSQL, durable", Unit: "links/s", Bar: 250e3, Goal: 400e3},
		{Key: "postgres100k", What: "100,000 links over one request, PostgreSQL", Unit: "s", Bar: 0.5, Goal: 0.25, AtMost: true},
		{Key: "dynamodb", What: "DynamoDB writer, endpoint that only acknowledges", Unit: "links/s", Bar: 100e3, Goal: 250e3},
		{Key: "memory", What: "server memory while a 1 GB bulk body streams through", Unit: "MB", Bar: 256, Goal: 128, AtMost: true},
		{Key: "disk", What: "disk per generated link, 100-byte destination", Unit: "B", Bar: 140, Goal: 60, AtMost: true},
		{Key: "capture", What: "capture cost: throughput with clicks on / off", Unit: "x", Bar: 0.85, Goal: 0.95},
		{Key: "lag", What: "click to queryable at 50,000 clicks/s", Unit: "s", Bar: 5, Goal: 1, AtMost: true},
		{Key: "panel", What: "any dashboard panel over 100 M clicks, p95", Unit: "ms", Bar: 500, Goal: 200, AtMost: true, Absent: "not measured here"},
		{Key: "ready", What: "ready after start with 10 M links", Unit: "s", Bar: 1, Goal: 0.3, AtMost: true},
	}}
}

// measured fills in a row.
func (r *report) measured(key string, v float64, peer string, args ...any) {
	for _, b := range r.Budgets {
		if b.Key == key && (math.IsNaN(v) || math.IsInf(v, 0)) {
			r.note("%s: nothing was answered, so there is no figure", key)
			return
		}
		if b.Key == key {
			b.Measured, b.Peer = &v, fmt.Sprintf(peer, args...)
			return
		}
	}
	panic("bench: there is no budget " + key)
}

func (r *report) detail(part, what, value string, args ...any) {
	r.Details = append(r.Details, detail{part, what, fmt.Sprintf(value, args...)})
}

// note adds what a reader must know to judge the figures.
func (r *report) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// mark judges a measured row.
func (b *budget) mark() string {
	better := func(limit float64) bool {
		if b.AtMost {
			return *b.Measured <= limit
		}
		return *b.Measured >= limit
	}
	switch {
	case b.Measured == nil:
		return "-"
	case better(b.Goal):
		return "goal"
	case better(b.Bar):
		return "bar"
	}
	return "BELOW"
}

func (r *report) print(w io.Writer) {
	m := r.Machine
	fmt.Fprintf(w, "Terse %s on %s, %d cores, %s, Linux %s, %s; load before: %s; took %.0f s\n", m.Commit, m.CPU, m.Cores, m.Memory, m.Kernel, m.Go, m.Load, r.Seconds)
	if r.Quick {
		fmt.Fprintln(w, "A quick run: too short to judge by.")
	}
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(t, "WHAT\tBAR\tGOAL\tMEASURED\t\tBESIDE IT")
	for _, b := range r.Budgets {
		value := "-"
		if b.Measured != nil {
			value = amount(*b.Measured, b.Unit)
		}
		peer := b.Peer
		if b.Measured == nil {
			if peer = b.Absent; peer == "" {
				peer = "not run"
			}
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", b.What, amount(b.Bar, b.Unit), amount(b.Goal, b.Unit), value, b.mark(), peer)
	}
	_ = t.Flush() // standard output: nobody to tell
	if len(r.Details) > 0 {
		fmt.Fprintln(w)
		t = tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		for _, d := range r.Details {
			fmt.Fprintf(t, "%s\t%s\t%s\n", d.Part, d.What, d.Value)
		}
		_ = t.Flush() // the same
	}
	for _, n := range r.Notes {
		fmt.Fprintf(w, "\nNote: %s\n", n)
	}
}

// amount writes a value for people.
func amount(v float64, unit string) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.2f M %s", v/1e6, unit)
	case v >= 10_000:
		return fmt.Sprintf("%.0f k %s", v/1e3, unit)
	case v >= 100:
		return fmt.Sprintf("%.0f %s", v, unit)
	case v >= 10:
		return fmt.Sprintf("%.1f %s", v, unit)
	}
	return fmt.Sprintf("%.3g %s", v, unit)
}

// save writes the report as JSON and returns where.
func (r *report) save(dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", fmt.Errorf("save results: %w", err)
	}
	path := filepath.Join(dir, r.At.Format("20060102-150405")+".json")
	b, err := json.Marshal(r, jsontext.WithIndent("  "))
	if err != nil {
		return "", fmt.Errorf("save results: %w", err)
	}
	if err := os.WriteFile(path, append(b, '\n'), 0o644); err != nil {
		return "", fmt.Errorf("save results: %w", err)
	}
	return path, nil
}

// thisMachine describes the machine as far as it tells.
func thisMachine() machine {
	m := machine{Cores: runtime.NumCPU(), Go: runtime.Version(), CPU: field("/proc/cpuinfo", "model name"), Memory: field("/proc/meminfo", "MemTotal"), Commit: "unknown"}
	if b, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(b))
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load, _, _ = strings.Cut(string(b), " ")
	}
	if b, err := exec.Command("git", "describe", "--always", "--dirty").Output(); err == nil {
		m.Commit = strings.TrimSpace(string(b))
	}
	return m
}

// field returns the first value of a name in a file of /proc.
func field(path, name string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}
