package e2e

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse/e2e/proc"
	"github.com/terselink/terse/internal/testengine"
)

// TestWarmStart starts a server while its database is away, as after a crash in the middle of an outage. What was visited
// before redirects with its rules, campaign and expiry from the disk; what is not known is 503 and never 404;
// clicks are counted; the control plane says 503. When the database is back all goes on without another start.
func TestWarmStart(t *testing.T) {
	proxy, through := testengine.NewProxy(t, newDatabase(t))
	o := proc.Options{Bin: bin, Data: t.TempDir(), Env: append(onPostgres(through), quick...)}
	w := &warmStart{t: t, visitor: &http.Client{
		Timeout: time.Minute, Transport: &http.Transport{MaxIdleConnsPerHost: 4},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	t.Cleanup(w.visitor.CloseIdleConnections)
	w.start(o)
	o.RedirectAddr, o.ControlAddr, o.NoWait = w.s.RedirectAddr, w.s.ControlAddr, true

	const dest = "https://example.com/"
	w.link(`{"destination":"https://example.com/plain","code":"plain"}`)
	w.link(`{"destination":"https://example.com/ruled","code":"ruled","rules":[{"conditions":[{"type":"language","values":["de"]}],"destination":"https://example.com/de"}]}`)
	w.link(`{"destination":"https://example.com/late","code":"late","expires_at":"` + time.Now().Add(24*time.Hour).UTC().Format(time.RFC3339) + `"}`)
	w.link(`{"destination":"https://example.com/past","code":"past","expires_at":"` + time.Now().Add(15*time.Second).UTC().Format(time.RFC3339) + `"}`)
	w.link(`{"destination":"https://example.com/limited","code":"limited","max_clicks":100}`)
	w.link(`{"destination":"https://example.com/cold","code":"cold"}`)
	w.link(`{"destination":"https://example.com/off","code":"off"}`)
	var l madeLink
	w.api("GET", "/api/v1/links/lookup?short_url=http://"+w.s.Host+"/off", nil, &l, 200)
	w.api("PATCH", "/api/v1/links/"+l.ID, map[string]string{"status": "disabled"}, nil, 200)
	var camp struct {
		ID string `json:"id"`
	}
	w.api("POST", "/api/v1/campaigns", map[string]string{"name": "c", "destination": "https://example.com/shop/{sku}"}, &camp, 201)
	got, err := w.a.do(t.Context(), "POST", "/api/v1/campaigns/"+camp.ID+"/links", strings.NewReader(`{"sku":"A 17"}`+"\n"), "Content-Type", ndjsonType)
	if err != nil || got.status != 200 {
		t.Fatalf("links of a campaign: %v, %+v", err, got)
	}
	shared := pathOf(firstShortURL(t, got.body))

	warm := func() {
		t.Helper()
		w.want("/plain", "", 302, dest+"plain")
		w.want("/ruled", "", 302, dest+"ruled")
		w.want("/ruled", "de", 302, dest+"de")
		w.want("/late", "", 302, dest+"late")
		w.want("/off", "", 410, "")
		w.want("/past", "", 410, "")
		w.want(shared, "", 302, dest+"shop/A%2017")
	}
	until(t, 3*time.Minute, "a link expires", func() bool { status, _, _ := w.visit(w.s.Host, "/past", ""); return status == 410 })
	warm()
	w.want("/cold", "", 302, dest+"cold")
	// A link that was visited and then changed is kept as it was changed.
	w.api("GET", "/api/v1/links/lookup?short_url=http://"+w.s.Host+"/cold", nil, &l, 200)
	w.api("DELETE", "/api/v1/links/"+l.ID, nil, nil, 204)
	w.link(`{"destination":"https://example.com/unseen","code":"unseen"}`)
	w.stop()

	proxy.Refuse()
	w.start(o)
	w.away = true
	until(t, 3*time.Minute, "warm links redirect", func() bool { status, _, _ := w.visit(w.s.Host, "/plain", ""); return status == 302 })
	const outage = 5
	for range outage {
		warm()
	}
	for _, path := range []string{"/unseen", "/cold", "/nobody", "/limited"} {
		status, _, header := w.visit(w.s.Host, path, "")
		if status != 503 || header.Get("Retry-After") == "" {
			t.Errorf("%s without the database: %d, Retry-After %q; want 503", path, status, header.Get("Retry-After"))
		}
	}
	if status, _, _ := w.visit("new.example.com", "/x", ""); status != 503 {
		t.Errorf("a domain that may be new: %d, want 503", status)
	}
	if status, body := w.readyz(w.s.RedirectAddr); status != 200 || !strings.Contains(body, "redirect: ok\n") || !strings.Contains(body, "store: degraded (") {
		t.Errorf("/readyz of the redirect plane: %d\n%s\nwant 200 and a degraded store", status, body)
	}
	if status, body := w.readyz(w.s.ControlAddr); status != 503 || !strings.Contains(body, "store: down") || !strings.Contains(body, "redirect: ok") {
		t.Errorf("/readyz of the control plane: %d\n%s\nwant 503", status, body)
	}
	if got, err := w.a.do(t.Context(), "POST", "/api/v1/links", strings.NewReader(`{"destination":"https://example.com/"}`)); err != nil || got.status != 503 || got.header.Get("Retry-After") == "" {
		t.Errorf("a creation without the database: %v, %+v; want 503", err, got)
	}
	w.stop() // in order, although it never reached its database

	w.start(o)
	until(t, 3*time.Minute, "warm links redirect again", func() bool { status, _, _ := w.visit(w.s.Host, "/late", ""); return status == 302 })
	warm()
	proxy.Pass()
	until(t, 3*time.Minute, "the control plane serves without another start", func() bool {
		status, body := w.readyz(w.s.ControlAddr)
		return status == 200 && strings.Contains(body, "store: ok")
	})
	// A database that has just come back may need another moment.
	w.away = false
	until(t, 3*time.Minute, "what was not kept is known", func() bool { status, _, _ := w.visit(w.s.Host, "/unseen", ""); return status == 302 })
	warm()
	w.want("/cold", "", 404, "")
	w.want("/nobody", "", 404, "")
	if status, _, _ := w.visit("new.example.com", "/x", ""); status != 404 {
		t.Errorf("an unknown domain with the database: %d, want 404", status)
	}
	w.want("/limited", "", 302, dest+"limited")
	w.link(`{"destination":"https://example.com/new","code":"new"}`)
	w.want("/new", "", 302, dest+"new")

	var who struct {
		Client   string `json:"client"`
		VisitURL string `json:"visit_url"`
	}
	w.api("GET", "/api/v1/whoami", nil, &who, 200)
	if status, to, _ := w.visit(w.s.Host, strings.TrimPrefix(who.VisitURL, "http://"+w.s.Host), ""); status != 200 || to != "" || who.Client != "127.0.0.1" {
		t.Errorf("whoami: %+v, whose visit is %d to %q", who, status, to)
	}

	w.api("GET", "/api/v1/links/lookup?short_url=http://"+w.s.Host+"/plain", nil, &l, 200)
	const visits = 1 + 1 + outage + 2 // first life, the visit that found it warm, the outage, the third life
	until(t, 3*time.Minute, "the clicks of all three lives are counted", func() bool {
		var sum struct {
			Total int `json:"total"`
		}
		got, err := w.a.json(t.Context(), "GET", "/api/v1/analytics/summary?bots=include&link_id="+l.ID, nil, &sum)
		if err == nil && got.status == 200 && sum.Total > visits {
			t.Fatalf("%d clicks counted of %d", sum.Total, visits)
		}
		return err == nil && got.status == 200 && sum.Total == visits
	})
	w.stop()
}

// warmStart is a server that is started several times on one data folder.
type warmStart struct {
	t       *testing.T
	s       *proc.Server
	a       *api
	visitor *http.Client
	away    bool // the database
}

func (w *warmStart) start(o proc.Options) {
	w.t.Helper()
	s, err := proc.Start(w.t.Context(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.s, w.a = s, newAPI(w.t, s)
	w.t.Cleanup(func() {
		select {
		case <-s.Done():
		default:
			_ = s.Kill()
			if w.t.Failed() {
				w.t.Log(s.Log())
			}
		}
	})
}

func (w *warmStart) stop() {
	w.t.Helper()
	if err := w.s.Stop(); err != nil {
		w.t.Fatalf("stop: %v\n%s", err, w.s.Log())
	}
}

func (w *warmStart) api(method, path string, in, out any, status int) {
	w.t.Helper()
	if got, err := w.a.json(w.t.Context(), method, path, in, out); err != nil || got.status != status {
		w.t.Fatalf("%s %s: %v, %+v", method, path, err, got)
	}
}

func (w *warmStart) link(body string) {
	w.t.Helper()
	if got, err := w.a.do(w.t.Context(), "POST", "/api/v1/links", strings.NewReader(body)); err != nil || got.status != 201 {
		w.t.Fatalf("create %s: %v, %d %s", body, err, got.status, got.body)
	}
}

func (w *warmStart) visit(host, path, language string) (status int, location string, header http.Header) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), "GET", "http://"+w.s.RedirectAddr+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Host = host
	req.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0")
	req.Header.Set("Accept-Language", language)
	resp, err := w.visitor.Do(req)
	if err != nil {
		return 0, err.Error(), nil
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode, resp.Header.Get("Location"), resp.Header
}

func (w *warmStart) want(path, language string, status int, location string) {
	w.t.Helper()
	got, to, _ := w.visit(w.s.Host, path, language)
	if got == 503 && !w.away { // a database on a busy machine
		until(w.t, 3*time.Minute, path+" is answered", func() bool { got, to, _ = w.visit(w.s.Host, path, language); return got != 503 })
	}
	if got != status || to != location {
		w.t.Errorf("visit of %s: %d to %q, want %d to %q", path, got, to, status, location)
	}
}

func (w *warmStart) readyz(addr string) (status int, body string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), "GET", "http://"+addr+"/readyz", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	resp, err := w.visitor.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	b, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	return resp.StatusCode, string(b)
}

// firstShortURL reads it from the answer of a bulk request.
func firstShortURL(t *testing.T, ndjson []byte) string {
	t.Helper()
	var row struct {
		ShortURL string `json:"short_url"`
	}
	line, _, _ := strings.Cut(string(ndjson), "\n")
	if err := json.Unmarshal([]byte(line), &row); err != nil || row.ShortURL == "" {
		t.Fatalf("no short URL in %q: %v", line, err)
	}
	return row.ShortURL
}
