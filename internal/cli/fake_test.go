package cli

import (
	"bufio"
	"cmp"
	"encoding/csv"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse/client"
)

// ownerKey is the key that the fake control plane knows.
const ownerKey = "terse_owner_0123456789abcdefghijklmnop"

// fakePlane is a control plane made of the HTTP contract and nothing else: enough rules
// to see that the command line asks for the right things.
type fakePlane struct {
	*httptest.Server
	mu      sync.Mutex // held during every request
	links   []*client.Link
	domains []*client.Domain
	camps   []*client.Campaign
	repeats map[string]int // rows that were answered under an Idempotency-Key
	keys    []*client.Key
	cutAt   int    // rows after which a bulk answer is cut; 0: never
	cutWhy  string // the code that it then says; "": none
}

var fakeTime = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

func newFakePlane() *fakePlane {
	f := &fakePlane{domains: []*client.Domain{{
		Host: "localhost:8080", Scheme: "http", Shared: true, Default: true, InService: true, CodeLength: 7, Alphabet: "base62", Strategy: "permuted", RedirectStatus: 302,
		CreatedAt: fakeTime, UpdatedAt: fakeTime, Version: 1,
	}}}
	mux := http.NewServeMux()
	handle := func(pattern string, h func(w http.ResponseWriter, r *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer "+ownerKey {
				answerProblem(w, 401, "unauthorized", "the request carries no valid key", "")
				return
			}
			if ws := r.Header.Get("Terse-Workspace"); ws != "" && ws != "ws_1" {
				answerProblem(w, 404, "not_found", "there is no such workspace", "")
				return
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if err := h(w, r); err != nil {
				panic(err)
			}
		})
	}
	handle("POST /api/v1/links", f.createLink)
	handle("GET /api/v1/links", f.listLinks)
	handle("GET /api/v1/links/lookup", f.lookup)
	handle("GET /api/v1/links/{id}", f.withLink(func(w http.ResponseWriter, _ *http.Request, l *client.Link) error { return answer(w, 200, l) }))
	handle("GET /api/v1/links/{id}/qr", f.withLink(func(w http.ResponseWriter, r *http.Request, _ *client.Link) error {
		_, err := io.WriteString(w, r.URL.Path+" "+r.URL.RawQuery) // the script reads the request back
		return err
	}))
	handle("PATCH /api/v1/links/{id}", f.withLink(f.patchLink))
	handle("DELETE /api/v1/links/{id}", f.withLink(f.deleteLink))
	handle("POST /api/v1/links/bulk", f.bulk)
	f.handleCampaigns(handle)
	handle("GET /api/v1/domains", func(w http.ResponseWriter, _ *http.Request) error { return answer(w, 200, dataOf(f.domains)) })
	handle("GET /api/v1/domains/{host}", f.domain)
	handle("PATCH /api/v1/domains/{host}", f.domain)
	handle("DELETE /api/v1/domains/{host}", func(w http.ResponseWriter, r *http.Request) error {
		answerProblem(w, 409, "domain_in_use", "the domain has links", "")
		return nil
	})
	handle("POST /api/v1/domains", func(w http.ResponseWriter, r *http.Request) error {
		d := &client.Domain{Scheme: "https", InService: true, CodeLength: 7, Alphabet: "base62", Strategy: "permuted", RedirectStatus: 302, CreatedAt: fakeTime}
		f.domains = append(f.domains, d)
		return merge(w, r, 201, d)
	})
	handle("GET /api/v1/keys", func(w http.ResponseWriter, _ *http.Request) error { return answer(w, 200, dataOf(f.keys)) })
	handle("POST /api/v1/keys", func(w http.ResponseWriter, r *http.Request) error {
		k := &client.Key{ID: "k0000001", CreatedAt: fakeTime}
		f.keys = append(f.keys, k)
		shown := *k
		shown.Secret = "terse_k0000001_secret"
		if err := merge(w, r, 201, &shown); err != nil {
			return err
		}
		k.Name, k.Scopes = shown.Name, shown.Scopes
		return nil
	})
	handle("DELETE /api/v1/keys/{id}", func(w http.ResponseWriter, r *http.Request) error { w.WriteHeader(204); return nil })
	workspace := &client.Workspace{ID: "ws_1", Name: "default", CreatedAt: fakeTime}
	handle("GET /api/v1/workspaces", func(w http.ResponseWriter, _ *http.Request) error {
		return answer(w, 200, dataOf([]*client.Workspace{workspace}))
	})
	handle("POST /api/v1/workspaces", func(w http.ResponseWriter, r *http.Request) error {
		return merge(w, r, 201, &client.Workspace{ID: "ws_2", CreatedAt: fakeTime})
	})
	handle("PATCH /api/v1/workspaces/{id}", func(w http.ResponseWriter, r *http.Request) error { return merge(w, r, 200, workspace) })
	handle("GET /api/v1/nodes", func(w http.ResponseWriter, _ *http.Request) error {
		return answer(w, 200, dataOf([]*client.Node{
			{ID: "a-1", Name: "edge", Roles: []string{"redirect"}, State: "dead", Version: "v1", RedirectAddress: "10.0.0.1:80", ControlAddress: "10.0.0.1:81", StartedAt: fakeTime, SeenAt: fakeTime},
			{ID: "b-1", Name: "main", Roles: []string{"control", "worker"}, State: "alive", Version: "v2", Analytics: "clickhouse", StartedAt: fakeTime, SeenAt: fakeTime, Self: true},
			{ID: "c-1", Name: "paris", Roles: []string{"redirect"}, State: "alive", Version: "v2", Analytics: "duckdb", StartedAt: fakeTime, SeenAt: fakeTime},
		}))
	})
	handle("GET /api/v1/whoami", func(w http.ResponseWriter, r *http.Request) error {
		return answer(w, 200, client.Whoami{
			Subject: "owner", Owner: true, WorkspaceID: "ws_1", Scopes: []string{"*"}, Client: "192.0.2.7", Peer: "127.0.0.1", PeerTrusted: true,
			VisitURL: f.URL + "/_/whoami?ticket=" + r.FormValue("domain"), VisitUntil: fakeTime,
		})
	})
	mux.HandleFunc("GET /geo/country.mmdb", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, "../geo/data/country.mmdb") })
	mux.HandleFunc("GET /_/whoami", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" || r.FormValue("ticket") == "gone.example.com" {
			w.WriteHeader(404)
			return
		}
		_ = answer(w, 200, client.Seen{
			Client: "192.0.2.7", ClientFrom: "x-forwarded-for", Peer: "10.0.0.1", PeerTrusted: true, XForwardedFor: []string{"192.0.2.7"}, Scheme: "https", SchemeFrom: "x-forwarded-proto",
			Host: "go.example.com", Domain: "go.example.com", BaseURL: "https://go.example.com/", Country: "DE", Browser: r.Header.Get("User-Agent"),
		})
	})
	handle("GET /api/v1/analytics/{what}", f.analytics)
	handle("GET /api/v1/clicks", f.clicks)
	export := client.Export{ID: "exp_1", State: "running", Format: "csv", Rows: 1234, From: fakeTime, To: fakeTime}
	handle("POST /api/v1/exports", func(w http.ResponseWriter, r *http.Request) error {
		var in map[string]any
		if err := json.UnmarshalRead(r.Body, &in); err != nil {
			return err
		}
		export.Format = fmt.Sprint(in["format"], in["tag"], in["all"])
		if in["raw_csv"] == true {
			export.Format += " raw"
			export.CompleteFrom = fakeTime
		}
		return answer(w, 201, export)
	})
	handle("GET /api/v1/exports", func(w http.ResponseWriter, _ *http.Request) error {
		return answer(w, 200, dataOf([]client.Export{export}))
	})
	schedule := client.ExportSchedule{ID: "exps_1", Every: "hourly", Format: "csv", State: "failing", NextFrom: fakeTime, Objects: 1234, Error: "the bucket does not answer"}
	handle("POST /api/v1/exports/schedules", func(w http.ResponseWriter, r *http.Request) error {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		if strings.Contains(string(body), "raw_csv") {
			schedule.LastObject = string(body) // the script reads the request back
			schedule.Again, schedule.Incomplete = 2, 1
		}
		if err := json.Unmarshal(body, &schedule); err != nil {
			return err
		}
		return answer(w, 201, schedule)
	})
	handle("GET /api/v1/exports/schedules", func(w http.ResponseWriter, _ *http.Request) error {
		return answer(w, 200, dataOf([]client.ExportSchedule{schedule}))
	})
	handle("GET /api/v1/exports/schedules/{id}", func(w http.ResponseWriter, _ *http.Request) error { return answer(w, 200, schedule) })
	handle("PATCH /api/v1/exports/schedules/{id}", func(w http.ResponseWriter, r *http.Request) error { return merge(w, r, 200, &schedule) })
	handle("DELETE /api/v1/exports/schedules/{id}", func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(204); return nil })
	handle("GET /api/v1/exports/{id}", func(w http.ResponseWriter, r *http.Request) error {
		e := export // done when it is asked for the second time
		export.State, export.FileURL = "done", "/x/file"
		return answer(w, 200, e)
	})
	handle("DELETE /api/v1/exports/{id}", func(w http.ResponseWriter, r *http.Request) error {
		if r.PathValue("id") != export.ID {
			answerProblem(w, 404, "not_found", "there is no such export", "")
			return nil
		}
		export.ID = "" // it is gone
		w.WriteHeader(204)
		return nil
	})
	mux.HandleFunc("GET /x/file", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "the file, key: "+r.Header.Get("Authorization")+"\n")
	})
	handle("POST /api/v1/analytics/erase", func(w http.ResponseWriter, r *http.Request) error {
		var in struct{ LinkID, Visitor string }
		if err := json.UnmarshalRead(r.Body, &in, json.MatchCaseInsensitiveNames(true)); err != nil {
			return err
		}
		return answer(w, 200, client.Erased{Clicks: 4321, Remains: []client.Remainder{{What: "spool", Text: "the spool"}}})
	})
	share := client.Share{ID: "share_1", URL: "/s/share_1"}
	handle("POST /api/v1/shares", func(w http.ResponseWriter, r *http.Request) error { return merge(w, r, 201, &share) })
	handle("GET /api/v1/shares", func(w http.ResponseWriter, _ *http.Request) error {
		return answer(w, 200, dataOf([]client.Share{share, {ID: "share_2", Name: "all", HasPassword: true}}))
	})
	handle("DELETE /api/v1/shares/{id}", func(w http.ResponseWriter, r *http.Request) error {
		if r.PathValue("id") != "share_1" {
			answerProblem(w, 404, "not_found", "there is no such share", "")
			return nil
		}
		w.WriteHeader(204)
		return nil
	})
	handle("POST /api/v1/conversions", func(w http.ResponseWriter, r *http.Request) error {
		status := 201
		if r.Header.Get("Idempotency-Key") == "" {
			status = 500
		}
		conv := client.Conversion{ID: "conv_1"}
		if err := json.UnmarshalRead(r.Body, &conv); err != nil { // the rest of the body is shown as it came
			return err
		}
		if conv.InvoiceID == "again" {
			status = 200
		}
		return answer(w, status, conv)
	})
	handle("GET /api/v1/clicks/live", f.live)
	f.Server = httptest.NewUnstartedServer(mux) // before a request reads its URL
	f.Start()
	return f
}

func (f *fakePlane) createLink(w http.ResponseWriter, r *http.Request) error {
	var n client.NewLink
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, &n, json.RejectUnknownMembers(true)); err != nil {
		answerProblem(w, 400, "invalid", err.Error(), "body")
		return nil
	}
	l, code, message, field := f.insert(n)
	switch {
	case code == "alias_taken":
		answerProblem(w, 409, code, message, field)
	case code != "":
		answerProblem(w, 422, code, message, field)
	case n.IfExists == "reuse":
		return answer(w, 200, l)
	default: // what a link shows as it was given
		l.HasPassword = n.Password != ""
		if err := json.Unmarshal(body, l); err != nil {
			return err
		}
		return answer(w, 201, l)
	}
	return nil
}

// insert applies the rules that the tests need.
func (f *fakePlane) insert(n client.NewLink) (l *client.Link, code, message, field string) {
	if !strings.HasPrefix(n.Destination, "https://") && !strings.HasPrefix(n.Destination, "http://") {
		return nil, "invalid_destination", "the destination has no scheme; http or https is needed", "destination"
	}
	if n.IfExists == "reuse" {
		for _, l := range f.links {
			if l.Destination == n.Destination {
				return l, "", "", ""
			}
		}
	}
	number := len(f.links) + 1
	l = &client.Link{
		ID: fmt.Sprintf("link_%013d", number), Domain: "localhost:8080", Code: fmt.Sprintf("c%06d", number), Destination: n.Destination, Title: n.Title,
		Tags: n.Tags, ExternalID: n.ExternalID, Status: "active", CreatedAt: fakeTime, UpdatedAt: fakeTime, ExpiresAt: n.ExpiresAt, RedirectStatus: 302, Metadata: n.Metadata, Version: 1,
	}
	if n.RedirectStatus != 0 {
		l.RedirectStatus = n.RedirectStatus
	}
	if n.Domain != "" {
		l.Domain = n.Domain
	}
	if n.Code != "" {
		if slices.ContainsFunc(f.links, func(o *client.Link) bool { return o.Code == n.Code }) {
			return nil, "alias_taken", "the code is taken", "code"
		}
		l.Code = n.Code
	}
	l.ShortURL = "http://" + l.Domain + "/" + l.Code
	f.links = append(f.links, l)
	return l, "", "", ""
}

func (f *fakePlane) listLinks(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	found := []*client.Link{}
	for _, l := range slices.Backward(f.links) {
		if tag := q.Get("tag"); tag == "" || slices.Contains(l.Tags, tag) {
			found = append(found, l)
		}
	}
	return answer(w, 200, dataOf(found))
}

func (f *fakePlane) lookup(w http.ResponseWriter, r *http.Request) error {
	for _, l := range f.links {
		if l.ShortURL == r.URL.Query().Get("short_url") {
			return answer(w, 200, l)
		}
	}
	answerProblem(w, 404, "not_found", "there is no such link", "")
	return nil
}

func (f *fakePlane) withLink(h func(http.ResponseWriter, *http.Request, *client.Link) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		for _, l := range f.links {
			if l.ID == r.PathValue("id") {
				return h(w, r, l)
			}
		}
		answerProblem(w, 404, "not_found", "there is no such link", "")
		return nil
	}
}

func (f *fakePlane) patchLink(w http.ResponseWriter, r *http.Request, l *client.Link) error {
	if match := r.Header.Get("If-Match"); match != "" && match != fmt.Sprintf("%q", fmt.Sprint(l.Version)) {
		answerProblem(w, 412, "precondition", "the version has changed", "")
		return nil
	}
	l.Version++
	return merge(w, r, 200, l)
}

func (f *fakePlane) deleteLink(w http.ResponseWriter, _ *http.Request, l *client.Link) error {
	f.links = slices.DeleteFunc(f.links, func(o *client.Link) bool { return o == l })
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (f *fakePlane) domain(w http.ResponseWriter, r *http.Request) error {
	for _, d := range f.domains {
		if d.Host == r.PathValue("host") {
			if r.Method == http.MethodPatch {
				return merge(w, r, 200, d)
			}
			return answer(w, 200, d)
		}
	}
	answerProblem(w, 404, "not_found", "there is no such domain", "")
	return nil
}

// bulk answers every row as it reads it.
func (f *fakePlane) bulk(w http.ResponseWriter, r *http.Request) error {
	rc := http.NewResponseController(w)
	if err := rc.EnableFullDuplex(); err != nil {
		return err
	}
	if r.URL.Query().Get("domain") == "unknown.example" {
		answerProblem(w, 422, "unknown_domain", "there is no such domain", "domain")
		return nil
	}
	var failed, n int
	row := func(l client.NewLink) {
		if f.cutAt > 0 && n == f.cutAt {
			if f.cutWhy != "" {
				fmt.Fprintf(w, `{"done":false,"error":{"code":%q,"message":"the reason"}}`+"\n", f.cutWhy)
				rc.Flush()
			}
			panic(http.ErrAbortHandler)
		}
		made, code, message, _ := f.insert(l)
		var line []byte
		if code != "" {
			failed++
			line, _ = json.Marshal(map[string]any{"index": n, "external_id": l.ExternalID, "error": map[string]string{"code": code, "message": message}})
		} else {
			line = fmt.Appendf(nil, `{"index":%d,"short_url":%q,"code":%q,"id":%q,"external_id":%q}`, n, made.ShortURL, made.Code, made.ID, l.ExternalID)
		}
		w.Write(append(line, '\n'))
		rc.Flush()
		n++
	}
	switch r.Header.Get("Content-Type") {
	case "text/csv":
		rows := csv.NewReader(r.Body)
		rows.FieldsPerRecord = -1
		header, err := rows.Read()
		if err != nil {
			return err
		}
		for _, column := range header {
			if !slices.Contains(fieldNames, column) {
				answerProblem(w, 422, "unknown_column", fmt.Sprintf("the column %q is not a field of a link", column), "header")
				return nil
			}
		}
		for {
			record, err := rows.Read()
			if err == io.EOF {
				break
			}
			if err != nil {
				return err
			}
			var l client.NewLink
			if len(record) == len(header) {
				for i, column := range header {
					switch column {
					case "destination":
						l.Destination = record[i]
					case "external_id":
						l.ExternalID = record[i]
					}
				}
			}
			row(l)
		}
	case "application/x-ndjson":
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			var l client.NewLink
			if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
				return err
			}
			row(l)
		}
	case "application/json":
		var all []client.NewLink
		if err := json.UnmarshalRead(r.Body, &all); err != nil {
			return err
		}
		for _, l := range all {
			row(l)
		}
	}
	if f.cutAt > 0 {
		panic(http.ErrAbortHandler)
	}
	fmt.Fprintf(w, `{"done":true,"created":%d,"reused":0,"failed":%d}`+"\n", n-failed, failed)
	return nil
}

// analytics answers with canned numbers that depend on the query where a test looks.
func (f *fakePlane) analytics(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if q.Get("tz") == "Nowhere/Land" {
		answerProblem(w, 422, "invalid", "there is no such time zone", "query.tz")
		return nil
	}
	switch r.PathValue("what") {
	case "summary":
		sum := client.Summary{From: fakeTime.Add(-30 * 24 * time.Hour), To: fakeTime, Clicks: 12345, Visitors: 987, Bots: 42, QR: 3, LagMS: 61_000}
		if q.Get("tag") == "sold" {
			sum.Sales, sum.Refunds, sum.Revenue = 3, 2, []client.Amount{{Currency: "EUR", Amount: 123456, Sales: 1}, {Currency: "JPY", Amount: 1999, Sales: 1}, {Currency: "KWD", Amount: -1999, Sales: 1}}
		}
		if q.Get("compare") == "previous" {
			sum.Previous = &client.Summary{Clicks: 10000, Visitors: 987, Bots: 84}
		}
		return answer(w, 200, sum)
	case "conversions":
		return f.conversions(w, q)
	case "heatmap":
		h := client.Heatmap{Clicks: make([][]int64, 7), Total: 4}
		for d := range h.Clicks {
			h.Clicks[d] = make([]int64, 24)
		}
		h.Clicks[2][9], h.Clicks[6][23] = 3, 1
		return answer(w, 200, h)
	case "timeseries":
		ts := client.Timeseries{Interval: cmp.Or(q.Get("interval"), "day")}
		zone, err := time.LoadLocation(q.Get("tz"))
		if err != nil {
			return err
		}
		// Days of the zone, told in UTC as the server does.
		day := func(n int) time.Time {
			year, month, today := fakeTime.In(zone).Date()
			return time.Date(year, month, today+n, 0, 0, 0, 0, zone).UTC()
		}
		for i := range int64(30) {
			if q.Has("compare") {
				ts.Previous = append(ts.Previous, client.Point{T: day(int(i) - 59), Clicks: 9 * i})
			}
			ts.Data = append(ts.Data, client.Point{T: day(int(i) - 29), Clicks: (i * i * 7) % 101})
		}
		return answer(w, 200, ts)
	}
	switch by := q.Get("by"); by {
	case "browser", "bot": // the label is the query, for the script to read back
		b := client.Breakdown{Data: []client.Row{{Value: "a", Label: q.Encode(), Clicks: 8000, Visitors: 50}, {Value: "b", Clicks: 3000, Visitors: 40}}, Other: 7, Total: 11007}
		if q.Has("compare") {
			for i := range b.Data {
				b.Data[i].Previous = &struct {
					Clicks   int64 `json:"clicks"`
					Visitors int64 `json:"visitors"`
				}{Clicks: 4000 - 4000*int64(i), Visitors: 60}
			}
		}
		return answer(w, 200, b)
	case "country":
		return answer(w, 200, client.Breakdown{Data: []client.Row{{Value: "DE", Clicks: 8000}, {Value: "AT", Clicks: 3000}, {Value: "", Clicks: 345}}, Other: 1000, Total: 12345})
	case "referrer":
		return answer(w, 200, client.Breakdown{Data: []client.Row{{Value: "", Clicks: 12000}, {Value: "evil\x1b[31m.example", Clicks: 345}}, Total: 12345})
	case "device":
		return answer(w, 200, client.Breakdown{})
	case "link":
		return answer(w, 200, client.Breakdown{Data: []client.Row{{Value: "link_1", Label: "localhost:8080/summer", Clicks: 1}}, Total: 1})
	default:
		answerProblem(w, 422, "invalid", fmt.Sprintf("%q is no dimension", by), "query.by")
		return nil
	}
}

// conversions answers with canned numbers; the value of a breakdown is the query, for the script to read back.
func (f *fakePlane) conversions(w http.ResponseWriter, q url.Values) error {
	r := map[string]any{
		"from": fakeTime.Add(-30 * 24 * time.Hour), "to": fakeTime, "clicks": 2000, "leads": 50, "sales": 12, "refunds": 1, "customs": 3, "lead_clicks": 40, "sale_clicks": 10,
		"revenue":       []client.Amount{{Currency: "EUR", Amount: 123456, Sales: 11, Refunds: 1}, {Currency: "JPY", Amount: 1999, Sales: 1}},
		"new_customers": 7, "returning_customers": 2, "pending": 4,
	}
	switch by := q.Get("by"); by {
	case "":
	case "outcome":
		answerProblem(w, 422, "invalid", "conversions have no outcome", "query.by")
		return nil
	case "utm_term":
		r["by"] = map[string]any{"data": []any{}}
	default:
		r["by"] = map[string]any{"other": 2, "total": 12, "values": 5, "data": []map[string]any{
			{"value": "news", "leads": 30, "sales": 8, "refunds": 1, "customs": 3, "revenue": 100000}, {"value": "", "leads": 20, "sales": 2, "customs": 0, "revenue": 23456}, {"value": "x", "label": q.Encode(), "sales": 0},
		}}
	}
	return answer(w, 200, r)
}

// clicks answers with three clicks in two pages, or with the query as a file.
func (f *fakePlane) clicks(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if q.Get("format") != "" {
		_, err := io.WriteString(w, r.URL.RawQuery+"\n") // the script reads the request back
		return err
	}
	row := client.Click{ID: "click_1", Ts: fakeTime, Domain: "localhost:8080", Code: "summer", Outcome: "redirect", Bot: "human", Country: "DE", Device: "mobile", Browser: "Safari"}
	if q.Get("cursor") != "" {
		row.Bot, row.BotName, row.Code = "preview", "Slackbot", "evil\x1b[31m"
		return answer(w, 200, dataOf([]client.Click{row}))
	}
	next := "click_1"
	return answer(w, 200, map[string]any{"data": []client.Click{row, row}, "next_cursor": next})
}

// live shows a click, more clicks than are shown, and ends; whoever comes back after that is refused.
func (f *fakePlane) live(w http.ResponseWriter, r *http.Request) error {
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		answerProblem(w, 422, "invalid", "came back after "+last+" with "+r.URL.RawQuery, "")
		return nil
	}
	w.Header().Set("Content-Type", "text/event-stream")
	_, err := io.WriteString(w, "retry: 2000\n\n: still there\n\nid: a-1\nevent: click\ndata: "+
		`{"ts":"2026-11-23T10:00:00.5Z","domain":"localhost:8080","code":"summer","outcome":"expired","bot":"human","country":"DE","device":"mobile"}`+
		"\n\nid: a-2\nevent: counters\ndata: {\"total\":1240,\"shown\":20}\n\nevent: gap\ndata: {}\n\n")
	return err
}

func dataOf[T any](items []T) any {
	return struct {
		Data       []T     `json:"data"`
		NextCursor *string `json:"next_cursor"`
	}{items, nil}
}

func answer(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	return json.MarshalWrite(w, v)
}

// merge lays the body over v, which null clears, and answers it.
func merge(w http.ResponseWriter, r *http.Request, status int, v any) error {
	if err := json.UnmarshalRead(r.Body, v); err != nil {
		return err
	}
	return answer(w, status, v)
}

func answerProblem(w http.ResponseWriter, status int, code, detail, location string) {
	p := map[string]any{"type": "about:blank", "title": http.StatusText(status), "status": status, "code": code, "detail": detail, "request_id": "req-1"}
	if location != "" {
		p["errors"] = []map[string]string{{"location": location, "message": detail}}
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	json.MarshalWrite(w, p)
}
