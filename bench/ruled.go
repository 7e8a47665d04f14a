//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/go-json-experiment/json"

	"github.com/terselink/terse/e2e/proc"
)

// fillRuled makes links with ten rules each, of which none but the last matches the visitors of wrk.lua, and
// returns their codes.
func fillRuled(ctx context.Context, s *proc.Server, n int) ([][]byte, error) {
	type condition struct {
		Type   string   `json:"type"`
		Key    string   `json:"key,omitzero"`
		Values []string `json:"values"`
	}
	type rule struct {
		Conditions  []condition `json:"conditions"`
		Destination string      `json:"destination"`
	}
	var rules []rule
	for i, c := range []condition{
		{Type: "country", Values: []string{"NZ", "IS"}}, {Type: "language", Values: []string{"ja", "ko"}}, {Type: "query", Key: "utm_source", Values: []string{"sms"}},
		{Type: "device", Values: []string{"tablet"}}, {Type: "os", Values: []string{"Linux"}}, {Type: "browser", Values: []string{"Opera"}}, {Type: "bot", Values: []string{"scanner"}},
		{Type: "referrer", Values: []string{"mail.example.com"}}, {Type: "country", Values: []string{"BR"}}, {Type: "language", Values: []string{"de"}},
	} {
		rules = append(rules, rule{[]condition{c}, fmt.Sprintf("https://shop.example.com/offers/%d?utm_source=sms&utm_campaign=blackfriday", i)})
	}
	var body bytes.Buffer
	for i := range n {
		b, err := json.Marshal(map[string]any{"destination": fmt.Sprintf("https://shop.example.com/products/%d", i), "rules": rules})
		if err != nil {
			return nil, fmt.Errorf("render a row: %w", err)
		}
		body.Write(append(b, '\n'))
	}
	req, err := http.NewRequestWithContext(ctx, "POST", s.URL("/api/v1/links/bulk"), &body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+proc.Key)
	req.Header.Set("Content-Type", ndjson.contentType)
	resp, err := bulkHTTP.Do(req)
	if err != nil {
		return nil, fmt.Errorf("make links with rules: %w", err)
	}
	all, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("make links with rules: %w", err)
	}
	var codes [][]byte
	for line := range bytes.Lines(all) {
		var row struct {
			Code string `json:"code"`
		}
		if err := json.Unmarshal(line, &row); err == nil && row.Code != "" {
			codes = append(codes, []byte(row.Code))
		}
	}
	if len(codes) != n {
		return nil, fmt.Errorf("make links with rules: %d codes for %d rows: %.500s", len(codes), n, all)
	}
	return codes, nil
}
