package api_test

import (
	"strings"
	"testing"
)

// TestCampaigns goes through the life of a campaign over HTTP.
func TestCampaigns(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	ndjson := map[string]string{"Content-Type": "application/x-ndjson"}
	a := b.want(201, request{method: "POST", path: "/api/v1/campaigns", body: `{"name":"Black Friday","destination":"https://shop.example/p/{sku}?u={u}"}`})
	if !strings.Contains(string(a.body), `"fields":["sku","u"],"links":0`) {
		t.Errorf("created: %s", a.body)
	}
	path := "/api/v1/campaigns/" + a.text(t, "id")
	rows := b.want(200, request{method: "POST", path: path + "/links", header: ndjson,
		body: `{"sku":"A 17","u":9,"external_id":"r-0"}` + "\n" + `{"sku":"x"}` + "\n" + `{"sku":"x","u":"y","code":"vip"}` + "\n"})
	for _, want := range []string{`"external_id":"r-0"`, `{"index":1,"error":{"code":"missing_field","field":"u"`, `"code":"vip"`, `{"done":true,"created":2,"reused":0,"failed":1}`} {
		if !strings.Contains(string(rows.body), want) {
			t.Errorf("rows lack %s: %s", want, rows.body)
		}
	}
	list := b.want(200, request{method: "GET", path: path + "/links"})
	if s := string(list.body); !strings.Contains(s, `"destination":"https://shop.example/p/A%2017?u=9"`) || !strings.Contains(s, `"values":{"sku":"A 17","u":"9"}`) {
		t.Errorf("page of links: %s", s)
	}
	b.want(200, request{method: "PATCH", path: path, header: map[string]string{"If-Match": `"1"`}, body: `{"destination":"https://other.example/{u}"}`})
	b.want(412, request{method: "PATCH", path: path, header: map[string]string{"If-Match": `"1"`}, body: `{"name":"late"}`})
	b.want(422, request{method: "PATCH", path: path, body: `{"destination":"https://other.example/{new}"}`})
	b.want(422, request{method: "PATCH", path: path, body: `{"destination":null}`})
	csv := b.want(200, request{method: "GET", path: path + "/links?format=csv"})
	if lines := strings.Split(strings.TrimSpace(string(csv.body)), "\n"); len(lines) != 3 || !strings.Contains(string(csv.body), "https://other.example/9,active,") {
		t.Errorf("export: %s", csv.body)
	}
	if got := b.want(200, request{method: "GET", path: path}); !strings.Contains(string(got.body), `"links":2`) {
		t.Errorf("count: %s", got.body)
	}
	b.want(422, request{method: "POST", path: path + "/links/generate", body: `{"count":2}`})
	b.want(422, request{method: "GET", path: path + "/links?format=xml"})
	b.want(200, request{method: "PATCH", path: path, body: `{"status":"disabled"}`})
	b.want(409, request{method: "POST", path: path + "/links", header: ndjson, body: `{"sku":"x","u":"y"}`})
	b.want(204, request{method: "DELETE", path: path})
	b.want(404, request{method: "GET", path: path})
	b.want(404, request{method: "GET", path: path + "/links?format=ndjson"})
	b.want(404, request{method: "POST", path: path + "/links", header: ndjson, body: `{"sku":"x","u":"y"}`})

	g := "/api/v1/campaigns/" + b.want(201, request{method: "POST", path: "/api/v1/campaigns", body: `{"name":"g","destination":"https://shop.example/"}`}).text(t, "id")
	if out := b.want(200, request{method: "POST", path: g + "/links/generate", body: `{"count":3}`}); strings.Count(string(out.body), `"id":"link_`) != 3 {
		t.Errorf("generated: %s", out.body)
	}
	b.want(422, request{method: "POST", path: g + "/links/generate", body: `{"count":0}`})
	if out := b.want(200, request{method: "POST", path: g + "/links/generate", body: `{"count":1,"class":"secret"}`}); len(member(out.body, "code")) != 22 {
		t.Errorf("generated: %s", out.body)
	}
	b.want(422, request{method: "POST", path: g + "/links/generate", body: `{"count":1,"class":"x"}`})
}

// member returns a text of the first result of an NDJSON answer.
func member(body []byte, name string) string {
	_, rest, _ := strings.Cut(string(body), `"`+name+`":"`)
	text, _, _ := strings.Cut(rest, `"`)
	return text
}

// TestCampaignRules: rules of a campaign show with it and with its links, and explain says whose they are.
func TestCampaignRules(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	a := b.want(201, request{method: "POST", path: "/api/v1/campaigns", body: `{"name":"c","destination":"https://shop.example/{sku}","rules":[` +
		`{"conditions":[{"type":"country","values":["DE"]}],"destination":"https://de.example/{sku}?l={lang}"}]}`})
	if s := string(a.body); !strings.Contains(s, `"fields":["sku","lang"]`) || !strings.Contains(s, `"destination":"https://de.example/{sku}?l={lang}"`) {
		t.Errorf("created: %s", s)
	}
	path := "/api/v1/campaigns/" + a.text(t, "id")
	row := b.want(200, request{method: "POST", path: path + "/links", header: map[string]string{"Content-Type": "application/x-ndjson"}, body: `{"sku":"A 17","lang":"de","code":"vip"}`})
	id := member(row.body, "id")
	explain := func(country, outcome, destination, of string) {
		t.Helper()
		got := string(b.want(200, request{method: "POST", path: "/api/v1/links/" + id + "/explain", body: `{"country":"` + country + `"}`}).body)
		for _, want := range []string{`"outcome":"` + outcome + `"`, `"destination":` + destination, `"rules_of":` + of} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %s lacks %s", country, got, want)
			}
		}
	}
	explain("DE", "redirect", `"https://de.example/A%2017?l=de"`, `"campaign"`)
	explain("FR", "redirect", `"https://shop.example/A%2017"`, `"campaign"`)
	if got := b.want(200, request{method: "GET", path: "/api/v1/links/" + id}); !strings.Contains(string(got.body), `"destination":"https://de.example/A%2017?l=de"`) {
		t.Errorf("link: %s", got.body)
	}
	b.want(200, request{method: "PATCH", path: path, body: `{"rules":[{"conditions":[{"type":"country","values":["FR"]}],"destination":"https://fr.example/{sku}"}]}`})
	explain("FR", "redirect", `"https://fr.example/A%2017"`, `"campaign"`)
	b.want(422, request{method: "PATCH", path: path, body: `{"rules":[{"conditions":[],"destination":"https://fr.example/{nothing}"}]}`})
	b.want(200, request{method: "PATCH", path: "/api/v1/links/" + id, body: `{"destination":"https://own.example/"}`})
	explain("FR", "redirect", `"https://own.example/"`, `null`)
	b.want(200, request{method: "PATCH", path: "/api/v1/links/" + id, body: `{"destination":null,"rules":[{"conditions":[{"type":"country","values":["FR"]}],"destination":"https://mine.example/"}]}`})
	explain("FR", "redirect", `"https://mine.example/"`, `"link"`)
	b.want(200, request{method: "PATCH", path: path, body: `{"rules":null}`})
}

// TestCampaignSettings: every setting of a link can be given to a campaign, is shown by it and by its links, and can be
// taken away again.
func TestCampaignSettings(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	settings := `"title":"For {sku}","max_clicks":3,"password":"s3cret","forward_path":true,"noindex":false,"referrer_policy":"origin",` +
		`"not_started_destination":"https://soon.example/{sku}","limit_destination":"https://used.example/","query_mode":"stored_first",` +
		`"utm":{"source":"mail","content":"{sku}"},"sticky":"cookie","ios_destination":"https://ios.example/{sku}","ios_store":"https://apps.example/1",` +
		`"android_destination":"https://android.example/{sku}","android_store":"https://play.example/1","og_title":"{sku}!","og_description":"d","og_image":"https://img.example/{sku}.png"`
	a := b.want(201, request{method: "POST", path: "/api/v1/campaigns", body: `{"name":"c","destination":"https://shop.example/{sku}",` + settings + `}`})
	path := "/api/v1/campaigns/" + a.text(t, "id")
	b.want(200, request{method: "POST", path: path + "/links", header: map[string]string{"Content-Type": "application/x-ndjson"}, body: `{"sku":"a b","code":"one"}` + "\n"})
	contains := func(what, body string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !strings.Contains(body, w) {
				t.Errorf("%s lacks %s: %s", what, w, body)
			}
		}
	}
	contains("the campaign", string(b.want(200, request{method: "GET", path: path}).body),
		settings[strings.Index(settings, `"noindex"`):],
		`"title":"For {sku}"`, `"max_clicks":3`, `"has_password":true`, `"forward_path":true`, `"forward_query":true`, `"pixels":[],"cloak":false`)
	link := func() (string, string) {
		t.Helper()
		got := b.want(200, request{method: "GET", path: path + "/links"})
		return string(got.body), "link_" + member(got.body, "id")[len("link_"):]
	}
	shown, id := link()
	contains("the link", shown, `"title":"For a b"`, `"max_clicks":3`, `"has_password":true`, `"noindex":false`, `"referrer_policy":"origin"`, `"query_mode":"stored_first"`, `"sticky":"cookie"`,
		`"not_started_destination":"https://soon.example/a%20b"`, `"utm":{"source":"mail","content":"a b"}`, `"ios_destination":"https://ios.example/a%20b"`, `"og_title":"a b!"`, `"og_image":"https://img.example/a%20b.png"`)

	// An explanation sees them, and a single link goes its own way.
	contains("the explanation", string(b.want(200, request{method: "POST", path: "/api/v1/links/" + id + "/explain", body: `{"os":"iOS"}`}).body),
		`"outcome":"password"`, `"location":"https://ios.example/a%20b?utm_source=mail&utm_content=a%20b"`)
	b.want(200, request{method: "PATCH", path: "/api/v1/links/" + id, body: `{"title":"Own","noindex":true,"utm":{"source":"own"},"max_clicks":1}`})
	b.want(200, request{method: "PATCH", path: path, body: `{"title":"All","og_title":null,"password":null,"max_clicks":null,"utm":{"source":"x","medium":"sms"},"ios_destination":null,"noindex":null}`})
	shown, _ = link()
	contains("the link of its own", shown, `"title":"Own"`, `"noindex":true`, `"max_clicks":1`, `"has_password":false`, `"og_title":null`, `"utm":{"source":"own","medium":"sms"}`, `"ios_destination":null`)
	contains("the campaign after the change", string(b.want(200, request{method: "GET", path: path}).body), `"title":"All"`, `"max_clicks":null`, `"has_password":false`, `"noindex":null`, `"og_title":null`, `"ios_destination":null`)

	for field, body := range map[string]string{
		"og_title": `{"og_title":"{nobody}"}`, "utm.source": `{"utm":{"source":"{nobody}"}}`, "ios_destination": `{"ios_destination":"https://{sku}.example/"}`,
		"limit_destination": `{"limit_destination":"javascript:{sku}"}`, "cloak": `{"cloak":true}`, "blocked_reason": `{"blocked_reason":"x"}`, "query_mode": `{"query_mode":"x"}`,
	} {
		got := b.want(422, request{method: "PATCH", path: path, body: body})
		contains("the refusal of "+body, string(got.body), `"location":"body.`+field+`"`)
	}
}
