package redirect

import (
	"net/http"
	"strings"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
)

func TestPolicies(t *testing.T) {
	t.Parallel()
	if n := len(domains.ReferrerPolicies()); 2*n != policyCount {
		t.Fatalf("%d policies", n)
	}
	w := newWorld(t)
	d := w.domain(domains.New{Host: "web.example.com", RootDestination: "https://example.com/root", NotFoundDestination: "https://example.com/lost"})
	w.link("web.example.com", "x", "https://example.com/")
	w.listen()
	for _, maxAge := range []int{0, 60} {
		for _, index := range []bool{false, true} {
			for _, p := range domains.ReferrerPolicies() {
				if _, err := w.domains.Update(t.Context(), 1, d.Host, domains.Patch{SMaxAge: &maxAge, Web: domains.WebPatch{Index: &index, ReferrerPolicy: &p}}, 0); err != nil {
					t.Fatal(err)
				}
				for _, path := range []string{"/x", "/", "/nobody"} {
					res, _ := dial(t, w).roundTrip(t, "GET", "GET "+path+" HTTP/1.1\r\nHost: web.example.com\r\n\r\n")
					robots := "noindex"
					if index {
						robots = ""
					}
					cache := "private, max-age=0"
					if maxAge > 0 && path == "/x" {
						cache = "public, max-age=0, s-maxage=60"
					}
					for name, want := range map[string]string{
						"Referrer-Policy": p, "X-Robots-Tag": robots, "X-Content-Type-Options": "nosniff", "Cache-Control": cache,
					} {
						if got := strings.Join(res.Header.Values(name), "|"); got != want || res.Header.Get("Location") == "" {
							t.Errorf("%s, %s, index %v, s-maxage %d: %s is %q", path, p, index, maxAge, name, got)
						}
					}
				}
			}
		}
	}
}

func TestDomainFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.domain(domains.New{Host: "web.example.com", Web: terse.DomainWeb{
		RobotsTxt: "User-agent: *\nAllow: /only\n", AppleAppSiteAssociation: `{"applinks":{}}`, AssetLinks: `[{"relation":[]}]`, TrailingSlash: terse.TrailingSlashStrict,
	}})
	w.link("web.example.com", "x", "https://example.com/x")
	w.link("web.example.com", "fp", "https://example.com/base", func(l *terse.Link) { l.Settings = &terse.LinkSettings{ForwardPath: true} })
	w.listen()
	for _, tc := range []struct {
		host, path        string
		status            int
		contentType, body string // of a redirect its Location
	}{
		{"go.example.com", "/robots.txt", 200, "text/plain; charset=utf-8", defaultRobots},
		{"web.example.com", "/robots.txt", 200, "text/plain; charset=utf-8", "User-agent: *\nAllow: /only\n"},
		{"web.example.com", "/robots.txt?x=1", 200, "text/plain; charset=utf-8", "User-agent: *\nAllow: /only\n"},
		{"web.example.com", "/.well-known/apple-app-site-association", 200, "application/json", `{"applinks":{}}`},
		{"web.example.com", "/.well-known/assetlinks.json", 200, "application/json", `[{"relation":[]}]`},
		{"go.example.com", "/.well-known/apple-app-site-association", 404, "text/plain; charset=utf-8", "not found\n"},
		{"go.example.com", "/.well-known/assetlinks.json", 404, "text/plain; charset=utf-8", "not found\n"},
		{"web.example.com", "/.well-known/assetlinks.json/", 404, "text/plain; charset=utf-8", "not found\n"},
		{"web.example.com", "/x", 302, "", "https://example.com/x"},
		{"web.example.com", "/x/", 404, "text/html; charset=utf-8", ""},
		{"web.example.com", "/fp", 302, "", "https://example.com/base"},
		{"web.example.com", "/fp/", 302, "", "https://example.com/base/"},
		{"web.example.com", "/fp/a/", 302, "", "https://example.com/base/a/"},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			res, body := dial(t, w).roundTrip(t, method, method+" "+tc.path+" HTTP/1.1\r\nHost: "+tc.host+"\r\n\r\n")
			got := string(body)
			if tc.status == http.StatusFound {
				got = res.Header.Get("Location")
			}
			if res.StatusCode != tc.status || res.Header.Get("Content-Type") != tc.contentType {
				t.Errorf("%s %s%s: %d %s", method, tc.host, tc.path, res.StatusCode, res.Header.Get("Content-Type"))
			}
			if tc.body != "" && got != tc.body && (method == "GET" || tc.status == http.StatusFound) {
				t.Errorf("%s %s%s: %q; want %q", method, tc.host, tc.path, got, tc.body)
			}
			if cc := res.Header.Get("Cache-Control"); tc.status == 200 && cc != "public, max-age=3600" {
				t.Errorf("%s %s%s: Cache-Control %q", method, tc.host, tc.path, cc)
			}
		}
	}
}
