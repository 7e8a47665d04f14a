package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse/e2e/proc"
)

var purgedLinks = regexp.MustCompile(`(?m)^terse_campaign_purged_links_total (\S+)$`)

// TestCampaign makes a campaign from the command line, steers it while visitors come, and deletes it: its
// links are gone at once, and their rows are removed although the server is killed meanwhile.
func TestCampaign(t *testing.T) {
	rows := 100_000
	if testing.Short() {
		rows = 70_000 // more than one second of removing, so that the kill comes in between
	}
	s := start(t, proc.Options{Env: quick})
	out, errs, code := terse(t, s, "campaign", "create", "Black Friday", "https://shop.example/p/{sku}?u={u}")
	id := strings.TrimSpace(out)
	if code != 0 || !strings.HasPrefix(id, "camp_") {
		t.Fatalf("create: exit %d, %q, %q", code, out, errs)
	}
	dir := t.TempDir()
	var csv bytes.Buffer
	csv.WriteString("article,who,note\n")
	for i := range rows {
		fmt.Fprintf(&csv, "A %d,%x,x\n", i%977, i)
	}
	csv.WriteString("A 1,,the last has no value\n")
	in, links, bad := filepath.Join(dir, "rows.csv"), filepath.Join(dir, "links.csv"), filepath.Join(dir, "bad.csv")
	if err := os.WriteFile(in, csv.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	// An empty value in the query is a value; in the path it would be none.
	if _, errs, code = terse(t, s, "campaign", "add", id, in, "--map", "sku=article", "--map", "u=who", "--ignore-extra", "-o", links, "--errors", bad); code != 0 {
		t.Fatalf("add: exit %d, %s", code, errs)
	}
	text, err := os.ReadFile(links)
	if err != nil {
		t.Fatal(err)
	}
	made := readResults(t, string(text))
	if len(made) != rows+1 {
		t.Fatalf("%d results, want %d", len(made), rows+1)
	}
	v := newVisitor(s)
	defer v.close()
	wantAll := func(want func(i int) string) {
		t.Helper()
		for i := 0; i < len(made); i += len(made)/200 + 1 {
			if status, location, err := v.look("GET", pathOf(made[i]["short_url"])); err != nil || status != http.StatusFound || location != want(i) {
				t.Fatalf("row %d: status %d to %q, error %v; want %q", i, status, location, err, want(i))
			}
		}
	}
	wantAll(func(i int) string { return fmt.Sprintf("https://shop.example/p/A%%20%d?u=%x", i%977, i) })
	if _, errs, code = terse(t, s, "campaign", "update", id, "--destination", "https://new.example/{u}"); code != 0 {
		t.Fatalf("update: exit %d, %s", code, errs)
	}
	wantAll(func(i int) string { return fmt.Sprintf("https://new.example/%x", i) })
	rules := filepath.Join(dir, "rules.json")
	if err := os.WriteFile(rules, []byte(`[{"conditions":[{"type":"bot"}],"destination":"https://bots.example/{sku}"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, errs, code = terse(t, s, "campaign", "update", id, "--rules", rules); code != 0 { // a visitor without a User-Agent is a program
		t.Fatalf("update: exit %d, %s", code, errs)
	}
	wantAll(func(i int) string { return fmt.Sprintf("https://bots.example/A%%20%d", i%977) })

	out, errs, code = terse(t, s, "campaign", "export", id)
	if n := strings.Count(out, "\n"); code != 0 || n != rows+2 {
		t.Errorf("export: exit %d, %d lines, %s", code, n, errs)
	}
	if _, errs, code = terse(t, s, "campaign", "delete", id); code != 0 {
		t.Fatalf("delete: exit %d, %s", code, errs)
	}
	gone := func() {
		t.Helper()
		for _, i := range []int{0, rows / 2, rows - 1} {
			if status, _, err := v.look("GET", pathOf(made[i]["short_url"])); err != nil || status != http.StatusNotFound {
				t.Fatalf("row %d of a deleted campaign: status %d, error %v", i, status, err)
			}
		}
	}
	gone()
	a := newAPI(t, s)
	until(t, 3*time.Minute, "rows of the deleted campaign are removed", func() bool { return purged(t, a) > 0 })
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	const removed = "links of a deleted campaign removed"
	late := strings.Contains(s.Log(), removed) // on a busy machine the kill may come after the last of them
	v.close()
	s = start(t, proc.Options{Data: s.Data, Env: quick})
	a, v = newAPI(t, s), newVisitor(s)
	defer v.close()
	gone()
	until(t, 3*time.Minute, "the rest is removed after the restart", func() bool {
		return late || strings.Contains(s.Log(), removed)
	})
	if n := purged(t, a); n > rows {
		t.Errorf("%d rows removed after the restart, of %d in all", n, rows)
	}
	gone()
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(s.Data, "warm.bin")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("warm links are not kept at the stop: %v, error %v", info, err)
	}
}

// purged returns how many links of deleted campaigns the server has removed since its start.
func purged(t *testing.T, a *api) int {
	t.Helper()
	got, err := a.do(t.Context(), "GET", "/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	m := purgedLinks.FindSubmatch(got.body)
	if m == nil {
		return 0
	}
	n, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}
