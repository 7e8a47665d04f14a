package api_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/inflate"
)

var encodings = []string{"identity", "gzip", "zstd"}

// decoder decompresses an answer while it comes in.
func decoder(t *testing.T, encoding string, body io.Reader) *bufio.Reader {
	t.Helper()
	e, ok := inflate.ParseEncoding(encoding)
	if !ok {
		t.Fatalf("unknown encoding %q", encoding)
	}
	return bufio.NewReader(inflate.New(body, e))
}

// Every streamed answer is compressed for who asks for it, and says the same as without.
func TestBulkAnswerEncoding(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	many := rows(5000)
	dry := bulk(many, "application/x-ndjson")
	dry.path += "?dry_run=true"
	asCSV := bulk(many, "application/x-ndjson", "Accept", "text/csv")
	asCSV.path += "?dry_run=true"
	array := bulk(`[{"destination":"https://example.com/"},{"destination":"x"}]`, "application/json")
	array.path += "?dry_run=true"
	campaign := "/api/v1/campaigns/" + b.want(201, request{method: "POST", path: "/api/v1/campaigns", body: `{"name":"c","destination":"https://example.com/"}`}).text(t, "id")
	generate := func() request {
		return request{method: "POST", path: campaign + "/links/generate", body: `{"count":3000}`, header: map[string]string{}}
	}
	if n := bytes.Count(b.want(200, generate()).body, []byte("\n")); n != 3001 {
		t.Fatalf("%d lines of generated links, want 3001", n)
	}
	for name, q := range map[string]request{
		"bulk NDJSON": dry, "bulk CSV": asCSV, "bulk JSON": array,
		"campaign rows":   {method: "POST", path: campaign + "/links?dry_run=true", body: "{}\n{}\n", header: map[string]string{"Content-Type": "application/x-ndjson"}},
		"export as CSV":   {method: "GET", path: campaign + "/links?format=csv", header: map[string]string{}},
		"export as lines": {method: "GET", path: campaign + "/links?format=ndjson", header: map[string]string{}},
	} {
		plain := b.want(200, q)
		if plain.header.Get("Content-Encoding") != "" || plain.header.Get("Vary") != "Accept-Encoding" {
			t.Errorf("%s: plain answer with Content-Encoding %q, Vary %q", name, plain.header.Get("Content-Encoding"), plain.header.Get("Vary"))
		}
		for header, want := range map[string]string{
			"gzip": "gzip", "zstd": "zstd", "gzip, deflate, br, zstd": "zstd", "gzip, zstd;q=0.5": "gzip", "gzip;q=0, zstd;q=0": "", "br, *": "",
		} {
			q.header["Accept-Encoding"] = header
			a := b.want(200, q)
			if got := a.header.Get("Content-Encoding"); got != want || a.header.Get("Vary") != "Accept-Encoding" {
				t.Errorf("%s: Accept-Encoding %s: Content-Encoding %q, want %q; Vary %q", name, header, got, want, a.header.Get("Vary"))
				continue
			}
			if want != "" && len(plain.body) > 10_000 && len(a.body) > len(plain.body)/2 {
				t.Errorf("%s: %s: %d bytes of %d", name, want, len(a.body), len(plain.body))
			}
			got, err := io.ReadAll(decoder(t, want, bytes.NewReader(a.body)))
			if err != nil || !bytes.Equal(got, plain.body) {
				t.Errorf("%s: %s: %d bytes are not the %d of the plain answer, %v", name, want, len(got), len(plain.body), err)
			}
		}
	}
	for _, encoding := range encodings[1:] {
		q := generate()
		q.header["Accept-Encoding"] = encoding
		got, err := io.ReadAll(decoder(t, encoding, bytes.NewReader(b.want(200, q).body)))
		if err != nil || !strings.HasSuffix(string(got), `{"done":true,"created":3000,"reused":0,"failed":0}`+"\n") {
			t.Errorf("%s: generated links: %v, the end is %q", encoding, err, got[max(0, len(got)-100):])
		}
		// What goes wrong as a whole is a problem that anybody can read.
		bad := bulk(rows(1), "application/x-ndjson", "Accept-Encoding", encoding)
		bad.path += "?atomic=perhaps"
		if a := b.want(422, bad); a.header.Get("Content-Encoding") != "" || !json.Valid(a.body) {
			t.Errorf("%s: the problem is %q with Content-Encoding %q", encoding, a.body, a.header.Get("Content-Encoding"))
		}
	}
}

// slowBulk begins a bulk request whose rows the test sends one by one.
func slowBulk(t *testing.T, b *bench, encoding string) (*io.PipeWriter, *http.Response, *bufio.Reader) {
	t.Helper()
	pr, pw := io.Pipe()
	r, err := http.NewRequest("POST", b.url+bulkPath, pr)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+ownerKey)
	r.Header.Set("Content-Type", "application/x-ndjson")
	r.Header.Set("Accept-Encoding", encoding)
	go io.WriteString(pw, rows(1))
	resp, err := b.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if got := resp.Header.Get("Content-Encoding"); got != encoding && encoding != "identity" {
		t.Fatalf("Content-Encoding %q, want %q", got, encoding)
	}
	return pw, resp, decoder(t, encoding, resp.Body)
}

// Results come while the request is still being sent, compressed or not, and trailers end a whole answer.
func TestBulkFullDuplex(t *testing.T) {
	t.Parallel()
	for _, encoding := range encodings {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			b := setup(t, options{})
			pw, resp, in := slowBulk(t, b, encoding)
			for i := range 5 {
				line, err := in.ReadString('\n')
				if err != nil {
					t.Fatalf("result %d: %v", i, err)
				}
				var res bulkResult
				if err := json.Unmarshal([]byte(line), &res); err != nil || res.Index != i || res.ShortURL == "" {
					t.Fatalf("result %d: %q", i, line)
				}
				if i == 4 {
					pw.Close()
				} else if _, err := io.WriteString(pw, rows(1)); err != nil {
					t.Fatal(err)
				}
			}
			rest, err := io.ReadAll(in)
			if err != nil || !strings.Contains(string(rest), `"done":true`) {
				t.Fatalf("the end is %q, %v", rest, err)
			}
			if _, err := io.Copy(io.Discard, resp.Body); err != nil { // a decoder may stop at its own end
				t.Fatal(err)
			}
			if got := resp.Trailer.Get("Terse-Created"); got != "5" {
				t.Errorf("trailer Terse-Created %q, want 5", got)
			}
			// The connection is as good as new.
			b.want(200, request{method: "GET", path: "/api/v1/links"})
		})
	}
}

// A failure after the first result breaks the answer off: a last line with the reason, no trailers, and an
// error for whoever reads to the end, of the connection and of the compression. What was sent stands.
func TestBulkCut(t *testing.T) {
	t.Parallel()
	for _, encoding := range encodings {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			store := &flaky{}
			b := setup(t, options{wrap: func(s terse.Store) terse.Store { store.Store = s; return store }})
			pw, resp, in := slowBulk(t, b, encoding)
			if _, err := in.ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			store.refuse.Store(true)
			go io.WriteString(pw, rows(1))
			rest, err := io.ReadAll(in)
			pw.Close()
			if err == nil || strings.Contains(string(rest), `"done":true`) || !strings.HasPrefix(string(rest), `{"done":false,"created":1,"reused":0,"failed":0,"error":{"code":"unavailable","message":"`) {
				t.Errorf("the answer ends with %q, %v; want it broken off after the reason", rest, err)
			}
			if got := resp.Trailer.Get("Terse-Created"); got != "" {
				t.Errorf("a cut answer has the trailer Terse-Created %q", got)
			}
			if n := len(b.want(200, request{method: "GET", path: "/api/v1/links"}).field(t, "data").([]any)); n != 1 {
				t.Errorf("%d links, want the one that was acknowledged", n)
			}
		})
	}
}
