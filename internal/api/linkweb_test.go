package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// shown returns fields of an answer in order, as JSON.
func shown(t *testing.T, a answer, fields ...string) string {
	t.Helper()
	var out []string
	for _, f := range fields {
		b, err := json.Marshal(a.field(t, f))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, string(b))
	}
	return strings.Join(out, " ")
}

func TestLinkWeb(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	fields := []string{"noindex", "referrer_policy", "not_started_destination", "limit_destination", "forward_query", "query_mode", "utm", "sticky"}
	const defaults = `true "strict-origin-when-cross-origin" null null false "drop" null "hash"`
	check := func(a answer, want string) {
		t.Helper()
		if got := shown(t, a, fields...); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
	check(b.want(201, request{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","noindex":null,"referrer_policy":null,"utm":null,"sticky":null,"query_mode":null}`}), defaults)
	const all = `"noindex":false,"referrer_policy":"origin","not_started_destination":"https://example.com/söon","limit_destination":"https://example.com/full","query_mode":"stored_first","utm":{"source":"sms","term":"a b"},"sticky":"cookie"`
	const want = `false "origin" "https://example.com/s%C3%B6on" "https://example.com/full" true "stored_first" {"source":"sms","term":"a b"} "cookie"`
	created := b.want(201, request{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/",` + all + `}`})
	check(created, want)
	path := "/api/v1/links/" + created.text(t, "id")
	check(b.want(200, request{method: "GET", path: path}), want)
	check(b.want(200, request{method: "PATCH", path: path, body: `{"title":"x"}`}), want)
	check(b.want(200, request{method: "PATCH", path: path, body: `{"forward_query":false}`}), strings.Replace(want, `true "stored_first"`, `false "drop"`, 1))
	check(b.want(200, request{method: "PATCH", path: path, body: `{"forward_query":true}`}), want)
	check(b.want(200, request{method: "PATCH", path: path, body: `{"query_mode":"drop"}`}), strings.Replace(want, `true "stored_first"`, `false "drop"`, 1))
	check(b.want(200, request{method: "PATCH", path: path, body: `{"query_mode":"append"}`}), strings.Replace(want, "stored_first", "append", 1))
	check(b.want(200, request{method: "PATCH", path: path, body: `{"utm":{"medium":"m"},"noindex":true,"sticky":"hash"}`}),
		`true "origin" "https://example.com/s%C3%B6on" "https://example.com/full" true "append" {"medium":"m"} "hash"`)
	check(b.want(200, request{method: "PATCH", path: path, body: `{"noindex":null,"referrer_policy":null,"not_started_destination":null,"limit_destination":null,"query_mode":null,"forward_query":null,"utm":null,"sticky":null}`}), defaults)

	for body, field := range map[string]string{
		`{"referrer_policy":"all"}`: "referrer_policy", `{"not_started_destination":"javascript:alert(1)"}`: "not_started_destination",
		`{"limit_destination":"http://localhost:8080/loop"}`: "limit_destination", `{"query_mode":"shuffle"}`: "query_mode",
		`{"query_mode":"drop","forward_query":true}`: "query_mode", `{"utm":{"source":"a\u0000"}}`: "utm.source",
		`{"utm":{"content":"` + strings.Repeat("x", 256) + `"}}`: "utm.content", `{"utm":{"id":"x"}}`: "utm.id", `{"utm":"x"}`: "utm",
		`{"sticky":"glue"}`: "sticky", `{"noindex":"no"}`: "noindex", `{"blocked_reason":"x"}`: "blocked_reason",
		`{"status":"active","blocked_reason":"x"}`: "blocked_reason", `{"status":"blocked","blocked_reason":"` + strings.Repeat("x", 501) + `"}`: "blocked_reason",
	} {
		if a := b.want(422, request{method: "PATCH", path: path, body: body}); !strings.Contains(string(a.body), `"body.`+field+`"`) {
			t.Errorf("%s: %s", body, a.body)
		}
	}
	check(b.want(200, request{method: "GET", path: path}), defaults)

	// A bulk row and a row of CSV take the same fields.
	rows := b.want(200, request{method: "POST", path: "/api/v1/links/bulk", header: ndjson, body: `{"destination":"https://example.com/",` + all + "}\n" + `{"destination":"https://example.com/","sticky":"glue"}` + "\n"})
	first, second, _ := strings.Cut(string(rows.body), "\n")
	if !strings.Contains(second, `sticky`) || !strings.Contains(second, `"failed":1`) {
		t.Errorf("bulk: %s", rows.body)
	}
	check(b.want(200, request{method: "GET", path: "/api/v1/links/" + idOf(t, first)}), want)
	csv := b.want(200, request{method: "POST", path: "/api/v1/links/bulk", header: map[string]string{"Content-Type": "text/csv", "Accept": "application/x-ndjson"},
		body: "destination,noindex,referrer_policy,not_started_destination,limit_destination,query_mode,utm,sticky\n" +
			`https://example.com/,false,origin,https://example.com/söon,https://example.com/full,stored_first,"{""source"":""sms"",""term"":""a b""}",cookie` + "\n"})
	first, _, _ = strings.Cut(string(csv.body), "\n")
	check(b.want(200, request{method: "GET", path: "/api/v1/links/" + idOf(t, first)}), want)
}

func idOf(t *testing.T, row string) string {
	t.Helper()
	var r struct{ ID string }
	if err := json.Unmarshal([]byte(row), &r); err != nil || r.ID == "" {
		t.Fatalf("%v: %s", err, row)
	}
	return r.ID
}

// TestRepeatedParameters: only lists may be given more than once, whoever reads the query.
func TestRepeatedParameters(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	l := b.want(201, request{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/"}`})
	for path, name := range map[string]string{
		"/api/v1/links?limit=1&limit=2":                                    "limit",
		"/api/v1/links?limit=1&limit=1":                                    "limit",
		"/api/v1/links/" + l.text(t, "id") + "/qr?size=100&size=200":       "size",
		"/api/v1/clicks?limit=1&limit=2":                                   "limit",
		"/api/v1/clicks/live?domain=a&domain=b":                            "domain",
		"/api/v1/analytics/summary?f=[]&period=7d&f=[]&period=24h&limit=1": "period",
	} {
		a := b.want(422, request{method: "GET", path: path})
		if !strings.Contains(string(a.body), `"location":"query.`+name+`","message":"is given more than once"`) {
			t.Errorf("%s: %s", path, a.body)
		}
	}
	b.want(200, request{method: "GET", path: "/api/v1/links?limit=1"})
}

// TestExplainRefusesFacts that no visit can have.
func TestExplainRefusesFacts(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	l := b.want(201, request{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/"}`})
	path := "/api/v1/links/" + l.text(t, "id") + "/explain"
	for body, name := range map[string]string{
		`{"country":"DEU"}`: "country", `{"country":"1x"}`: "country", `{"device":"phone"}`: "device", `{"bot":"google"}`: "bot", `{"bot":"any"}`: "bot",
	} {
		a := b.want(422, request{method: "POST", path: path, body: body})
		if !strings.Contains(string(a.body), `"location":"body.`+name+`"`) {
			t.Errorf("%s: %s", body, a.body)
		}
	}
	b.want(200, request{method: "POST", path: path, body: `{"country":"de","device":"Mobile","bot":"search"}`})
}

// TestBlocking: who may stop a link for abuse, and who may start it again.
func TestBlocking(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	ws, admin := b.workspace("acme", "*")
	writer := b.key(ws, "links:read", "links:write")
	guard := b.key(ws, "links:read", "links:write", "links:block")
	owner := map[string]string{"Terse-Workspace": ws}
	l := b.want(201, request{method: "POST", path: "/api/v1/links", key: writer, body: `{"destination":"https://example.com/"}`})
	path := "/api/v1/links/" + l.text(t, "id")
	status := func(key, body string, header map[string]string, want int) answer {
		t.Helper()
		return b.want(want, request{method: "PATCH", path: path, key: key, body: body, header: header})
	}
	state := func(want string) {
		t.Helper()
		a := b.want(200, request{method: "GET", path: path, key: writer})
		if got := fmt.Sprint(a.field(t, "status"), " ", a.field(t, "blocked_reason")); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	refused := func(a answer) {
		t.Helper()
		if a.text(t, "code") != "link_blocked" {
			t.Errorf("refused with %s", a.body)
		}
	}
	refused(status(writer, `{"status":"blocked"}`, nil, 403))
	state("active <nil>")
	status(guard, `{"status":"blocked","blocked_reason":"phishing"}`, nil, 200)
	state("blocked phishing")
	for _, to := range []string{"active", "disabled", "blocked"} {
		refused(status(writer, `{"status":"`+to+`"}`, nil, 403))
	}
	status(writer, `{"title":"x","destination":"https://example.com/2"}`, nil, 200)
	state("blocked phishing")
	if a := b.want(200, request{method: "GET", path: "/api/v1/links?status=blocked", key: writer}); !strings.Contains(string(a.body), `"status":"blocked"`) {
		t.Errorf("the list of blocked links: %s", a.body)
	}
	status(admin, `{"status":"active"}`, nil, 200)
	state("active <nil>")
	status("", `{"status":"blocked","blocked_reason":"malware"}`, owner, 200)
	state("blocked malware")
	for _, key := range []string{writer, guard, admin} {
		refused(status(key, `{"status":"active"}`, nil, 403))
		refused(status(key, `{"status":"blocked","blocked_reason":"mine"}`, nil, 403))
		// Deleted and made again, an alias would lead to the same place.
		refused(b.want(403, request{method: "DELETE", path: path, key: key}))
		if a := b.want(200, request{method: "POST", path: "/api/v1/links/delete", key: key, body: `{"ids":["` + l.text(t, "id") + `"]}`}); !strings.Contains(string(a.body), "link_blocked") {
			t.Errorf("deleted with others: %s", a.body)
		}
	}
	state("blocked malware")
	status("", `{"status":"disabled"}`, owner, 200)
	state("disabled <nil>")
	status(writer, `{"status":"active"}`, nil, 200)
	state("active <nil>")
}

func TestDomainPlaces(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	const path = "/api/v1/domains/a.example.com"
	fields := []string{"not_started_destination", "limit_destination", "forward_query", "query_mode", "utm"}
	check := func(a answer, want string) {
		t.Helper()
		if got := shown(t, a, fields...); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
	const defaults = `null null false "drop" null`
	check(b.want(201, request{method: "POST", path: "/api/v1/domains", body: `{"host":"a.example.com","query_mode":null,"utm":null}`}), defaults)
	check(b.want(200, request{method: "PATCH", path: path, body: `{"not_started_destination":"https://example.com/soon","limit_destination":"https://example.com/full","query_mode":"incoming_first","utm":{"source":"d"}}`}),
		`"https://example.com/soon" "https://example.com/full" true "incoming_first" {"source":"d"}`)
	check(b.want(200, request{method: "PATCH", path: path, body: `{"forward_query":false}`}), `"https://example.com/soon" "https://example.com/full" false "drop" {"source":"d"}`)
	check(b.want(200, request{method: "PATCH", path: path, body: `{"forward_query":true,"utm":{"source":"e"}}`}), `"https://example.com/soon" "https://example.com/full" true "incoming_first" {"source":"e"}`)
	check(b.want(200, request{method: "PATCH", path: path, body: `{"not_started_destination":null,"limit_destination":null,"query_mode":"drop","utm":null}`}), defaults)
	check(b.want(201, request{method: "POST", path: "/api/v1/domains", body: `{"host":"b.example.com","query_mode":"append","utm":{"source":"x"},"limit_destination":"https://example.com/full"}`}),
		`null "https://example.com/full" true "append" {"source":"x"}`)
	// A link shows what its domain gives it.
	l := b.want(201, request{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","domain":"b.example.com"}`})
	if got := shown(t, l, "forward_query", "query_mode", "utm"); got != `true "append" null` {
		t.Errorf("a link of the domain: %s", got)
	}
	for body, field := range map[string]string{
		`{"query_mode":"x"}`: "query_mode", `{"query_mode":"drop","forward_query":true}`: "query_mode", `{"utm":{"source":"\u0007"}}`: "utm.source",
		`{"limit_destination":"ftp://example.com/"}`: "limit_destination", `{"not_started_destination":"https://a.example.com/x"}`: "not_started_destination",
	} {
		if a := b.want(422, request{method: "PATCH", path: path, body: body}); !strings.Contains(string(a.body), `"body.`+field+`"`) {
			t.Errorf("%s: %s", body, a.body)
		}
	}
	check(b.want(200, request{method: "GET", path: path}), defaults)
}

func TestLinkPages(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	ws, admin := b.workspace("acme", "*")
	wsPath := "/api/v1/workspaces/" + ws
	fields := []string{"ios_destination", "ios_store", "android_destination", "android_store", "og_title", "og_description", "og_image", "pixels", "cloak"}
	check := func(a answer, want string) {
		t.Helper()
		if got := shown(t, a, fields...); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
	const defaults = `null null null null null null null [] false`
	created := b.want(201, request{method: "POST", path: "/api/v1/links", key: admin, body: `{"destination":"https://example.com/","ios_destination":null,"pixels":null,"cloak":null,"og_title":null}`})
	check(created, defaults)
	path := "/api/v1/links/" + created.text(t, "id")
	patch := func(status int, body string) answer {
		t.Helper()
		return b.want(status, request{method: "PATCH", path: path, key: admin, body: body})
	}
	// Without a word of the workspace: only what needs none.
	check(patch(200, `{"ios_destination":"https://example.com/ios","og_title":"T ü","og_description":"D","og_image":"https://example.com/i.png"}`),
		`"https://example.com/ios" null null null "T ü" "D" "https://example.com/i.png" [] false`)
	for body, want := range map[string]string{
		`{"ios_destination":"myapp://x"}`:                 `"body.ios_destination"`,
		`{"pixels":[{"provider":"meta","id":"1234567"}]}`: `interstitials_off`,
		`{"cloak":true}`: `interstitials_off`,
		`{"android_destination":"javascript:alert(1)"}`:          `"body.android_destination"`,
		`{"ios_store":"myapp://x"}`:                              `"body.ios_store"`,
		`{"android_store":"ftp://example.com/"}`:                 `"body.android_store"`,
		`{"og_image":"data:image/png;base64,AAAA"}`:              `"body.og_image"`,
		`{"og_title":"` + strings.Repeat("x", 301) + `"}`:        `"body.og_title"`,
		`{"og_description":"` + strings.Repeat("x", 1001) + `"}`: `"body.og_description"`,
		`{"og_title":"a\u0000"}`:                                 `"body.og_title"`,
		`{"pixels":[{"provider":"evil","id":"1"}]}`:              `"body.pixels[0].provider"`,
		`{"pixels":[{"provider":"meta","id":"x"}]}`:              `"body.pixels[0].id"`,
	} {
		if a := patch(422, body); !strings.Contains(string(a.body), want) {
			t.Errorf("%s: %s", body, a.body)
		}
	}
	if got := shown(t, b.want(200, request{method: "PATCH", path: wsPath, key: admin, body: `{"interstitials":true,"app_schemes":["MyApp","zap"]}`}), "name", "interstitials", "app_schemes"); got != `"acme" true ["myapp","zap"]` {
		t.Errorf("workspace: %s", got)
	}
	const all = `{"ios_destination":"MYAPP://item/ü","ios_store":"https://apps.example.com/1","android_destination":"zap://x","android_store":"https://play.example.com/1","pixels":[{"provider":"meta","id":"1234567"},{"provider":"x","id":"o1a2b"}],"cloak":true`
	const want = `"myapp://item/%C3%BC" "https://apps.example.com/1" "zap://x" "https://play.example.com/1" "T ü" "D" "https://example.com/i.png" [{"id":"1234567","provider":"meta"},{"id":"o1a2b","provider":"x"}] true`
	check(patch(200, all+"}"), want)
	rows := b.want(200, request{method: "POST", path: "/api/v1/links/bulk", key: admin, header: ndjson, body: all + `,"og_title":"T ü","og_description":"D","og_image":"https://example.com/i.png","destination":"https://example.com/"}` + "\n"})
	first, _, _ := strings.Cut(string(rows.body), "\n")
	check(b.want(200, request{method: "GET", path: "/api/v1/links/" + idOf(t, first), key: admin}), want)
	csv := b.want(200, request{method: "POST", path: "/api/v1/links/bulk", key: admin, header: map[string]string{"Content-Type": "text/csv", "Accept": "application/x-ndjson"},
		body: "destination,ios_destination,ios_store,android_destination,android_store,og_title,og_description,og_image,pixels,cloak\n" +
			`https://example.com/,myapp://item/ü,https://apps.example.com/1,zap://x,https://play.example.com/1,T ü,D,https://example.com/i.png,"[{""provider"":""meta"",""id"":""1234567""},{""provider"":""x"",""id"":""o1a2b""}]",true` + "\n"})
	first, _, _ = strings.Cut(string(csv.body), "\n")
	check(b.want(200, request{method: "GET", path: "/api/v1/links/" + idOf(t, first), key: admin}), want)
	// The workspace takes it back: what a link has it keeps, until somebody touches it.
	b.want(200, request{method: "PATCH", path: wsPath, key: admin, body: `{"interstitials":false,"app_schemes":null}`})
	check(patch(200, `{"title":"x"}`), want)
	patch(422, `{"pixels":[{"provider":"meta","id":"7654321"}]}`)
	patch(422, `{"cloak":true}`)
	patch(422, `{"ios_destination":"myapp://other"}`)
	check(patch(200, `{"pixels":null,"cloak":null,"ios_destination":null,"ios_store":null,"android_destination":null,"android_store":null,"og_title":null,"og_description":null,"og_image":null}`), defaults)
	// Who may change a workspace.
	b.want(403, request{method: "PATCH", path: wsPath, key: b.key(ws, "links:write", "workspaces:read"), body: `{"interstitials":true}`})
	b.want(422, request{method: "PATCH", path: wsPath, key: admin, body: `{"app_schemes":["javascript"]}`})
	b.want(422, request{method: "PATCH", path: wsPath, key: admin, body: `{"name":""}`})
	b.want(404, request{method: "PATCH", path: "/api/v1/workspaces/ws_0000000000001", key: admin, body: `{"interstitials":true}`})
}

func TestDomainBrand(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	const path = "/api/v1/domains/a.example.com"
	check := func(a answer, want string) {
		t.Helper()
		if got := shown(t, a, "brand"); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
	check(b.want(201, request{method: "POST", path: "/api/v1/domains", body: `{"host":"a.example.com","brand":null}`}), "null")
	const brand = `{"accent":"#aabbcc","logo":"data:image/png;base64,iVBORw0KGgo=","name":"Acme","support_url":"https://example.com/h%C3%A9lp"}`
	check(b.want(200, request{method: "PATCH", path: path, body: `{"brand":{"name":"Acme","accent":"#AABBCC","logo":"data:image/png;base64,iVBORw0KGgo=","support_url":"https://example.com/hélp"}}`}), brand)
	check(b.want(200, request{method: "PATCH", path: path, body: `{"forward_query":true}`}), brand)
	check(b.want(201, request{method: "POST", path: "/api/v1/domains", body: `{"host":"b.example.com","brand":` + brand + `}`}), brand)
	for body, field := range map[string]string{
		`{"brand":{"accent":"red"}}`: "brand.accent", `{"brand":{"logo":"http://example.com/x.png"}}`: "brand.logo", `{"brand":{"support_url":"tel:1"}}`: "brand.support_url",
		`{"brand":{"name":"\u0001"}}`: "brand.name", `{"brand":{"colour":"x"}}`: "brand.colour", `{"brand":"x"}`: "brand",
	} {
		if a := b.want(422, request{method: "PATCH", path: path, body: body}); !strings.Contains(string(a.body), `"body.`+field+`"`) {
			t.Errorf("%s: %s", body, a.body)
		}
	}
	check(b.want(200, request{method: "GET", path: path}), brand)
	check(b.want(200, request{method: "PATCH", path: path, body: `{"brand":null}`}), "null")
}
