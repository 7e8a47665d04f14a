package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/terselink/terse/internal/auth"
)

// description is what the tests read of the OpenAPI document.
type description struct {
	OpenAPI string                          `json:"openapi"`
	Paths   map[string]map[string]opFromDoc `json:"paths"`
}

type opFromDoc struct {
	OperationID string                `json:"operationId"`
	Security    []map[string][]string `json:"security"`
	Parameters  []struct{ Name, In string }
	RequestBody *struct{} `json:"requestBody"`
	method      string
	path        string
}

// operations returns every operation of the OpenAPI document that needs a key.
func operations(t *testing.T, b *bench) []opFromDoc {
	t.Helper()
	var d description
	if err := json.Unmarshal(b.want(200, request{method: "GET", path: "/api/v1/openapi.json", key: "-"}).body, &d); err != nil {
		t.Fatal(err)
	}
	var list []opFromDoc
	if _, there := d.Paths["/s/{id}/stats"]["get"]; !there {
		t.Error("the document lacks the statistics of shares")
	}
	delete(d.Paths, "/s/{id}/stats") // the one that needs no key: TestSharePassword
	for _, path := range slices.Sorted(maps.Keys(d.Paths)) {
		for _, method := range slices.Sorted(maps.Keys(d.Paths[path])) {
			op := d.Paths[path][method]
			op.method, op.path = strings.ToUpper(method), path
			list = append(list, op)
		}
	}
	if len(list) < 20 {
		t.Fatalf("the document has %d operations", len(list))
	}
	return list
}

// things are one thing of each kind, of one workspace.
type things struct{ campaign, link, short, domain, keyID, workspace, key, upload, job, share, export, schedule string }

func makeThings(b *bench, name string) things {
	w, key := b.workspace(name, "*")
	host := name + ".example.com"
	b.want(201, request{method: "POST", path: "/api/v1/domains", key: key, body: fmt.Sprintf(`{"host":%q}`, host)})
	l := b.want(201, request{method: "POST", path: "/api/v1/links", key: key, body: fmt.Sprintf(`{"destination":"https://example.com/","domain":%q}`, host)})
	k := b.want(201, request{method: "POST", path: "/api/v1/keys", key: key, body: `{"name":"other","scopes":["links:read"]}`})
	u := b.want(201, request{method: "POST", path: "/api/v1/uploads", key: key, body: `{"filename":"rows.csv"}`}).text(b.t, "id")
	b.want(200, request{method: "PATCH", path: "/api/v1/uploads/" + u, key: key, body: "destination\nhttps://example.com/job\n", header: map[string]string{"Upload-Offset": "0"}})
	j := b.want(201, request{method: "POST", path: "/api/v1/jobs", key: key, body: fmt.Sprintf(`{"kind":"bulk","source":{"upload_id":%q}}`, u)}).text(b.t, "id")
	export := b.want(201, request{method: "POST", path: "/api/v1/exports", key: key, body: `{"format":"csv"}`}).text(b.t, "id")
	schedule := b.want(201, request{method: "POST", path: "/api/v1/exports/schedules", key: key, body: `{"every":"hourly","format":"csv"}`}).text(b.t, "id")
	share := b.want(201, request{method: "POST", path: "/api/v1/shares", key: key, body: `{"name":"s"}`}).text(b.t, "id")
	camp := b.want(201, request{method: "POST", path: "/api/v1/campaigns", key: key, body: fmt.Sprintf(`{"name":"c","domain":%q,"destination":"https://example.com/"}`, host)})
	return things{share: share, export: export, schedule: schedule, campaign: camp.text(b.t, "id"), upload: u, job: j, link: l.text(b.t, "id"), short: l.text(b.t, "short_url"), domain: host, keyID: k.text(b.t, "id"), workspace: w, key: key}
}

// missing are ids of the same form that nobody has.
var missing = things{
	export:   "exp_000000000000000000000000",
	schedule: "exps_000000000000000000000000",
	share:    "share_0000001" + strings.Repeat("0", 26),
	campaign: "camp_0000000000001",
	link:     "link_0000000000001", short: "https://nobody.example.com/aaaaaaa", domain: "nobody.example.com", keyID: "00000000", workspace: "ws_00000000000zz",
	upload: "upl_00000000000000000000000000", job: "job_00000000000000000000000000",
}

// foreign says how each operation names a thing: the request that acts on t. Every
// operation of the document must be here. nil: it names no thing.
func foreign(t things) map[string][]request {
	return map[string][]request{
		"createLink": {{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","domain":"` + t.domain + `"}`}},
		"listLinks":  {{method: "GET", path: "/api/v1/links?domain=" + t.domain}},
		"lookUpLink": {{method: "GET", path: "/api/v1/links/lookup?short_url=" + t.short}},
		"deleteLinks": {
			{method: "POST", path: "/api/v1/links/delete", body: `{"ids":["` + t.link + `"]}`},
		},
		"getLink":     {{method: "GET", path: "/api/v1/links/" + t.link}},
		"updateLink":  {{method: "PATCH", path: "/api/v1/links/" + t.link, body: `{"title":"mine"}`}},
		"deleteLink":  {{method: "DELETE", path: "/api/v1/links/" + t.link}},
		"getLinkQR":   {{method: "GET", path: "/api/v1/links/" + t.link + "/qr"}},
		"explainLink": {{method: "POST", path: "/api/v1/links/" + t.link + "/explain", body: `{"country":"DE"}`}},
		"bulkLinks": {{method: "POST", path: "/api/v1/links/bulk?domain=" + t.domain, body: `{"destination":"https://example.com/"}`, header: ndjson},
			{method: "POST", path: "/api/v1/links/bulk", body: `{"destination":"https://example.com/","domain":"` + t.domain + `"}`, header: ndjson}},
		"createCampaign":        {{method: "POST", path: "/api/v1/campaigns", body: `{"name":"c","destination":"https://example.com/","domain":"` + t.domain + `"}`}},
		"listCampaigns":         nil,
		"getCampaign":           {{method: "GET", path: "/api/v1/campaigns/" + t.campaign}},
		"updateCampaign":        {{method: "PATCH", path: "/api/v1/campaigns/" + t.campaign, body: `{"name":"mine"}`}},
		"deleteCampaign":        {{method: "DELETE", path: "/api/v1/campaigns/" + t.campaign}},
		"addCampaignLinks":      {{method: "POST", path: "/api/v1/campaigns/" + t.campaign + "/links", body: `{}`, header: ndjson}},
		"generateCampaignLinks": {{method: "POST", path: "/api/v1/campaigns/" + t.campaign + "/links/generate", body: `{"count":1}`}},
		"exportCampaignLinks": {{method: "GET", path: "/api/v1/campaigns/" + t.campaign + "/links"},
			{method: "GET", path: "/api/v1/campaigns/" + t.campaign + "/links?format=csv"}},
		"createDomain": nil, // refused by name, whoever holds it: hosts are unique in the world
		"listDomains":  nil,
		"getDomain":    {{method: "GET", path: "/api/v1/domains/" + t.domain}},
		"updateDomain": {{method: "PATCH", path: "/api/v1/domains/" + t.domain, body: `{"forward_query":true}`}},
		"deleteDomain": {{method: "DELETE", path: "/api/v1/domains/" + t.domain}},
		"analyticsSummary": {{method: "GET", path: "/api/v1/analytics/summary?period=7d&link_id=" + t.link},
			{method: "GET", path: "/api/v1/analytics/summary?period=7d&domain=" + t.domain}},
		"eraseClicks":         nil, // within the workspace alone, whether the link is there or not
		"analyticsTimeseries": {{method: "GET", path: "/api/v1/analytics/timeseries?period=7d&link_id=" + t.link}},
		"analyticsBreakdown":  {{method: "GET", path: "/api/v1/analytics/breakdown?period=7d&by=country&link_id=" + t.link}},
		"analyticsHeatmap":    {{method: "GET", path: "/api/v1/analytics/heatmap?period=7d&link_id=" + t.link}},
		"listClicks": {{method: "GET", path: "/api/v1/clicks?period=7d&link_id=" + t.link},
			{method: "GET", path: "/api/v1/clicks?period=7d&format=csv&domain=" + t.domain}},
		"liveClicks":           {{method: "GET", path: "/api/v1/clicks/live?link_id=" + t.link}, {method: "GET", path: "/api/v1/clicks/live?domain=" + t.domain}},
		"createShare":          {{method: "POST", path: "/api/v1/shares", body: `{"name":"s","link_id":"` + t.link + `"}`}, {method: "POST", path: "/api/v1/shares", body: `{"name":"s","domain":"` + t.domain + `"}`}},
		"listShares":           nil,
		"deleteShare":          {{method: "DELETE", path: "/api/v1/shares/" + t.share}},
		"createExport":         {{method: "POST", path: "/api/v1/exports", body: `{"format":"csv","link_id":"` + t.link + `"}`}, {method: "POST", path: "/api/v1/exports", body: `{"format":"csv","domain":"` + t.domain + `"}`}},
		"listExports":          nil,
		"createExportSchedule": {{method: "POST", path: "/api/v1/exports/schedules", body: `{"every":"daily","format":"csv","link_id":"` + t.link + `"}`}, {method: "POST", path: "/api/v1/exports/schedules", body: `{"every":"daily","format":"csv","domain":"` + t.domain + `"}`}},
		"listExportSchedules":  nil,
		"getExportSchedule":    {{method: "GET", path: "/api/v1/exports/schedules/" + t.schedule}},
		"updateExportSchedule": {{method: "PATCH", path: "/api/v1/exports/schedules/" + t.schedule, body: `{"state":"paused"}`}},
		"deleteExportSchedule": {{method: "DELETE", path: "/api/v1/exports/schedules/" + t.schedule}},
		"getExport":            {{method: "GET", path: "/api/v1/exports/" + t.export}},
		"deleteExport":         {{method: "DELETE", path: "/api/v1/exports/" + t.export}},
		"createConversion":     {{method: "POST", path: "/api/v1/conversions", body: `{"code":"x","domain":"` + t.domain + `","customer_id":"c","kind":"lead"}`}},
		"analyticsConversions": {{method: "GET", path: "/api/v1/analytics/conversions?period=7d&link_id=" + t.link}},
		"createWorkspace":      nil,
		"listWorkspaces":       nil,
		"getWorkspace":         {{method: "GET", path: "/api/v1/workspaces/" + t.workspace}},
		"updateWorkspace":      {{method: "PATCH", path: "/api/v1/workspaces/" + t.workspace, body: `{"name":"mine"}`}},
		"createKey":            {{method: "POST", path: "/api/v1/keys", body: `{"name":"k","scopes":["links:read"],"workspace_id":"` + t.workspace + `"}`}},
		"listKeys":             nil,
		"getKey":               {{method: "GET", path: "/api/v1/keys/" + t.keyID}},
		"deleteKey":            {{method: "DELETE", path: "/api/v1/keys/" + t.keyID}},
		"getSystem":            nil,
		"listNodes":            nil,
		// Of all workspaces, and no part of what a key of one can do: TestEdgeScope.
		"getEdgeLink": nil, "getEdgeDocument": nil, "listEdgeDocuments": nil, "listEdgeChanges": nil, "putEdgeClaim": nil,
		"getEdgeSalts": nil, "getEdgeClicks": nil, "appendEdgeClicks": nil,
		"whoami":       {{method: "GET", path: "/api/v1/whoami?domain=" + t.domain}},
		"createUpload": nil,
		"listJobs":     nil,
		"createJob":    {{method: "POST", path: "/api/v1/jobs", body: `{"kind":"bulk","format":"csv","source":{"upload_id":"` + t.upload + `"}}`}},
		"getUpload":    {{method: "GET", path: "/api/v1/uploads/" + t.upload}},
		"appendUpload": {{method: "PATCH", path: "/api/v1/uploads/" + t.upload, body: "x", header: map[string]string{"Upload-Offset": "0"}}},
		"deleteUpload": {{method: "DELETE", path: "/api/v1/uploads/" + t.upload}},
		"getJob":       {{method: "GET", path: "/api/v1/jobs/" + t.job}},
		"deleteJob":    {{method: "DELETE", path: "/api/v1/jobs/" + t.job}},
		"pauseJob":     {{method: "POST", path: "/api/v1/jobs/" + t.job + "/pause"}},
		"resumeJob":    {{method: "POST", path: "/api/v1/jobs/" + t.job + "/resume"}},
		"cancelJob":    {{method: "POST", path: "/api/v1/jobs/" + t.job + "/cancel"}},
		"rollbackJob":  {{method: "POST", path: "/api/v1/jobs/" + t.job + "/rollback"}},
		"getJobResult": {{method: "GET", path: "/api/v1/jobs/" + t.job + "/result"}},
		"getJobErrors": {{method: "GET", path: "/api/v1/jobs/" + t.job + "/errors"}},
		"jobEvents":    {{method: "GET", path: "/api/v1/jobs/" + t.job + "/events"}},
	}
}

var ndjson = map[string]string{"Content-Type": "application/x-ndjson"}

// What belongs to another workspace is answered byte for byte like what does not exist
// (FAILURES 76), and is not changed.
func TestForeignThings(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	mine, theirs := makeThings(b, "mine"), makeThings(b, "theirs")
	before := b.want(200, request{method: "GET", path: "/api/v1/links", key: theirs.key}).body
	domain := b.want(200, request{method: "GET", path: "/api/v1/domains/" + theirs.domain, key: theirs.key}).body
	onForeign, onMissing := foreign(theirs), foreign(missing)
	replacer := strings.NewReplacer(theirs.link, missing.link, theirs.short, missing.short, theirs.domain, missing.domain, theirs.keyID, missing.keyID, theirs.workspace, missing.workspace,
		theirs.upload, missing.upload, theirs.job, missing.job, theirs.share, missing.share, theirs.export, missing.export)
	for _, op := range operations(t, b) {
		list, ok := onForeign[op.OperationID]
		if !ok {
			t.Errorf("operation %s is not in the table of foreign things", op.OperationID)
		}
		for i, q := range list {
			q.key = mine.key
			got := b.do(q)
			q = onMissing[op.OperationID][i]
			q.key = mine.key
			want := b.do(q)
			if got.status != want.status || replacer.Replace(string(got.body)) != string(want.body) {
				t.Errorf("%s on a foreign thing: %d %s\non a missing one: %d %s", op.OperationID, got.status, got.body, want.status, want.body)
			}
			if want.status/100 == 2 && op.OperationID != "deleteLinks" && op.OperationID != "bulkLinks" {
				t.Errorf("%s on a missing thing: %d %s", op.OperationID, want.status, want.body)
			}
		}
		if op.Security[0]["bearer"][0] == string(auth.ScopeEdgeUse) {
			continue // which the key does not have
		}
		// The header that chooses a workspace chooses none of another one.
		q := request{method: op.method, path: fill(op.path, mine), key: mine.key, header: map[string]string{"Terse-Workspace": theirs.workspace}}
		if a := b.do(q); a.status != http.StatusNotFound {
			t.Errorf("%s with a foreign Terse-Workspace: %d, want 404", op.OperationID, a.status)
		}
	}
	if after := b.want(200, request{method: "GET", path: "/api/v1/links", key: theirs.key}).body; string(after) != string(before) {
		t.Errorf("the other workspace's links were\n%s\nand are\n%s", before, after)
	}
	if after := b.want(200, request{method: "GET", path: "/api/v1/domains/" + theirs.domain, key: theirs.key}).body; string(after) != string(domain) {
		t.Errorf("the other workspace's domain was\n%s\nand is\n%s", domain, after)
	}
	b.want(200, request{method: "GET", path: "/api/v1/keys/" + theirs.keyID, key: theirs.key})
	// A cursor of another workspace opens nothing there.
	b.want(201, request{method: "POST", path: "/api/v1/links", key: theirs.key, body: `{"destination":"https://example.com/2"}`})
	cursor := b.want(200, request{method: "GET", path: "/api/v1/links?limit=1", key: theirs.key}).text(t, "next_cursor")
	a := b.do(request{method: "GET", path: "/api/v1/links?cursor=" + cursor, key: mine.key})
	if strings.Contains(string(a.body), theirs.link) {
		t.Errorf("a foreign cursor shows %s", a.body)
	}
}

func fill(path string, t things) string {
	switch {
	case strings.HasPrefix(path, "/api/v1/links/{id}"):
		return strings.ReplaceAll(path, "{id}", t.link)
	case strings.HasPrefix(path, "/api/v1/campaigns/{id}"):
		return strings.ReplaceAll(path, "{id}", t.campaign)
	case strings.HasPrefix(path, "/api/v1/keys/{id}"):
		return "/api/v1/keys/" + t.keyID
	case strings.HasPrefix(path, "/api/v1/uploads/{id}"):
		return strings.ReplaceAll(path, "{id}", t.upload)
	case strings.HasPrefix(path, "/api/v1/jobs/{id}"):
		return strings.ReplaceAll(path, "{id}", t.job)
	case strings.HasPrefix(path, "/api/v1/workspaces/{id}"):
		return "/api/v1/workspaces/" + t.workspace
	}
	return strings.ReplaceAll(path, "{host}", t.domain)
}

// Every operation of the document demands a key and exactly one scope, the one it names:
// without a key 401, with all other scopes 403, with that one scope neither.
func TestScopes(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	mine := makeThings(b, "mine")
	all := auth.Scopes()
	keys := map[string][2]string{} // scope -> key with all but it, key with only it
	for _, scope := range all {
		var others []string
		for _, o := range all {
			if o != scope && o != auth.ScopeAll {
				others = append(others, string(o))
			}
		}
		keys[string(scope)] = [2]string{b.key(mine.workspace, others...), b.key(mine.workspace, string(scope))}
	}
	for _, op := range operations(t, b) {
		if len(op.Security) != 1 || len(op.Security[0]["bearer"]) != 1 {
			t.Errorf("%s demands %v, want one scope", op.OperationID, op.Security)
			continue
		}
		scope := op.Security[0]["bearer"][0]
		pair, ok := keys[scope]
		if !ok || scope == string(auth.ScopeAll) {
			t.Errorf("%s demands the scope %q, which no key can have alone", op.OperationID, scope)
			continue
		}
		q := request{method: op.method, path: fill(op.path, missing), key: "-"}
		if a := b.wantProblem(401, "unauthorized", q); a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s without a key: %v", op.OperationID, a.header)
		}
		q.key = "terse_00000000_00000000000000000000000000000000000000"
		b.wantProblem(401, "invalid_key", q)
		q.key = pair[0] // with every other scope
		b.wantProblem(403, "forbidden", q)
		q.key = pair[1]
		if a := b.do(q); a.status == 401 || a.status == 403 {
			t.Errorf("%s with the scope %s: %d %s", op.OperationID, scope, a.status, a.body)
		}
	}
}

// Request bodies are closed: what an operation does not know it refuses (FAILURES 77).
func TestUnknownMembers(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	mine := makeThings(b, "mine")
	for _, op := range operations(t, b) {
		// Rows and pieces of files are no JSON objects.
		if op.RequestBody == nil || op.OperationID == "bulkLinks" || op.OperationID == "addCampaignLinks" || op.OperationID == "appendUpload" || op.OperationID == "appendEdgeClicks" {
			continue
		}
		for _, member := range []string{"workspace", "version", "id", "created_by", "hash", "perm_key", "owner"} {
			a := b.do(request{method: op.method, path: fill(op.path, mine), body: fmt.Sprintf(`{%q:"x"}`, member)})
			if a.status != 422 || !strings.Contains(string(a.body), `"body.`+member+`"`) {
				t.Errorf("%s takes %s: %d %s", op.OperationID, member, a.status, a.body)
			}
		}
	}
}

func TestRevokedKey(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	mine := makeThings(b, "mine")
	k := b.want(201, request{method: "POST", path: "/api/v1/keys", key: mine.key, body: `{"name":"k","scopes":["links:read"]}`})
	b.want(200, request{method: "GET", path: "/api/v1/links", key: k.text(t, "key")})
	b.want(204, request{method: "DELETE", path: "/api/v1/keys/" + k.text(t, "id"), key: mine.key})
	b.want(401, request{method: "GET", path: "/api/v1/links", key: k.text(t, "key")})
}

// Keys of a workspace stay within it and do not grow.
func TestKeysDoNotGrow(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	mine := makeThings(b, "mine")
	limited := b.key(mine.workspace, "keys:write", "links:read", "workspaces:write", "domains:write")
	tests := []struct {
		q    request
		code string
	}{
		{request{method: "POST", path: "/api/v1/keys", body: `{"name":"k","scopes":["*"]}`}, "scope_exceeded"},
		{request{method: "POST", path: "/api/v1/keys", body: `{"name":"k","scopes":["links:write"]}`}, "scope_exceeded"},
		{request{method: "POST", path: "/api/v1/workspaces", body: `{"name":"w"}`}, "owner_required"},
		{request{method: "POST", path: "/api/v1/domains", body: `{"host":"s.example.com","shared":true}`}, "owner_required"},
		{request{method: "PATCH", path: "/api/v1/domains/localhost:8080", body: `{"s_maxage":1}`}, "owner_required"},
		{request{method: "DELETE", path: "/api/v1/domains/localhost:8080"}, "owner_required"},
	}
	for _, tt := range tests {
		tt.q.key = limited
		b.wantProblem(403, tt.code, tt.q)
	}
	b.want(201, request{method: "POST", path: "/api/v1/keys", key: limited, body: `{"name":"k","scopes":["links:read"]}`})
}

// Guessing keys is slowed down; whoever has a key that works is not.
func TestGuessing(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	mine := makeThings(b, "mine")
	b.want(200, request{method: "GET", path: "/api/v1/links", key: mine.key})
	guess := request{method: "GET", path: "/api/v1/links", key: "terse_00000000_00000000000000000000000000000000000000"}
	for range 100 {
		b.want(401, guess)
	}
	if a := b.wantProblem(429, "rate_limited", guess); a.header.Get("Retry-After") != "1" {
		t.Errorf("the 101st guess: %v", a.header)
	}
	b.want(200, request{method: "GET", path: "/api/v1/links", key: mine.key})
	b.want(200, request{method: "GET", path: "/api/v1/links"})
	b.want(401, request{method: "GET", path: "/api/v1/links", key: "-"})
	b.now.Add(1000)
	b.want(401, guess)
	b.want(429, guess)
}

// A key that has asked too much is told when it may go on; others, and edges on behalf of their visitors, are not held up.
func TestKeyRate(t *testing.T) {
	t.Parallel()
	var asked []string
	slow := ""
	b := setup(t, options{rate: func(_ context.Context, key string) time.Duration {
		asked = append(asked, key)
		if key == slow {
			return 1100 * time.Millisecond
		}
		return 0
	}})
	w, busy := b.workspace("all", "*")
	other, edge := b.key(w, "links:read"), b.key(w, "edge:use")
	b.want(200, request{method: "GET", path: "/api/v1/links", key: busy})
	slow = asked[len(asked)-1]
	asked = nil
	if a := b.wantProblem(429, "rate_limited", request{method: "GET", path: "/api/v1/links", key: busy}); a.header.Get("Retry-After") != "2" {
		t.Errorf("a key that has asked too much: %v", a.header)
	}
	b.want(200, request{method: "GET", path: "/api/v1/links", key: other})
	b.want(200, request{method: "GET", path: "/api/v1/links"})
	if len(asked) != 3 || asked[0] != slow || asked[1] == slow || asked[2] != auth.OwnerSubject {
		t.Errorf("requests of %q were counted, want one of each of three keys", asked)
	}
	b.want(401, request{method: "GET", path: "/api/v1/links", key: "terse_00000000_00000000000000000000000000000000000000"})
	b.edgeChanges(edge, "?after=0", "")
	if len(asked) != 3 {
		t.Errorf("an edge, or nobody, was counted: %q", asked)
	}
}

// No log line and no answer repeats a secret (FAILURES 87).
func TestSecretsAreNotRepeated(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	const canary = "canary-4711-secret"
	for _, q := range []request{
		{method: "GET", path: "/api/v1/links", key: canary},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","password":["` + canary + `"]}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://` + canary + `@example.com/"}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":5,"password":"` + canary + `"}`},
		{method: "POST", path: "/api/v1/links", body: `{"password":"` + canary},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/"}`, header: map[string]string{"Idempotency-Key": canary}},
	} {
		if a := b.do(q); strings.Contains(string(a.body), canary) {
			t.Errorf("%s %s %s is answered %s", q.method, q.path, q.body, a.body)
		}
	}
	if log := b.log.String(); strings.Contains(log, canary) || strings.Contains(log, ownerKey) {
		t.Errorf("the log holds a secret:\n%s", log)
	}
}
