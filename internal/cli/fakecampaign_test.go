package cli

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/terselink/terse/client"
)

// handleCampaigns mounts the campaigns of the fake control plane.
func (f *fakePlane) handleCampaigns(handle func(pattern string, h func(w http.ResponseWriter, r *http.Request) error)) {
	with := func(h func(http.ResponseWriter, *http.Request, *client.Campaign) error) func(http.ResponseWriter, *http.Request) error {
		return func(w http.ResponseWriter, r *http.Request) error {
			for _, c := range f.camps {
				if c.ID == r.PathValue("id") {
					return h(w, r, c)
				}
			}
			answerProblem(w, 404, "not_found", "there is no such campaign", "")
			return nil
		}
	}
	handle("POST /api/v1/campaigns", func(w http.ResponseWriter, r *http.Request) error {
		var n client.NewCampaign
		if err := json.UnmarshalRead(r.Body, &n, json.RejectUnknownMembers(true)); err != nil {
			return err
		}
		c := &client.Campaign{
			ID: fmt.Sprintf("camp_%013d", len(f.camps)+1), Name: n.Name, Domains: n.Domains, Destination: n.Destination, Fields: n.Fields, Tags: n.Tags, Status: "active",
			ExpiresAt: n.ExpiresAt, StartsAt: n.StartsAt, ExpiredDestination: n.ExpiredDestination, RedirectStatus: n.RedirectStatus, ForwardQuery: n.ForwardQuery, Rules: n.Rules,
			Title: n.Title, MaxClicks: n.MaxClicks, HasPassword: n.Password != "", ForwardPath: n.ForwardPath, NoIndex: n.NoIndex, LinkWeb: n.LinkWeb,
			Metadata: n.Metadata, CreatedAt: fakeTime, UpdatedAt: fakeTime, Version: 1,
		}
		if len(c.Domains) == 0 {
			c.Domains = []client.CampaignDomain{{Host: "localhost:8080", Weight: 1}}
		}
		if c.Fields == nil {
			for part := range strings.SplitSeq(n.Destination, "{") {
				if name, _, found := strings.Cut(part, "}"); found {
					c.Fields = append(c.Fields, name)
				}
			}
		}
		f.camps = append(f.camps, c)
		return answer(w, 201, c)
	})
	handle("GET /api/v1/campaigns", func(w http.ResponseWriter, _ *http.Request) error { return answer(w, 200, dataOf(f.camps)) })
	handle("GET /api/v1/campaigns/{id}", with(func(w http.ResponseWriter, _ *http.Request, c *client.Campaign) error { return answer(w, 200, c) }))
	handle("PATCH /api/v1/campaigns/{id}", with(func(w http.ResponseWriter, r *http.Request, c *client.Campaign) error {
		if match := r.Header.Get("If-Match"); match != "" && match != fmt.Sprintf("%q", fmt.Sprint(c.Version)) {
			answerProblem(w, 412, "precondition", "the version has changed", "")
			return nil
		}
		c.Version++
		return merge(w, r, 200, c)
	}))
	handle("DELETE /api/v1/campaigns/{id}", with(func(w http.ResponseWriter, _ *http.Request, c *client.Campaign) error {
		f.camps = slices.DeleteFunc(f.camps, func(o *client.Campaign) bool { return o == c })
		w.WriteHeader(http.StatusNoContent)
		return nil
	}))
	handle("POST /api/v1/campaigns/{id}/links", with(f.addLinks))
	handle("POST /api/v1/campaigns/{id}/links/generate", with(func(w http.ResponseWriter, r *http.Request, c *client.Campaign) error {
		var g client.GenerateOptions
		if err := json.UnmarshalRead(r.Body, &g); err != nil {
			return err
		}
		if len(c.Fields) > 0 {
			answerProblem(w, 422, "values_needed", "the links of this campaign need values", "count")
			return nil
		}
		for i := range g.Count {
			fmt.Fprintf(w, `{"index":%d,"short_url":"http://localhost:8080/%sg%d","code":"%sg%d","id":"link_%d"}`+"\n", i, g.Class, i, g.Class, i, i)
		}
		c.Links += g.Count
		_, err := fmt.Fprintf(w, `{"done":true,"created":%d,"reused":0,"failed":0}`+"\n", g.Count)
		return err
	}))
	handle("GET /api/v1/campaigns/{id}/links", with(func(w http.ResponseWriter, r *http.Request, c *client.Campaign) error {
		if f.cutAt > 0 {
			io.WriteString(w, "short_url,code\n")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		if r.URL.Query().Get("format") == "csv" {
			_, err := io.WriteString(w, "short_url,code\nhttp://localhost:8080/a,a\n")
			return err
		}
		_, err := io.WriteString(w, `{"short_url":"http://localhost:8080/a","code":"a"}`+"\n")
		return err
	}))
}

// addLinks answers rows of values; a row without one of the fields is bad. What was answered under an
// Idempotency-Key before is answered with the same codes.
func (f *fakePlane) addLinks(w http.ResponseWriter, r *http.Request, c *client.Campaign) error {
	rc := http.NewResponseController(w)
	if err := rc.EnableFullDuplex(); err != nil {
		return err
	}
	var rows []map[string]string
	if r.Header.Get("Content-Type") == "text/csv" {
		all, err := csv.NewReader(r.Body).ReadAll()
		if err != nil {
			return err
		}
		for _, column := range all[0] {
			if !slices.Contains(c.Fields, column) && !slices.Contains(rowSettings, column) {
				answerProblem(w, 422, "unknown_column", fmt.Sprintf("the column %q is not a field of the campaign", column), "header")
				return nil
			}
		}
		for _, record := range all[1:] {
			row := map[string]string{}
			for i, column := range all[0] {
				row[column] = record[i]
			}
			rows = append(rows, row)
		}
	} else {
		d := jsontext.NewDecoder(r.Body)
		for {
			row := map[string]string{}
			if err := json.UnmarshalDecode(d, &row); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				return err
			}
			rows = append(rows, row)
		}
	}
	key := r.Header.Get("Idempotency-Key")
	first, repeated := f.repeats[key]
	if !repeated || key == "" {
		first = int(c.Links)
		if f.repeats == nil {
			f.repeats = map[string]int{}
		}
		f.repeats[key] = first
		if !r.URL.Query().Has("dry_run") {
			c.Links += uint64(len(rows))
		}
	}
	failed := 0
	for i, row := range rows {
		if f.cutAt > 0 && i == f.cutAt {
			f.cutAt = 0
			panic(http.ErrAbortHandler)
		}
		missing := ""
		for _, field := range c.Fields {
			if row[field] == "" {
				missing = field
			}
		}
		if missing != "" {
			failed++
			fmt.Fprintf(w, `{"index":%d,"external_id":%q,"error":{"code":"missing_field","field":%q,"message":"the value is missing"}}`+"\n", i, row["external_id"], missing)
		} else if r.URL.Query().Has("dry_run") {
			fmt.Fprintf(w, `{"index":%d,"external_id":%q,"valid":true}`+"\n", i, row["external_id"])
		} else {
			fmt.Fprintf(w, `{"index":%d,"short_url":"http://localhost:8080/v%d","code":"v%d","id":"link_%d","external_id":%q}`+"\n", i, first+i, first+i, first+i, row["external_id"])
		}
		rc.Flush()
	}
	_, err := fmt.Fprintf(w, `{"done":true,"created":%d,"reused":0,"failed":%d}`+"\n", len(rows)-failed, failed)
	return err
}
