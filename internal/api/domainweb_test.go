package api_test

import (
	"fmt"
	"strings"
	"testing"
)

func TestDomainWeb(t *testing.T) {
	t.Parallel()
	b := setup(t, options{})
	const path = "/api/v1/domains/a.example.com"
	check := func(a answer, want string) {
		t.Helper()
		var got []string
		for _, f := range []string{"robots_txt", "noindex", "referrer_policy", "trailing_slash", "apple_app_site_association", "assetlinks"} {
			got = append(got, fmt.Sprint(a.field(t, f)))
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s; want %s", s, want)
		}
	}
	const defaults = "<nil> true strict-origin-when-cross-origin ignore <nil> <nil>"
	check(b.want(201, request{method: "POST", path: "/api/v1/domains", body: `{"host":"a.example.com","noindex":null,"robots_txt":null}`}), defaults)
	check(b.want(200, request{method: "PATCH", path: path, body: `{"robots_txt":"x","noindex":false,"referrer_policy":"origin","trailing_slash":"strict","apple_app_site_association":"{}","assetlinks":"[]"}`}),
		"x false origin strict {} []")
	check(b.want(200, request{method: "PATCH", path: path, body: `{"noindex":true}`}), "x true origin strict {} []")
	check(b.want(200, request{method: "PATCH", path: path, body: `{"robots_txt":null,"noindex":null,"referrer_policy":null,"trailing_slash":null,"apple_app_site_association":null,"assetlinks":null}`}), defaults)
	check(b.want(201, request{method: "POST", path: "/api/v1/domains", body: `{"host":"b.example.com","robots_txt":"y","noindex":false,"referrer_policy":"no-referrer","trailing_slash":"strict","apple_app_site_association":"{}","assetlinks":"[]"}`}),
		"y false no-referrer strict {} []")
	for body, field := range map[string]string{
		`{"robots_txt":"a\u0000"}`: "robots_txt", `{"referrer_policy":"all"}`: "referrer_policy", `{"trailing_slash":"yes"}`: "trailing_slash",
		`{"apple_app_site_association":"[]"}`: "apple_app_site_association", `{"assetlinks":"{"}`: "assetlinks", `{"noindex":"no"}`: "noindex",
		`{"assetlinks":[]}`: "assetlinks", `{"robots":"x"}`: "robots",
	} {
		if a := b.want(422, request{method: "PATCH", path: path, body: body}); !strings.Contains(string(a.body), `"body.`+field+`"`) {
			t.Errorf("%s: %s", body, a.body)
		}
	}
	check(b.want(200, request{method: "GET", path: path}), defaults)
}
