package api_test

import (
	"net/http/httptest"
	"strings"
	"testing"
)

func benchmark(b *testing.B, method, path, body string, header ...string) {
	s := setup(b, options{})
	key := s.key("ws_0000000000001", "*")
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest(method, path, strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+key)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		s.server.ServeHTTP(w, r)
		if w.Code/100 != 2 {
			b.Fatalf("%d %s", w.Code, w.Body)
		}
	}
}

func BenchmarkCreateLink(b *testing.B) {
	benchmark(b, "POST", "/api/v1/links", `{"destination":"https://example.com/some/long/path?a=b","external_id":"order-77"}`)
}

func BenchmarkSystem(b *testing.B) { benchmark(b, "GET", "/api/v1/system", "") }

// BenchmarkBulkOverHTTP sends 100,000 rows over a loopback connection to the memory store.
func BenchmarkBulkOverHTTP(b *testing.B) {
	s := setup(b, options{})
	body := rows(100_000)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		q := bulk(body, "application/x-ndjson")
		if a := s.do(q); a.status != 200 || !strings.Contains(string(a.body[len(a.body)-100:]), `"created":100000`) {
			b.Fatalf("%d %.200s", a.status, a.body)
		}
	}
	b.ReportMetric(100_000*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
