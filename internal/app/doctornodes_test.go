package app

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestTryNode: what is said of a URL that does not lead to the node.
func TestTryNode(t *testing.T) {
	t.Parallel()
	answer := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/under/healthz" || r.URL.Query().Get("node") != "berlin-1" || r.Header.Get("Authorization") != "" {
				status = 599
			}
			w.Header().Set("Location", "https://elsewhere.example")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}
	}
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"the node":        {answer(200, "ok this node\n"), ""},
		"another node":    {answer(421, "another node\n"), "leads to another node"},
		"an older node":   {answer(200, "ok\n"), "older version"},
		"starting":        {answer(503, "not ready\n"), "not ready"},
		"a redirect":      {answer(301, ""), "leads on to https://elsewhere.example"},
		"something else":  {answer(200, "<html>"), "status 200, not as the API"},
		"not found there": {answer(404, ""), "status 404"},
	} {
		s := httptest.NewServer(c.handler)
		if got := tryNode(t.Context(), s.URL+"/under/", "berlin-1"); (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		s.Close()
		if got := tryNode(t.Context(), s.URL, "berlin-1"); !strings.Contains(got, "nobody listens") {
			t.Errorf("%s, after its end: %q", name, got)
		}
	}
	secure := httptest.NewTLSServer(answer(200, "ok this node\n"))
	defer secure.Close()
	plain := httptest.NewServer(answer(200, "ok this node\n"))
	defer plain.Close()
	for at, want := range map[string]string{
		secure.URL: "certificate is not accepted",
		strings.Replace(plain.URL, "http:", "https:", 1): "there is no TLS",
		"http://nowhere.invalid:1":                       "no address",
		"ftp://10.0.0.5":                                 "is no URL",
		"10.0.0.5:8081":                                  "is no URL",
	} {
		if got := tryNode(t.Context(), at, "berlin-1"); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", at, got, want)
		}
	}
}
