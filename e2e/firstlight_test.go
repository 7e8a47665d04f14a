package e2e

import (
	"bytes"
	"encoding/csv"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse/client"
	"github.com/terselink/terse/e2e/proc"
)

// terse runs the command line as a person would, and returns what it printed.
func terse(t *testing.T, s *proc.Server, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), bin, append([]string{"--data", s.Data}, args...)...)
	cmd.Env = proc.Environ()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// TestFirstLight is what a newcomer does in the first ten minutes.
func TestFirstLight(t *testing.T) {
	rows := 100_000
	if testing.Short() {
		rows = 10_000
	}
	const destination = "https://example.com/some/long/path"
	env := append([]string{"TERSE_TRUSTED_PROXIES=127.0.0.1", "TERSE_NODE_NAME=berlin"}, quick...)
	s := start(t, proc.Options{Env: env})

	out, errs, code := terse(t, s, "shorten", destination)
	short := strings.TrimSpace(out)
	if code != 0 || !strings.HasPrefix(short, "http://"+s.Host+"/") || strings.ContainsAny(short, " \n") {
		t.Fatalf("shorten: exit %d, %q, %q", code, out, errs)
	}
	v := newVisitor(s)
	defer v.close()
	if status, location, err := v.look("GET", pathOf(short)); err != nil || status != 302 || location != destination {
		t.Fatalf("the link answers %d to %q: %v", status, location, err)
	}
	if got := v.headerValue("Cache-Control"); got != "private, max-age=0" {
		t.Errorf("Cache-Control is %q: browsers would not ask again", got)
	}

	// A file of recipients becomes as many links, in its order, all different.
	in := filepath.Join(t.TempDir(), "recipients.csv")
	writeRecipients(t, in, rows)
	began := time.Now()
	out, errs, code = terse(t, s, "bulk", in)
	if code != 0 {
		t.Fatalf("bulk: exit %d, %s", code, errs)
	}
	t.Logf("terse bulk made %d links in %v", rows, time.Since(began).Round(time.Millisecond))
	made := readResults(t, out)
	if len(made) != rows {
		t.Fatalf("%d results for %d rows", len(made), rows)
	}
	distinct := map[string]bool{pathOf(short): true}
	for i, m := range made {
		if m["external_id"] != recipientID(i) || m["error"] != "" {
			t.Fatalf("result %d is %v", i, m)
		}
		distinct[pathOf(m["short_url"])] = true
	}
	if len(distinct) != rows+1 {
		t.Errorf("%d distinct short URLs for %d links", len(distinct), rows+1)
	}
	r := rand.New(rand.NewPCG(1, 2))
	sample := r.Perm(rows)[:2000]
	checkSample := func(v *visitor) {
		t.Helper()
		for _, i := range sample {
			status, location, err := v.look("HEAD", pathOf(made[i]["short_url"]))
			if err != nil || status != 302 || location != recipientURL(i) {
				t.Fatalf("row %d answers %d to %q: %v", i, status, location, err)
			}
		}
	}
	checkSample(v)
	checkGuesses(t, v, distinct, made)

	// Clicks show with country, referrer and device within seconds.
	path := pathOf(made[0]["short_url"])
	for _, c := range []struct{ addr, referrer, agent string }{
		{"8.8.8.8", "https://news.example.com/item?id=1", agentPhone},
		{"8.8.4.4", "https://news.example.com/", agentDesktop},
		{"2a02:2e0::1", "", agentDesktop},
	} {
		header := []string{"User-Agent", c.agent, "X-Forwarded-For", c.addr, "Accept-Language", "de"}
		if c.referrer != "" {
			header = append(header, "Referer", c.referrer)
		}
		visitor := newVisitor(s, header...)
		if status, _, err := visitor.look("GET", path); err != nil || status != 302 {
			t.Fatalf("visit: %d, %v", status, err)
		}
		visitor.close()
	}
	id := made[0]["id"]
	checkStats := func(s *proc.Server) {
		t.Helper()
		c := newClient(t, s)
		var sum *client.Summary
		until(t, 3*time.Minute, "three clicks are counted", func() bool {
			var err error
			sum, err = c.Summary(t.Context(), client.Query{LinkID: id})
			return err == nil && sum.Clicks >= 3
		})
		if sum.Clicks != 3 || sum.Visitors != 3 {
			t.Errorf("%d clicks of %d visitors, want 3 of 3", sum.Clicks, sum.Visitors)
		}
		for by, want := range map[string]map[string]int64{
			"country":  {"US": 2, "DE": 1},
			"referrer": {"news.example.com": 2, "": 1},
			"device":   {"mobile": 1, "desktop": 2},
			"node":     {"berlin": 3},
		} {
			b, err := c.Breakdown(t.Context(), client.Query{LinkID: id, By: by})
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]int64{}
			for _, row := range b.Data {
				got[row.Value] = row.Clicks
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("by %s: %v, want %v", by, got, want)
			}
		}
		out, errs, code := terse(t, s, "stats", made[0]["short_url"])
		if code != 0 || !strings.Contains(out, "US") || !strings.Contains(out, "news.example.com") || !strings.Contains(out, "mobile") {
			t.Errorf("stats: exit %d, %s%s", code, out, errs)
		}
	}
	checkStats(s)

	// A restart keeps everything.
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := terse(t, s, "shorten", destination, "--server", s.URL("")); code == 0 || !strings.Contains(errs, "terse serve") {
		t.Errorf("with no server running: exit %d, %q, which does not say how to start one", code, errs)
	}
	s = start(t, proc.Options{Data: s.Data, RedirectAddr: s.RedirectAddr, ControlAddr: s.ControlAddr, Env: env})
	again := newVisitor(s)
	defer again.close()
	if status, location, err := again.look("HEAD", pathOf(short)); err != nil || status != 302 || location != destination {
		t.Errorf("after a restart the link answers %d to %q: %v", status, location, err)
	}
	checkSample(again)
	checkStats(s)
}

func recipientID(i int) string { return "r-" + strconv.Itoa(i) }

func recipientURL(i int) string {
	return "https://shop.example.com/offer?customer=" + strconv.Itoa(1_000_000+i) + "&utm_source=sms"
}

func writeRecipients(t *testing.T, path string, rows int) {
	t.Helper()
	var b bytes.Buffer
	b.WriteString("destination,external_id\n")
	for i := range rows {
		b.WriteString(recipientURL(i) + "," + recipientID(i) + "\n")
	}
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// readResults reads a CSV answer by the names of its columns.
func readResults(t *testing.T, text string) []map[string]string {
	t.Helper()
	records, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil || len(records) == 0 {
		t.Fatalf("the answer is not CSV: %v, %.300q", err, text)
	}
	rows := make([]map[string]string, len(records)-1)
	for i, rec := range records[1:] {
		rows[i] = map[string]string{}
		for j, name := range records[0] {
			rows[i][name] = rec[j]
		}
	}
	return rows
}

// checkGuesses proves that the neighbours of the last codes are not the next ones: neither one up in the
// alphabet nor the difference of the two before applied again.
func checkGuesses(t *testing.T, v *visitor, known map[string]bool, made []map[string]string) {
	t.Helper()
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	hits, guesses := 0, 0
	for _, m := range made[len(made)-100:] {
		code := []byte(m["code"])
		for pos := len(code) - 2; pos < len(code); pos++ {
			guess := bytes.Clone(code)
			guess[pos] = alphabet[(strings.IndexByte(alphabet, code[pos])+1)%len(alphabet)]
			status, _, err := v.look("HEAD", "/"+string(guess))
			if err != nil {
				t.Fatal(err)
			}
			guesses++
			if status == 302 {
				hits++
			}
		}
	}
	if hits > 0 { // 200 guesses among 100,000 of 3.5 x 10^12 codes: 6 in a billion
		t.Errorf("%d of %d guesses next to a code found a link", hits, guesses)
	}
}

// TestCommandLineRefusals is what a person gets who makes a mistake.
func TestCommandLineRefusals(t *testing.T) {
	s := start(t, proc.Options{Env: quick})
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if out, errs, code := terse(t, s, "shorten", "https://example.com/", "--code", "taken"); code != 0 {
		t.Fatalf("%s%s", out, errs)
	}
	for _, tt := range []struct {
		name string
		args []string
		code int
		want string // on standard error
	}{
		{"script", []string{"shorten", "javascript:alert(1)"}, 1, "invalid_destination"},
		{"no scheme", []string{"shorten", "example.com"}, 1, "invalid_destination"},
		{"own domain", []string{"shorten", "http://" + s.Host + "/taken"}, 1, "invalid_destination"},
		{"alias taken", []string{"shorten", "https://example.com/b", "--code", "taken"}, 1, "alias_taken"},
		{"nothing to shorten", []string{"shorten"}, 2, "url"},
		{"unknown command", []string{"shrten"}, 2, "shorten"},
		{"unknown flag", []string{"shorten", "https://example.com/", "--cdoe", "x"}, 2, "--cdoe"},
		{"unknown link", []string{"links", "get", "link_0000000000000"}, 1, "not"},
		{"wrong key", []string{"--key", "terse_wrong_key_that_is_long_enough_00000", "links", "list"}, 1, "key"},
		{"no such file", []string{"bulk", filepath.Join(dir, "nowhere.csv")}, 2, "nowhere.csv"},
		{"empty file", []string{"bulk", file("empty.csv", "")}, 2, "no rows"},
		{"unknown column", []string{"bulk", file("column.csv", "destination,shoe_size\nhttps://example.com/,43\n")}, 1, "shoe_size"},
		{"no destination column", []string{"bulk", file("none.csv", "external_id\nr1\n")}, 1, "destination"},
		{"some rows are bad", []string{"bulk", file("some.csv", "destination\nhttps://example.com/ok\njavascript:1\n")}, 3, "invalid_destination"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, errs, code := terse(t, s, tt.args...)
			if code != tt.code || !strings.Contains(errs, tt.want) {
				t.Errorf("exit %d, want %d; stderr lacks %q:\n%s", code, tt.code, tt.want, errs)
			}
			if strings.Contains(errs, "goroutine ") || strings.Contains(errs, "panic") {
				t.Errorf("not for people:\n%s", errs)
			}
		})
	}
}
