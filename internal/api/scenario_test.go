package api_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A scenario is a list of requests whose answers are kept in testdata/golden, one
// file each: the table of what the API does. $id is the id of the last answer with a
// 201; keys, generated codes and ids are written with placeholders.
var scenarios = []struct {
	name  string
	steps []request
}{
	{"link_create", []request{
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/some/long/path?a=b"}`},
		{method: "GET", path: "/api/v1/links/$id"},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","domain":"LOCALHOST:8080","code":"summer","title":"Sommer ☀","tags":["sms","a","sms"],
			"external_id":"order-77","expires_at":"2027-01-01T00:00:00+01:00","starts_at":"2026-12-01T00:00:00.5Z","expired_destination":"https://example.com/ended",
			"max_clicks":null,"password":null,"redirect_status":307,"forward_query":true,"forward_path":true,"rules":[],"metadata":{"k":"v"},"if_exists":"create"}`},
		{method: "GET", path: "/api/v1/links/lookup?short_url=http://localhost:8080/summer"},
		{method: "GET", path: "/api/v1/links/lookup?short_url=http://localhost:8080/nothing"},
		{method: "GET", path: "/api/v1/links/lookup"},
		{method: "HEAD", path: "/api/v1/links/$id"},
	}},
	{"link_explain", []request{
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","rules":[
			{"conditions":[{"type":"country","values":["DE"]},{"type":"language","not":true,"values":["fr"]}],"destination":"https://de.example.com/"},
			{"conditions":[{"type":"query","key":"v"},{"type":"weekday","key":"Europe/Berlin","values":["mon"]}],"variants":[{"destination":"https://a.example.com/","weight":1},{"destination":"https://b.example.com/","weight":0}]},
			{"conditions":[{"type":"bot"}],"destination":"https://bot.example.com/"}]}`},
		{method: "POST", path: "/api/v1/links/$id/explain", body: `{"country":"DE","language":"de","time":"2027-01-13T12:00:00Z"}`},
		{method: "POST", path: "/api/v1/links/$id/explain", body: `{"query":"v=1","ip":"192.0.2.1","time":"2027-01-10T23:00:00Z"}`},
		{method: "POST", path: "/api/v1/links/$id/explain", body: `{"user_agent":"curl/8.9.1","country":"FR","time":"2027-01-13T12:00:00Z"}`},
		{method: "POST", path: "/api/v1/links/$id/explain", body: `{"time":"2027-01-13T12:00:00Z"}`},
		{method: "POST", path: "/api/v1/links/$id/explain", body: `{"ip":"nowhere"}`},
		{method: "POST", path: "/api/v1/links/$id/explain", body: `{"query":"%zz"}`},
		{method: "PATCH", path: "/api/v1/links/$id", body: `{"rules":[{"conditions":[{"type":"device","values":["phone"]}],"destination":"https://x.example.com/"}]}`},
		{method: "PATCH", path: "/api/v1/links/$id", body: `{"rules":[],"max_clicks":5,"password":"hunter2"}`},
		{method: "POST", path: "/api/v1/links/$id/explain", body: `{"time":"2027-01-13T12:00:00Z"}`},
		{method: "PATCH", path: "/api/v1/links/$id", body: `{"max_clicks":null,"password":null,"expires_at":"2026-12-01T00:00:00Z"}`},
		{method: "POST", path: "/api/v1/links/$id/explain", body: `{"time":"2027-01-13T12:00:00Z"}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","rules":[{"conditions":[{"type":"bot"}],"destination":"javascript:alert(1)"}]}`},
	}},
	{"link_reuse", []request{
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/x","if_exists":"reuse"}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/x","if_exists":"reuse"}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/x"}`},
	}},
	{"link_refused", []request{
		{method: "POST", path: "/api/v1/links"},
		{method: "POST", path: "/api/v1/links", body: `{}`},
		{method: "POST", path: "/api/v1/links", body: `[]`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":""}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":null}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":5}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"javascript:alert(1)"}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://user:secret@example.com/"}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"http://localhost:8080/loop"}`},
		{method: "POST", path: "/api/v1/links", body: `{"destinatoin":"https://example.com/"}`},
		{method: "POST", path: "/api/v1/links", body: `{"Destination":"https://example.com/"}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","destination":"https://example.com/"}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/"`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/"} {}`},
		{method: "POST", path: "/api/v1/links", body: "{\"destination\":\"https://example.com/\xff\"}"},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","rules":` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","tags":["ok",7]}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","tags":["ok",""]}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","rules":[{"conditions":[{"typo":1}]}]}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","redirect_status":1e2}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","redirect_status":200}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","max_clicks":-1}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","expires_at":"tomorrow"}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","expires_at":"2020-01-01T00:00:00Z"}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","expires_at":"0001-01-01T00:00:00Z"}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","domain":"go.other.example"}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","code":"a/b"}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","if_exists":"maybe"}`},
		{method: "POST", path: "/api/v1/links", body: `destination=x`, header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}},
		{method: "POST", path: "/api/v1/links?dry_run=true", body: `{"destination":"https://example.com/"}`},
		{method: "GET", path: "/api/v1/links"},
	}},
	{"link_alias_taken", []request{
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/1","code":"sale"}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/2","code":"sale"}`},
	}},
	{"link_update", []request{
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/1","code":"sale","title":"T","tags":["x"],"metadata":{"a":"b"},"forward_query":true,"expires_at":"2027-01-01T00:00:00Z"}`},
		{method: "PATCH", path: "/api/v1/links/$id", body: `{"destination":"https://example.com/2"}`, header: map[string]string{"If-Match": `"1"`}},
		{method: "PATCH", path: "/api/v1/links/$id", body: `{"destination":"https://example.com/3"}`, header: map[string]string{"If-Match": `"1"`}},
		{method: "PATCH", path: "/api/v1/links/$id", body: `{"destination":"https://example.com/3"}`, header: map[string]string{"If-Match": `1`}},
		{method: "PATCH", path: "/api/v1/links/$id", body: `{"title":null,"tags":null,"metadata":null,"forward_query":null,"expires_at":null,"status":"disabled"}`},
		{method: "PATCH", path: "/api/v1/links/$id", body: `{"status":"active","expires_at":"2020-01-01T00:00:00Z"}`},
		{method: "PATCH", path: "/api/v1/links/$id", body: `{"destination":null}`},
		{method: "PATCH", path: "/api/v1/links/$id", body: `{"status":"expired"}`},
		{method: "PATCH", path: "/api/v1/links/$id", body: `{"code":"other"}`},
		{method: "PATCH", path: "/api/v1/links/$id", body: `{}`},
		{method: "DELETE", path: "/api/v1/links/$id", header: map[string]string{"If-Match": `"1"`}},
		{method: "DELETE", path: "/api/v1/links/$id"},
		{method: "GET", path: "/api/v1/links/$id"},
		{method: "DELETE", path: "/api/v1/links/$id"},
		{method: "GET", path: "/api/v1/links/nonsense"},
	}},
	{"link_list", []request{
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/1","code":"one","tags":["x"],"external_id":"e1"}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/2","code":"two","tags":["x"]}`},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/3","code":"three"}`},
		{method: "GET", path: "/api/v1/links?limit=2"},
		{method: "GET", path: "/api/v1/links?tag=x&q=ONE"},
		{method: "GET", path: "/api/v1/links?external_id=e1&status=active&domain=localhost:8080&sort=-created_at"},
		{method: "GET", path: "/api/v1/links?created_from=2030-01-01T00:00:00Z"},
		{method: "GET", path: "/api/v1/links?cursor=nonsense"},
		{method: "GET", path: "/api/v1/links?limit=0"},
		{method: "GET", path: "/api/v1/links?limit=1001"},
		{method: "GET", path: "/api/v1/links?limit=x"},
		{method: "GET", path: "/api/v1/links?status=gone"},
		{method: "GET", path: "/api/v1/links?sort=clicks"},
		{method: "GET", path: "/api/v1/links?domain=other.example"},
		{method: "GET", path: "/api/v1/links?campaign_id=camp_1"},
		{method: "GET", path: "/api/v1/links?created_to=yesterday"},
		{method: "GET", path: "/api/v1/links?colour=red"},
	}},
	{"link_delete_many", []request{
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/1","code":"one"}`},
		{method: "POST", path: "/api/v1/links/delete", body: `{"ids":["$id","link_0000000000001","nothing-here","$id"]}`},
		{method: "POST", path: "/api/v1/links/delete", body: `{"ids":[]}`},
		{method: "POST", path: "/api/v1/links/delete", body: `{"ids":"all"}`},
	}},
	{"domain", []request{
		{method: "POST", path: "/api/v1/domains", body: `{"host":"Go.Example.COM.","code_length":6,"alphabet":"base62","strategy":"permuted","default_ttl":"4380h","redirect_status":302,
			"not_found_destination":"https://example.com/404","root_destination":"https://example.com/","expired_destination":null}`},
		{method: "POST", path: "/api/v1/domains", body: `{"host":"go.example.com"}`},
		{method: "POST", path: "/api/v1/domains", body: `{"host":"shared.example.com","shared":true}`},
		{method: "GET", path: "/api/v1/domains"},
		{method: "GET", path: "/api/v1/domains?limit=1"},
		{method: "GET", path: "/api/v1/domains?limit=1&cursor=go.example.com"},
		{method: "GET", path: "/api/v1/domains/go.example.com"},
		{method: "GET", path: "/api/v1/domains/GO.example.com."},
		{method: "GET", path: "/api/v1/domains/localhost:8080"},
		{method: "PATCH", path: "/api/v1/domains/go.example.com", body: `{"default_ttl":null,"root_destination":null,"redirect_status":301,"forward_query":true}`, header: map[string]string{"If-Match": `"1"`}},
		{method: "PATCH", path: "/api/v1/domains/go.example.com", body: `{"redirect_status":null}`},
		{method: "PATCH", path: "/api/v1/domains/go.example.com", body: `{"forward_query":false}`, header: map[string]string{"If-Match": `"1"`}},
		{method: "PATCH", path: "/api/v1/domains/shared.example.com", body: `{"s_maxage":30}`},
		{method: "PATCH", path: "/api/v1/domains/go.example.com", body: `{"host":"new.example.com"}`},
		{method: "PATCH", path: "/api/v1/domains/go.example.com", body: `{"default_ttl":"a while"}`},
		{method: "PATCH", path: "/api/v1/domains/no.example.com", body: `{}`},
		{method: "DELETE", path: "/api/v1/domains/go.example.com"},
		{method: "DELETE", path: "/api/v1/domains/localhost:8080"},
		{method: "GET", path: "/api/v1/domains/go.example.com"},
		{method: "POST", path: "/api/v1/domains", body: `{"host":"https://go.example.com/"}`},
		{method: "POST", path: "/api/v1/domains", body: `{"host":"go.example.com","alphabet":"klingon"}`},
		{method: "POST", path: "/api/v1/domains", body: `{}`},
	}},
	{"workspaces_and_keys", []request{
		{method: "POST", path: "/api/v1/workspaces", body: `{"name":"Acme"}`},
		{method: "GET", path: "/api/v1/workspaces/$id"},
		{method: "POST", path: "/api/v1/keys", body: `{"name":"ci","workspace_id":"$id","scopes":["links:write","links:read","links:read"]}`},
		{method: "GET", path: "/api/v1/keys/$id"},
		{method: "DELETE", path: "/api/v1/keys/$id"},
		{method: "GET", path: "/api/v1/keys/$id"},
		{method: "POST", path: "/api/v1/keys", body: `{"name":"own","scopes":["*"],"expires_at":"2027-01-01T00:00:00Z"}`},
		{method: "GET", path: "/api/v1/keys"},
		{method: "GET", path: "/api/v1/workspaces"},
		{method: "GET", path: "/api/v1/workspaces?limit=1"},
		{method: "GET", path: "/api/v1/workspaces?limit=1&cursor=ws_0000000000001"},
		{method: "GET", path: "/api/v1/workspaces?cursor=x"},
		{method: "GET", path: "/api/v1/keys?cursor=x"},
		{method: "POST", path: "/api/v1/keys", body: `{"name":"x","scopes":["everything"]}`},
		{method: "POST", path: "/api/v1/keys", body: `{"name":"x","scopes":[]}`},
		{method: "POST", path: "/api/v1/keys", body: `{"name":"x"}`},
		{method: "POST", path: "/api/v1/keys", body: `{"name":"","scopes":["*"]}`},
		{method: "POST", path: "/api/v1/keys", body: `{"name":"x","scopes":["*"],"workspace_id":"ws_0000000000009"}`},
		{method: "POST", path: "/api/v1/keys", body: `{"name":"x","scopes":["*"],"expires_at":"2020-01-01T00:00:00Z"}`},
		{method: "POST", path: "/api/v1/workspaces", body: `{"name":"x","default_domain":"no.example.com"}`},
		{method: "POST", path: "/api/v1/workspaces", body: `{"name":"Beta","default_domain":"localhost:8080"}`},
		{method: "GET", path: "/api/v1/workspaces/ws_0000000000009"},
		{method: "GET", path: "/api/v1/system"},
		{method: "GET", path: "/api/v1/nodes"},
	}},
	{"clicks", []request{
		{method: "GET", path: "/api/v1/clicks?from=2026-11-02T00:00:00Z&to=2026-11-09T00:00:00Z&limit=2"},
		{method: "GET", path: "/api/v1/clicks?from=2026-11-02T00:00:00Z&to=2026-11-09T00:00:00Z&limit=1&cursor=click_01kp1tadtr" + "e000000000000000"},
		{method: "GET", path: "/api/v1/clicks?from=2026-11-02T00:00:00Z&to=2026-11-09T00:00:00Z&format=csv&limit=2&all=true"},
		{method: "GET", path: "/api/v1/clicks?from=2026-11-02T00:00:00Z&to=2026-11-09T00:00:00Z&format=ndjson&f=is,country,DE"},
		{method: "GET", path: "/api/v1/clicks?format=xml"},
		{method: "GET", path: "/api/v1/clicks?limit=1001"},
		{method: "GET", path: "/api/v1/clicks?by=country"},
		{method: "GET", path: "/api/v1/clicks?cursor=nonsense"},
		{method: "GET", path: "/api/v1/clicks?all=maybe"},
		{method: "GET", path: "/api/v1/clicks?link_id=link_0000000000009"},
	}},
	{"retention", []request{
		{method: "PATCH", path: "/api/v1/workspaces/ws_0000000000001", body: `{"retention":{"raw_days":90,"bot_days":30}}`},
		{method: "PATCH", path: "/api/v1/workspaces/ws_0000000000001", body: `{"name":"renamed"}`},
		{method: "PATCH", path: "/api/v1/workspaces/ws_0000000000001", body: `{"retention":{"raw_days":-1}}`},
		{method: "PATCH", path: "/api/v1/workspaces/ws_0000000000001", body: `{"retention":null}`},
	}},
	{"visitors_kept", []request{
		{method: "PATCH", path: "/api/v1/workspaces/ws_0000000000001", body: `{"store_ua":true,"store_ip":"truncated"}`},
		{method: "PATCH", path: "/api/v1/workspaces/ws_0000000000001", body: `{"store_ip":"full"}`},
		{method: "PATCH", path: "/api/v1/workspaces/ws_0000000000001", body: `{"store_ua":"yes"}`},
		{method: "PATCH", path: "/api/v1/workspaces/ws_0000000000001", body: `{"store_ua":null,"store_ip":null}`},
	}},
	{"exports", []request{
		{method: "POST", path: "/api/v1/exports", body: `{"format":"parquet","from":"2026-11-02T00:00:00Z","to":"2026-11-09T00:00:00Z","filters":["is,country,DE"],"all":true}`},
		{method: "GET", path: "/api/v1/exports/$id"},
		{method: "GET", path: "/api/v1/exports"},
		{method: "GET", path: "/x/ws_0000000000001/$id/guess", key: "-"},
		{method: "GET", path: "/x/mine/$id/guess", key: "-"},
		{method: "DELETE", path: "/api/v1/exports/$id"},
		{method: "GET", path: "/api/v1/exports/$id"},
		{method: "POST", path: "/api/v1/exports", body: `{"format":"xml"}`},
		{method: "POST", path: "/api/v1/exports", body: `{"format":"csv","period":"soon"}`},
		{method: "POST", path: "/api/v1/exports", body: `{"format":"csv","filters":["country"]}`},
	}},
	{"shares", []request{
		{method: "POST", path: "/api/v1/shares", body: `{"name":"For the client","tag":"sms","expires_at":"2027-01-01T00:00:00Z"}`},
		{method: "GET", path: "/api/v1/shares?limit=1"},
		{method: "GET", path: "/s/$id/stats?period=7d", key: "-"},
		{method: "GET", path: "/s/$id/stats?period=99d", key: "-"},
		{method: "DELETE", path: "/api/v1/shares/$id"},
		{method: "GET", path: "/s/$id/stats", key: "-"},
		{method: "DELETE", path: "/api/v1/shares/$id"},
		{method: "GET", path: "/s/nonsense", key: "-"},
		{method: "POST", path: "/api/v1/shares", body: `{"name":""}`},
		{method: "POST", path: "/api/v1/shares", body: `{"name":"x","tag":"a","domain":"localhost:8080"}`},
		{method: "POST", path: "/api/v1/shares", body: `{"name":"x","link_id":"link_0000000000009"}`},
	}},
	{"conversions", []request{
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/","code":"summer"}`},
		{method: "POST", path: "/api/v1/conversions", body: `{"click_id":"click_01m6yskqd0e000000000000000","kind":"sale","amount":1999,"currency":"EUR","invoice_id":"i-1","customer_id":"c-1","metadata":{"plan":"pro"}}`},
		{method: "POST", path: "/api/v1/conversions", body: `{"click_id":"click_01m6yskqd0e000000000000000","kind":"sale","amount":5,"currency":"EUR","invoice_id":"i-1"}`},
		{method: "POST", path: "/api/v1/conversions", body: `{"code":"summer","customer_id":"c-2","kind":"custom","name":"trial","ts":"2026-11-20T10:00:00Z"}`},
		{method: "POST", path: "/api/v1/conversions", body: `{"code":"winter","customer_id":"c-2","kind":"lead"}`},
		{method: "POST", path: "/api/v1/conversions", body: `{"kind":"lead"}`},
		{method: "POST", path: "/api/v1/conversions", body: `{"click_id":"click_1","kind":"lead"}`},
		{method: "POST", path: "/api/v1/conversions", body: `{"click_id":"click_01m6yskqd0e000000000000000","kind":"sale","amount":19.99,"currency":"EUR"}`},
		{method: "POST", path: "/api/v1/conversions", body: `{"click_id":"click_01m6yskqd0e000000000000000","kind":"sale","amount":5}`},
		{method: "GET", path: "/api/v1/analytics/conversions?from=2026-11-02T00:00:00Z&to=2026-11-09T00:00:00Z&tag=sms&by=country&metric=revenue&currency=eur"},
		{method: "GET", path: "/api/v1/analytics/conversions?from=2026-11-02T00:00:00Z&to=2026-11-09T00:00:00Z"},
		{method: "GET", path: "/api/v1/analytics/conversions?by=country&metric=revenue"},
		{method: "GET", path: "/api/v1/analytics/conversions?by=country&metric=clicks"},
		{method: "GET", path: "/api/v1/analytics/conversions?by=outcome"},
		{method: "GET", path: "/api/v1/analytics/breakdown?by=country&metric=revenue&currency=EUR"},
		{method: "GET", path: "/api/v1/analytics/breakdown?by=tag&tag=sms&campaign_id=camp_0000000000001"},
	}},
	{"analytics", []request{
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/1","code":"one"}`},
		{method: "GET", path: "/api/v1/analytics/summary?period=7d"},
		{method: "GET", path: "/api/v1/analytics/summary?period=24h&link_id=$id&compare=previous"},
		{method: "GET", path: "/api/v1/analytics/timeseries?from=2026-11-22T00:00:00Z&to=2026-11-23T00:00:00Z&interval=day&tz=Europe/Berlin&compare=previous"},
		{method: "GET", path: "/api/v1/analytics/breakdown?by=country&f=is,device,mobile&f=not,country,DE,AT&limit=5&domain=LOCALHOST:8080"},
		{method: "GET", path: "/api/v1/analytics/breakdown"},
		{method: "GET", path: "/api/v1/analytics/breakdown?by=colour"},
		{method: "GET", path: "/api/v1/analytics/summary?link_id=link_0000000000009"},
		{method: "GET", path: "/api/v1/analytics/summary?domain=no.example.com"},
		{method: "GET", path: "/api/v1/analytics/summary?period=soon"},
		{method: "GET", path: "/api/v1/analytics/summary?colour=red"},
		{method: "GET", path: "/api/v1/analytics/breakdown?by=country&q=d&compare=custom&compare_from=2026-10-01&compare_to=2026-10-31"},
		{method: "GET", path: "/api/v1/analytics/summary?compare=custom"},
		{method: "GET", path: "/api/v1/analytics/summary?compare_from=2026-10-01"},
		{method: "GET", path: "/api/v1/analytics/breakdown?by=campaign&q=x"},
		{method: "GET", path: "/api/v1/analytics/heatmap?from=2026-11-02T00:00:00Z&to=2026-11-09T00:00:00Z&tz=Europe/Berlin"},
		{method: "GET", path: "/api/v1/analytics/heatmap?by=country"},
	}},
	{"http", []request{
		{method: "GET", path: "/", key: "-"},
		{method: "GET", path: "/api/v1/nothing"},
		{method: "POST", path: "/api/v1//links", body: `{"destination":"https://example.com/"}`},
		{method: "PUT", path: "/api/v1/links", body: `{}`},
		{method: "DELETE", path: "/api/v1/openapi.json"},
		{method: "GET", path: "/api/v1/links", key: "-"},
		{method: "GET", path: "/api/v1/links", key: "wrong"},
		{method: "GET", path: "/api/v1/links", key: "-", header: map[string]string{"Authorization": "Basic b3duZXI6eA=="}},
		{method: "GET", path: "/api/v1/links", header: map[string]string{"Terse-Workspace": "ws_0000000000009"}},
		{method: "GET", path: "/api/v1/links", header: map[string]string{"Terse-Workspace": "mine"}},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/"}`, header: map[string]string{"Sec-Fetch-Site": "cross-site"}},
		{method: "POST", path: "/api/v1/links", body: `{"destination":"https://example.com/"}`, header: map[string]string{"Content-Encoding": "gzip"}},
		{method: "GET", path: "/healthz", key: "-"},
		{method: "GET", path: "/readyz", key: "-"},
	}},
}

var (
	rxLinkID  = regexp.MustCompile(`link_[0-9a-hjkmnp-tv-z]{13}`)
	rxToken   = regexp.MustCompile(`terse_[0-9A-Za-z]{8}_[0-9A-Za-z]{38}`)
	rxKeyID   = regexp.MustCompile(`("id": "|/keys/)[0-9A-Za-z]{8}\b`)
	rxCode    = regexp.MustCompile(`("code": ")[0-9A-Za-z]{7}(",\s*"destination")|("short_url": "http://localhost:8080/)[0-9A-Za-z]{7}(")`)
	rxExport  = regexp.MustCompile(`exp_[0-9a-hjkmnp-tv-z]{24}`)
	rxShare   = regexp.MustCompile(`share_[0-9a-hjkmnp-tv-z]{33}`)
	rxCursor  = regexp.MustCompile(`"next_cursor": "[^"]{14,}"`)
	kept      = []string{"Allow", "Content-Type", "Etag", "Location", "Retry-After", "Www-Authenticate", "Accept"}
	realLinks = []string{"link_0000000000001", "link_0000000000009"}
)

func TestScenarios(t *testing.T) {
	t.Parallel()
	for _, sc := range scenarios {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, options{})
			var out bytes.Buffer
			id := ""
			for _, q := range sc.steps {
				shown := q
				q.path, q.body = strings.ReplaceAll(q.path, "$id", id), strings.ReplaceAll(q.body, "$id", id)
				a := b.do(q)
				if a.status == http.StatusCreated {
					var body struct {
						ID string `json:"id"`
					}
					if json.Unmarshal(a.body, &body); body.ID != "" {
						id = body.ID
					}
				}
				transcribe(&out, shown, a)
			}
			golden(t, "golden/"+sc.name+".txt", placeholders(out.Bytes()))
		})
	}
}

// transcribe writes a request and its answer for people.
func transcribe(out *bytes.Buffer, q request, a answer) {
	fmt.Fprintf(out, "=== %s %s", q.method, q.path)
	for _, k := range []string{"If-Match", "Content-Type", "Terse-Workspace", "Sec-Fetch-Site", "Content-Encoding"} {
		if v := q.header[k]; v != "" {
			fmt.Fprintf(out, "  %s: %s", k, v)
		}
	}
	out.WriteByte('\n')
	if q.body != "" {
		fmt.Fprintf(out, "%s\n", strings.ToValidUTF8(q.body, "\\xff"))
	}
	fmt.Fprintf(out, "--- %d\n", a.status)
	for _, name := range kept {
		if v := a.header.Get(name); v != "" {
			fmt.Fprintf(out, "%s: %s\n", name, v)
		}
	}
	var pretty bytes.Buffer
	if json.Indent(&pretty, bytes.TrimSpace(a.body), "", "  ") == nil {
		out.Write(pretty.Bytes())
		out.WriteByte('\n')
	} else {
		out.Write(a.body)
	}
	out.WriteByte('\n')
}

// placeholders replaces what differs from run to run.
func placeholders(b []byte) []byte {
	var seen []string
	b = rxLinkID.ReplaceAllFunc(b, func(id []byte) []byte {
		if slices.Contains(realLinks, string(id)) {
			return id
		}
		i := slices.Index(seen, string(id))
		if i < 0 {
			i, seen = len(seen), append(seen, string(id))
		}
		return fmt.Appendf(nil, "<link %d>", i+1)
	})
	b = rxExport.ReplaceAll(b, []byte("<export>"))
	b = rxShare.ReplaceAll(b, []byte("<share>"))
	b = rxToken.ReplaceAll(b, []byte("<key>"))
	b = rxKeyID.ReplaceAll(b, []byte("${1}<key id>"))
	b = rxCode.ReplaceAll(b, []byte("$1$3<code>$2$4"))
	return rxCursor.ReplaceAll(b, []byte(`"next_cursor": "<cursor>"`))
}
