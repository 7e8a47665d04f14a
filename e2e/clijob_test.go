package e2e

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"

	"github.com/terselink/terse/e2e/proc"
)

// TestCommandJob: a job from the command line, over a file that another program made: its bad rows
// come back as they were, are mended, and are sent with the same command.
func TestCommandJob(t *testing.T) {
	s := start(t, proc.Options{Env: quick})
	dir := t.TempDir()
	var plain bytes.Buffer
	plain.WriteString("name,url,phone\r\n")
	for i := range 2000 {
		url := fmt.Sprintf("https://shop.example.com/%d", i)
		if i == 7 || i == 1234 {
			url = "BAD"
		}
		fmt.Fprintf(&plain, "\"L, Ada\",%s,+49%d\r\n", url, i)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	_, err := z.Write(plain.Bytes())
	if err = errors.Join(err, z.Close(), os.WriteFile(filepath.Join(dir, "contacts.csv.gz"), packed.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	flags := []string{"--columns", "destination=url", "--columns", "external_id=phone", "--ignore-extra"}
	run := func(want int, args ...string) string {
		t.Helper()
		for i, a := range args {
			if strings.Contains(a, ".") && !strings.Contains(a, "=") {
				args[i] = filepath.Join(dir, a)
			}
		}
		_, stderr, code := terse(t, s, append([]string{"bulk", "--job"}, args...)...)
		if code != want {
			t.Fatalf("terse bulk --job %v: exit code %d, want %d\n%s", args, code, want, stderr)
		}
		return stderr
	}
	stderr := run(3, append([]string{"contacts.csv.gz", "--dry-run", "-o", "dry.csv"}, flags...)...)
	if !strings.Contains(stderr, "1,998 valid") || strings.Contains(read("dry.csv"), "http") {
		t.Errorf("dry run:\n%s", stderr)
	}
	stderr = run(3, append([]string{"contacts.csv.gz", "-o", "links.csv", "--errors", "bad.csv"}, flags...)...)
	if !strings.Contains(stderr, "2 of 2,000 rows made no link") || !strings.Contains(stderr, "done: 2,000 rows, 0 rows/s, 2 failed") || strings.Contains(stderr, "\x1b") {
		t.Errorf("run:\n%s", stderr)
	}
	if got := read("links.csv"); strings.Count(got, "\n") != 2001 || !strings.Contains(got, "\n1999,http://"+s.Host+"/") || !strings.Contains(got, "'+491999") {
		t.Errorf("results end with %q", got[len(got)-200:])
	}
	bad := read("bad.csv")
	if !strings.HasPrefix(bad, "terse_error,name,url,phone\n\"row 7, line 9: invalid_destination: ") || !strings.HasSuffix(bad, "\",\"L, Ada\",BAD,+491234\n") || strings.Count(bad, "\n") != 3 {
		t.Errorf("bad rows:\n%s", bad)
	}
	if err := os.WriteFile(filepath.Join(dir, "mended.csv"), []byte(strings.ReplaceAll(bad, "BAD", "https://shop.example.com/mended")), 0o600); err != nil {
		t.Fatal(err)
	}
	run(0, append([]string{"mended.csv", "-o", "mended.parquet", "--parquet"}, flags...)...)
	type row struct {
		Index      int64  `parquet:"index"`
		ShortURL   string `parquet:"short_url,optional"`
		ExternalID string `parquet:"external_id,optional"`
	}
	rows, err := parquet.ReadFile[row](filepath.Join(dir, "mended.parquet"))
	if err != nil || len(rows) != 2 || rows[1].Index != 1 || !strings.HasPrefix(rows[1].ShortURL, "http://"+s.Host+"/") || rows[1].ExternalID != "+491234" {
		t.Errorf("parquet: %+v, %v", rows, err)
	}

	// A column of another name, and what is refused before anything is sent.
	if stderr := run(1, "contacts.csv.gz"); !strings.Contains(stderr, "did you mean") {
		t.Errorf("an unknown column:\n%s", stderr)
	}
	for _, args := range [][]string{
		{"contacts.csv.gz", "--parquet"}, {"contacts.csv.gz", "--columns", "destination=link"}, {"-"}, {"contacts.csv.gz", "--atomic"}, {"contacts.csv.gz", "--resume"},
	} {
		run(2, args...)
	}

	// The rows of a campaign.
	a := newAPI(t, s)
	var c struct {
		ID string `json:"id"`
	}
	if got, err := a.json(t.Context(), "POST", "/api/v1/campaigns", map[string]string{"name": "c", "destination": "https://shop.example.com/{sku}"}, &c); err != nil || got.status != 201 {
		t.Fatalf("campaign: %v, %+v", err, got)
	}
	if err := os.WriteFile(filepath.Join(dir, "skus.ndjson"), []byte("{\"sku\":\"a\"}\n{\"sku\":\"b\"}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	run(0, "skus.ndjson", "--campaign", c.ID, "-o", "skus.out")
	if got := read("skus.out"); strings.Count(got, "short_url") != 2 {
		t.Errorf("campaign rows:\n%s", got)
	}
	if _, stderr, code := terse(t, s, "bulk", filepath.Join(dir, "skus.ndjson"), "--campaign", c.ID); code != 2 || !strings.Contains(stderr, "terse campaign add") {
		t.Errorf("without a job: %d, %s", code, stderr)
	}
}
