package links

import (
	"fmt"
	"strings"
	"testing"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/domains"
)

// TestManyDomains: a run over 300 domains gives each of them codes of its own, whether the
// campaign spreads the rows or they name their domains. Every code resolves on its domain.
func TestManyDomains(t *testing.T) {
	const hosts, each = 300, 300
	s := setup(t)
	weights := make([]DomainWeight, hosts)
	for i := range weights {
		weights[i].Host = fmt.Sprintf("d%d.example.com", i)
		if _, err := s.domains.Create(t.Context(), testWorkspace, domains.New{Host: weights[i].Host}, nil); err != nil {
			t.Fatal(err)
		}
	}
	camp := s.campaign(t, NewCampaign{Destination: "https://shop.example/{n}", Domains: weights})
	var values, rows strings.Builder
	for i := range hosts * each {
		fmt.Fprintf(&values, "{\"n\":\"%d\"}\n", i)
		// Named in an order of its own, with aliases, secret codes and rows without a domain between.
		fmt.Fprintf(&rows, `{"destination":"https://shop.example/%d","domain":"%s"%s}`+"\n", i, weights[i*7%hosts].Host, [...]string{``, ``, ``, fmt.Sprintf(`,"code":"own-%d"`, i), `,"class":"secret"`}[i%5])
	}
	for _, c := range []struct {
		name string
		o    BulkOptions
		body string
		host func(i int) string
	}{
		{"spread by the campaign", BulkOptions{Campaign: camp.ID}, values.String(), func(i int) string { return weights[i%hosts].Host }},
		{"named by the rows", BulkOptions{}, rows.String(), func(i int) string { return weights[i*7%hosts].Host }},
	} {
		out, sum := s.bulkString(t, c.o, c.body)
		if sum.Created != hosts*each {
			t.Fatalf("%s: %+v", c.name, sum)
		}
		seen := make(map[string]bool, hosts*each)
		numbers := make(map[terse.LinkNumber]bool, hosts*each)
		for i, r := range ndjsonResults(t, out) {
			if seen[r.ShortURL] {
				t.Fatalf("%s: %s was given twice", c.name, r.ShortURL)
			}
			seen[r.ShortURL] = true
			host, code, _ := strings.Cut(strings.TrimPrefix(r.ShortURL, "https://"), "/")
			if host != c.host(i) {
				t.Fatalf("%s: row %d is on %s, want %s", c.name, i, host, c.host(i))
			}
			l, err := s.domains.ByName(host).Find(t.Context(), s.store, []byte(code))
			if err != nil || numbers[l.Number] {
				t.Fatalf("%s: %s: number %s, error %v", c.name, r.ShortURL, l.Number, err)
			}
			numbers[l.Number] = true
			if shown, _ := s.Shown(&l); shown.Destination != fmt.Sprintf("https://shop.example/%d", i) {
				t.Fatalf("%s: %s leads to %s, want row %d", c.name, r.ShortURL, shown.Destination, i)
			}
		}
	}
}
