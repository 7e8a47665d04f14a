package client

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
)

// TestCampaignRequests checks what each method asks for and what it makes of the answer.
func TestCampaignRequests(t *testing.T) {
	t.Parallel()
	const shown = `{"id":"camp_1","name":"Black Friday","domains":[{"host":"go.example","weight":3}],"destination":"https://shop.example/{sku}","fields":["sku"],"links":7,` +
		`"tags":[],"status":"active","expires_at":null,"starts_at":null,"expired_destination":null,"redirect_status":null,"forward_query":null,"forward_path":false,` +
		`"rules":[],"metadata":{},"created_at":"2026-11-01T00:00:00Z","updated_at":"2026-11-01T00:00:00Z","created_by":null,"version":4}`
	want := &Campaign{
		ID: "camp_1", Name: "Black Friday", Domains: []CampaignDomain{{"go.example", 3}}, Destination: "https://shop.example/{sku}", Fields: []string{"sku"}, Links: 7,
		Tags: []string{}, Status: "active", Rules: []Rule{}, Metadata: map[string]string{}, Version: 4,
		CreatedAt: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), UpdatedAt: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC),
	}
	var got struct{ line, body, match, accept, key string }
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got.line, got.body, got.match, got.accept, got.key = r.Method+" "+r.URL.RequestURI(), string(b), r.Header.Get("If-Match"), r.Header.Get("Accept"), r.Header.Get("Idempotency-Key")
		switch {
		case r.Method == http.MethodDelete:
			w.WriteHeader(http.StatusNoContent)
		case strings.HasSuffix(r.URL.Path, "/generate"):
			io.WriteString(w, `{"index":0,"short_url":"https://go.example/a","code":"a","id":"link_1"}`+"\n"+`{"done":true,"created":1,"reused":0,"failed":0}`+"\n")
		case r.URL.Query().Has("format"):
			io.WriteString(w, "short_url,code\nhttps://go.example/a,a\n")
		case strings.HasSuffix(r.URL.Path, "/links"):
			io.WriteString(w, `{"data":[{"id":"link_1","campaign_id":"camp_1"}],"next_cursor":null}`)
		case r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/campaigns"):
			io.WriteString(w, `{"data":[`+shown+`],"next_cursor":null}`)
		default:
			io.WriteString(w, shown)
		}
	})
	ctx := t.Context()
	check := func(name, line, body string, err error) {
		t.Helper()
		if err != nil || got.line != line || got.body != body {
			t.Errorf("%s: error %v\nasked %s\n%s\nwant  %s\n%s", name, err, got.line, got.body, line, body)
		}
	}

	made, err := c.CreateCampaign(ctx, NewCampaign{Name: "Black Friday", Destination: "https://shop.example/{sku}", Domains: []CampaignDomain{{"go.example", 3}}, LinkSettings: LinkSettings{MaxClicks: 1, LinkWeb: LinkWeb{OGTitle: "{sku} for you"}}})
	check("CreateCampaign", "POST /api/v1/campaigns", `{"name":"Black Friday","destination":"https://shop.example/{sku}","domains":[{"host":"go.example","weight":3}],"max_clicks":1,"og_title":"{sku} for you"}`, err)
	if diff := cmp.Diff(want, made); diff != "" {
		t.Errorf("CreateCampaign (-want +got):\n%s", diff)
	}
	_, err = c.Campaign(ctx, "camp_1")
	check("Campaign", "GET /api/v1/campaigns/camp_1", "", err)
	for listed, err := range c.Campaigns(ctx) {
		check("Campaigns", "GET /api/v1/campaigns", "", err)
		if diff := cmp.Diff(want, listed); diff != "" {
			t.Errorf("Campaigns (-want +got):\n%s", diff)
		}
	}
	_, err = c.UpdateCampaign(ctx, "camp_1", CampaignPatch{
		Destination: Set("https://new.example/{sku}"), Status: Set("disabled"), IfVersion: 4,
		LinkSettingsPatch: LinkSettingsPatch{ExpiresAt: Clear[time.Time](), Rules: Set([]Rule{}), UTM: Set(UTM{Content: "{sku}"}), NoIndex: Set(true)},
	})
	check("UpdateCampaign", "PATCH /api/v1/campaigns/camp_1", `{"destination":"https://new.example/{sku}","status":"disabled","expires_at":null,"rules":[],"noindex":true,"utm":{"content":"{sku}"}}`, err)
	if got.match != `"4"` {
		t.Errorf("UpdateCampaign: If-Match %s", got.match)
	}
	check("DeleteCampaign", "DELETE /api/v1/campaigns/camp_1", "", c.DeleteCampaign(ctx, "camp_1", 0))
	for l, err := range c.CampaignLinks(ctx, "camp_1") {
		check("CampaignLinks", "GET /api/v1/campaigns/camp_1/links?limit=1000", "", err)
		if l.CampaignID != "camp_1" {
			t.Errorf("CampaignLinks: %+v", l)
		}
	}
	s, err := c.GenerateLinks(ctx, "camp_1", GenerateOptions{Count: 1, Class: "secret", IdempotencyKey: "k"})
	check("GenerateLinks", "POST /api/v1/campaigns/camp_1/links/generate", `{"count":1,"class":"secret"}`, err)
	if err == nil {
		for r, err := range s.Results() {
			if err != nil || r.Code != "a" {
				t.Errorf("GenerateLinks: %+v, error %v", r, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if got.key != "k" || got.accept != string(NDJSON) {
		t.Errorf("GenerateLinks: key %q, accept %q", got.key, got.accept)
	}
	out, err := c.ExportCampaign(ctx, "camp_1", CSV)
	check("ExportCampaign", "GET /api/v1/campaigns/camp_1/links?format=csv", "", err)
	if err == nil {
		if b, err := io.ReadAll(out); err != nil || !strings.HasPrefix(string(b), "short_url,code\n") {
			t.Errorf("ExportCampaign: %q, error %v", b, err)
		}
		if err := out.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestCampaignRows(t *testing.T) {
	t.Parallel()
	var path string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		path = r.URL.RequestURI()
		answerRows(t)(w, r)
	})
	rows := func(yield func(CampaignRow) bool) {
		for _, sku := range []string{"A17", "B4"} {
			if !yield(CampaignRow{Values: map[string]string{"sku": sku}, ExternalID: "r"}) {
				return
			}
		}
	}
	n := 0
	for r, err := range c.AddLinks(t.Context(), "camp_1", BulkOptions{Domain: "go.example"}, rows) {
		if err != nil || r.Index != uint64(n) {
			t.Fatalf("%+v, error %v", r, err)
		}
		n++
	}
	if n != 2 || path != "/api/v1/campaigns/camp_1/links?domain=go.example" {
		t.Errorf("%d results from %s", n, path)
	}
}

func TestCampaignRowJSON(t *testing.T) {
	t.Parallel()
	b, err := json.Marshal(CampaignRow{
		Values: map[string]string{"sku": "A\"17", "u": ""}, ExternalID: "r-0", Domain: "go.example", Code: "summer", Class: "secret",
		ExpiresAt: time.Date(2027, 1, 1, 1, 0, 0, 0, time.FixedZone("", 3600)),
	})
	const want = `{"class":"secret","code":"summer","domain":"go.example","expires_at":"2027-01-01T00:00:00Z","external_id":"r-0","sku":"A\"17","u":""}`
	if err != nil || string(b) != want {
		t.Errorf("%s, error %v, want %s", b, err, want)
	}
	if _, err := json.Marshal(CampaignRow{Values: map[string]string{"code": "x"}, Code: "y"}); err == nil {
		t.Error("a value under the name of a setting is written over it")
	}
}
