package jobs

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
	"github.com/terselink/terse/internal/links"
)

func pack(t *testing.T, name, body string) string {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&b)
	if strings.HasSuffix(name, ".zst") {
		z, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		w = z
	}
	if _, err := io.WriteString(w, body); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestCompressed: an upload that is compressed is read as one that is not, within the same
// limits.
func TestCompressed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		csv := "destination,external_id\n" + strings.Repeat("https://example.com/,a\n", 300) + "nope,b\n"
		for name, body := range map[string]string{"a.ndjson.gz": rows(301), "a.jsonl.zst": rows(301), "a.csv.gz": csv} {
			id := b.create(ws, name, pack(t, name, body), Spec{})
			if j := b.want(ws, id, Done); j.Counts.Done != 301 {
				t.Errorf("%s: %+v", name, j.Counts)
			}
		}
		for name, c := range map[string]struct{ body, code string }{
			"cut.csv.gz":   {pack(t, "a.gz", csv)[:60], "bad_compression"},
			"not.csv.zst":  {csv, "bad_compression"},
			"large.csv.gz": {pack(t, "a.gz", "destination\n"+strings.Repeat("https://example.com/"+strings.Repeat("a", 2000)+"\n", 4000)), "body_too_large"},
		} {
			j := b.want(ws, b.create(ws, name, c.body, Spec{}), Failed)
			if j.Fault.Code != c.code {
				t.Errorf("%s: %+v, want %s", name, j.Fault, c.code)
			}
		}
	})
}

// TestParquet reads the results of a job back.
func TestParquet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		body := rows(3000) + `{"destination":"nope","external_id":"x"}` + "\n" +
			strings.Repeat(`{"destination":"https://example.com/same","if_exists":"reuse"}`+"\n", 2)
		read := func(spec Spec) []parquetRow {
			t.Helper()
			id := b.create(ws, "a.ndjson", body, spec)
			b.want(ws, id, Done)
			f := b.file(id, false)
			list, err := parquet.Read[parquetRow](strings.NewReader(f), int64(len(f)))
			if err != nil || len(list) != 3003 {
				t.Fatalf("%d rows, %v", len(list), err)
			}
			return list
		}
		list := read(Spec{ResultFormat: "parquet"})
		codes := map[string]bool{}
		for i, r := range list {
			codes[r.Code] = true
			switch {
			case r.Index != int64(i):
				t.Fatalf("row %d has the index %d", i, r.Index)
			case i == 3000:
				if r.Error != "invalid_destination" || r.Message == "" || r.ShortURL != "" || r.Code != "" || r.ID != "" || r.ExternalID != "x" {
					t.Fatalf("the bad row: %+v", r)
				}
			case r.Error != "" || r.ShortURL != "https://go.example.com/"+r.Code || !strings.HasPrefix(r.ID, "link_") || i < 3000 && r.ExternalID != fmt.Sprintf("r%d", i):
				t.Fatalf("row %d: %+v", i, r)
			case r.Existing != (i == 3002):
				t.Fatalf("row %d: existing %v", i, r.Existing)
			}
		}
		if len(codes) != 3002 { // the two that share a link, and the one without
			t.Fatalf("%d codes", len(codes))
		}
		if dry := read(Spec{ResultFormat: "parquet", DryRun: true}); dry[0].ShortURL != "" || dry[0].ID != "" || dry[0].ExternalID != "r0" || dry[3000].Error == "" {
			t.Fatalf("dry run: %+v, %+v", dry[0], dry[3000])
		}
	})
}

// TestMend: the file of bad rows can be mended and sent as it is.
func TestMend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		for _, c := range []struct {
			name, body string
			spec       Spec
		}{
			{"a.ndjson", `{"destination":"https://example.com/1"}` + "\n" + `{ "title": "\u00fc", "destination": "BAD" }` + "\n" + `{"destination":"BAD"}`, Spec{}},
			{"a.json", "[{\"destination\":\"https://example.com/1\"},\n{\"title\":\"t\",\n \"destination\":\"BAD\"},{\"destination\":\"BAD\"}]", Spec{ResultFormat: "csv"}},
			{"a.csv", "url,what\r\nhttps://example.com/1,\"a\nb\"\r\n\"BAD\",\"c\nd\"\r\nBAD,e", Spec{Columns: map[string]string{"url": "destination", "what": ""}, ResultFormat: "parquet"}},
		} {
			id := b.create(ws, c.name, c.body, c.spec)
			j := b.want(ws, id, Done)
			if j.Counts.Created != 1 || j.Counts.Failed != 2 {
				t.Fatalf("%s: %+v", c.name, j.Counts)
			}
			bad := b.file(id, true)
			ext := "." + j.Spec.ErrorFormat()
			// Not mended, they are the same bad rows, each with one error.
			again := b.create(ws, "bad"+ext, bad, c.spec)
			if j := b.want(ws, again, Done); j.Counts.Failed != 2 {
				t.Fatalf("%s again: %+v\n%s", c.name, j.Counts, bad)
			}
			if second := b.file(again, true); strings.Count(second, "terse_error") != strings.Count(bad, "terse_error") {
				t.Fatalf("%s again:\n%s", c.name, second)
			}
			mended := b.create(ws, "mended"+ext, strings.ReplaceAll(bad, "BAD", "https://example.com/2"), c.spec)
			if j := b.want(ws, mended, Done); j.Counts.Created != 2 || j.Counts.Failed != 0 {
				t.Fatalf("%s mended: %+v\n%s\n%s", c.name, j.Counts, bad, b.file(mended, true))
			}
		}
	})
}

// TestCampaignJob: rows of values join a campaign; a dry run joins nothing.
func TestCampaignJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		a := links.Actor{Workspace: ws}
		c, err := b.links.CreateCampaign(t.Context(), a, links.NewCampaign{Name: "c", Destination: "https://shop.example/p/{sku}?u={u}"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var body strings.Builder
		body.WriteString("sku,u,external_id\n")
		for i := range 500 {
			fmt.Fprintf(&body, "A%d,%d,r%d\n", i, i, i)
		}
		body.WriteString("A\n")
		count := func(want uint64) {
			t.Helper()
			if n, err := b.links.CountLinks(t.Context(), a, c.ID); n != want || err != nil {
				t.Fatalf("the campaign has %d links, want %d: %v", n, want, err)
			}
		}
		id := b.create(ws, "a.csv", body.String(), Spec{Campaign: c.ID, DryRun: true})
		if j := b.want(ws, id, Done); j.Report.Valid != 500 || j.Counts.Failed != 1 {
			t.Fatalf("%+v, %+v", j.Counts, j.Report)
		}
		count(0)
		id = b.create(ws, "a.csv", body.String(), Spec{Campaign: c.ID})
		if j := b.want(ws, id, Done); j.Counts.Created != 500 || j.Counts.Failed != 1 {
			t.Fatalf("%+v", j.Counts)
		}
		count(500)
		if bad := b.file(id, true); !strings.HasPrefix(bad, "terse_error,sku,u,external_id\n\"row 500, line 502: ") {
			t.Fatalf("bad rows:\n%s", bad)
		}
		if _, err := b.Rollback(t.Context(), ws, id); err != nil {
			t.Fatal(err)
		}
		b.want(ws, id, RolledBack)
		count(0)
		// A campaign that is gone is the end of a job, not of the server.
		id = b.create(ws, "a.csv", body.String(), Spec{Campaign: c.ID + 1})
		if j := b.want(ws, id, Failed); j.Fault.Code != string(terse.CodeNotFound) {
			t.Fatalf("%+v", j.Fault)
		}
	})
}

// TestManyDomains: the rows of one job go to hundreds of domains.
func TestManyDomains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		const hosts = 300
		for i := range hosts {
			if _, err := b.reg.Create(t.Context(), ws, domains.New{Host: fmt.Sprintf("d%d.example.com", i)}, nil); err != nil {
				t.Fatal(err)
			}
		}
		var body strings.Builder
		for i := range 3000 {
			code := ""
			if i%7 == 0 {
				code = fmt.Sprintf(`,"code":"my-alias-%d"`, i)
			}
			if i%11 == 0 {
				code = `,"class":"secret"`
			}
			fmt.Fprintf(&body, "{\"destination\":\"https://example.com/%d\",\"domain\":\"d%d.example.com\"%s}\n", i, i*i%hosts, code)
		}
		body.WriteString(`{"destination":"https://example.com/","domain":"other.example.com"}` + "\n")
		id := b.create(ws, "a.ndjson", body.String(), Spec{})
		if j := b.want(ws, id, Done); j.Counts.Created != 3000 || j.Counts.Failed != 1 {
			t.Fatalf("%+v\n%s", j.Counts, b.file(id, true))
		}
		seen := map[string]bool{}
		for i, line := range strings.Split(strings.TrimSpace(b.file(id, false)), "\n")[:3000] {
			_, url, _ := strings.Cut(line, `"short_url":"`)
			url, _, _ = strings.Cut(url, `"`)
			if !strings.HasPrefix(url, fmt.Sprintf("https://d%d.example.com/", i*i%hosts)) || seen[url] {
				t.Fatalf("row %d: %s", i, line)
			}
			seen[url] = true
			if i%7 == 0 && i%11 != 0 && !strings.HasSuffix(url, fmt.Sprintf("/my-alias-%d", i)) {
				t.Fatalf("row %d: %s", i, line)
			}
		}
		if b.count() != 3000 {
			t.Fatalf("%d links", b.count())
		}
	})
}
