package enginetest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/analytics"
	"github.com/terselink/terse/internal/clicks"
)

// values returns what a click has of a dimension: one value, but for tags.
func (r *Reference) values(d analytics.Dimension, ev *clicks.Event) []string {
	if d != analytics.Tag {
		return []string{d.Of(ev)}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	tags := slices.Concat(r.links[ev.Link], r.campaigns[ev.Campaign])
	slices.Sort(tags)
	if tags = slices.Compact(tags); len(tags) == 0 {
		return []string{""}
	}
	return tags
}

// FactsAt implements analytics.FactSink.
func (r *Reference) FactsAt(context.Context) (uint64, bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at, r.known, nil
}

// PutFacts implements analytics.FactSink.
func (r *Reference) PutFacts(_ context.Context, b analytics.FactBatch) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !b.Follows(r.at, r.known) {
		return &terse.Error{Code: terse.CodePrecondition, Message: "the engine is elsewhere"}
	}
	if b.Reset || r.links == nil {
		r.links, r.campaigns, r.conversions = map[terse.LinkNumber][]string{}, map[terse.CampaignID][]string{}, map[string]analytics.Conversion{}
	}
	for _, l := range b.Links {
		r.links[l.Link] = l.Tags
	}
	for _, c := range b.Campaigns {
		r.campaigns[c.Campaign] = c.Tags
	}
	for _, c := range b.Conversions {
		r.conversions[c.Workspace.String()+c.ID] = c
	}
	r.at, r.known = b.At, !b.Partial
	return nil
}

// converted is a conversion with what its click says.
type converted struct {
	analytics.Conversion
	click   clicks.Event
	pending bool
}

// who is what a funnel counts once.
func (c *converted) who() string {
	if c.Click == (terse.ClickID{}) {
		return "c" + c.Customer
	}
	return c.Click.String()
}

// all returns the conversions with their clicks.
func (r *Reference) all() (list []converted) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(r.conversions)) {
		c := converted{Conversion: r.conversions[id]}
		c.click = clicks.Event{Workspace: c.Workspace, Link: c.Link, Campaign: c.Campaign, Domain: c.Domain, Code: c.Code}
		if c.Click != (terse.ClickID{}) {
			i := slices.IndexFunc(r.events, func(ev clicks.Event) bool { return terse.ClickID(ev.ID) == c.Click && ev.Workspace == c.Workspace })
			if c.pending = i < 0; !c.pending {
				c.click = r.events[i]
			}
		}
		c.click.At = c.At // the range is of conversions
		list = append(list, c)
	}
	return list
}

// Funnel implements analytics.Engine.
func (r *Reference) Funnel(_ context.Context, q analytics.Query) (analytics.Funnel, error) {
	q, err := q.Normalize()
	if err == nil {
		err = q.CheckConversions(false)
	}
	if err != nil {
		return analytics.Funnel{}, err
	}
	f := analytics.Funnel{Revenue: []analytics.Amount{}}
	all := r.all()
	first := map[string]terse.Millis{}
	for i := range all {
		if c := &all[i]; c.Workspace == q.Workspace && !c.pending && c.Kind == analytics.Sale && !c.Refund() && c.Customer != "" && (first[c.Customer] == 0 || c.At < first[c.Customer]) {
			first[c.Customer] = c.At
		}
	}
	leads, sales, fresh, old := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	for i := range all {
		c := &all[i]
		if c.pending {
			if c.Workspace == q.Workspace && c.At >= q.From && c.At < q.To {
				f.Pending++
			}
			continue
		}
		if !r.selects(q, &c.click) || !chosen(q, &c.click) {
			continue
		}
		switch c.Kind {
		case analytics.Lead:
			f.Leads++
			leads[c.who()] = true
		case analytics.Sale:
			f.Revenue = addAmount(f.Revenue, c)
			if c.Refund() {
				f.Refunds++
				continue
			}
			f.Sales++
			sales[c.who()] = true
			if c.Customer != "" && first[c.Customer] >= q.From {
				fresh[c.Customer] = true
			} else if c.Customer != "" {
				old[c.Customer] = true
			}
		default:
			f.Customs++
		}
	}
	f.LeadClicks, f.SaleClicks, f.NewCustomers, f.ReturningCustomers = int64(len(leads)), int64(len(sales)), int64(len(fresh)), int64(len(old))
	return f, nil
}

func addAmount(list []analytics.Amount, c *converted) []analytics.Amount {
	if c.Currency == "" {
		return list
	}
	i, found := slices.BinarySearchFunc(list, c.Currency, func(a analytics.Amount, s string) int { return cmp.Compare(a.Currency, s) })
	if !found {
		list = slices.Insert(list, i, analytics.Amount{Currency: c.Currency})
	}
	list[i].Amount += c.Amount
	if c.Refund() {
		list[i].Refunds++
	} else {
		list[i].Sales++
	}
	return list
}

// ConversionsBy implements analytics.Engine.
func (r *Reference) ConversionsBy(_ context.Context, q analytics.Query) (analytics.ConversionBreakdown, error) {
	q, err := q.Normalize()
	if err == nil {
		err = q.CheckConversions(true)
	}
	if err != nil {
		return analytics.ConversionBreakdown{}, err
	}
	rows := map[string]*analytics.ConversionValue{}
	all := r.all()
	for i := range all {
		c := &all[i]
		if c.pending || !r.selects(q, &c.click) || !chosen(q, &c.click) {
			continue
		}
		for _, v := range r.values(q.By, &c.click) {
			if q.By == analytics.Tag && !strings.Contains(strings.ToLower(v), q.Search) || q.By != analytics.Tag && !q.Found(&c.click) {
				continue
			}
			row := rows[v]
			if row == nil {
				row = &analytics.ConversionValue{Value: v}
				rows[v] = row
			}
			switch {
			case c.Kind == analytics.Lead:
				row.Leads++
			case c.Kind == analytics.Sale:
				if c.Refund() {
					row.Refunds++
				} else {
					row.Sales++
				}
				if c.Currency == q.Currency && q.Currency != "" {
					row.Revenue += c.Amount
				}
			default:
				row.Customs++
			}
			if q.By == analytics.Link && v != "" {
				row.Label = max(row.Label, c.click.Domain+"/"+c.click.Code)
			}
		}
	}
	b := analytics.ConversionBreakdown{Data: []analytics.ConversionValue{}, Values: int64(len(rows))}
	for _, row := range rows {
		b.Data = append(b.Data, *row)
		b.Total += row.Metric(q.Metric)
	}
	slices.SortFunc(b.Data, func(x, y analytics.ConversionValue) int {
		return cmp.Or(cmp.Compare(y.Metric(q.Metric), x.Metric(q.Metric)), q.By.Compare(x.Value, y.Value))
	})
	b.Data = b.Data[:min(len(b.Data), q.Limit)]
	b.Other = b.Total
	for i := range b.Data {
		b.Other -= b.Data[i].Metric(q.Metric)
	}
	return b, nil
}

// tags are those of generated facts.
var tags = []string{"sms", "vip", "a,b", "Ünder"}

// Facts returns believable facts about the links of events: tags of some links and campaigns, and conversions of
// every kind, some without a click and some whose click is none of the events.
func Facts(seed uint64, events []clicks.Event) analytics.FactBatch {
	r := rand.New(rand.NewPCG(seed, 11))
	b := analytics.FactBatch{At: 5}
	seen := map[terse.LinkNumber]bool{0: true}
	for i := range events {
		ev := &events[i]
		if ev.Workspace == Workspace && !seen[ev.Link] {
			seen[ev.Link] = true
			l := analytics.LinkTags{Workspace: Workspace, Link: ev.Link, New: true}
			for _, tag := range tags {
				if r.IntN(4) == 0 {
					l.Tags = append(l.Tags, tag)
				}
			}
			b.Links = append(b.Links, l)
		}
		if r.IntN(40) > 0 {
			continue
		}
		c := analytics.Conversion{
			ID: fmt.Sprintf("conv_%d", i), Workspace: ev.Workspace, At: min(ev.At+terse.Millis(r.IntN(86_400_000)), SpanTo-1), Kind: pick(r, analytics.Sale, analytics.Lead, analytics.Custom),
			Customer: fmt.Sprintf("c%d", r.IntN(60)), Click: terse.ClickID(ev.ID),
		}
		if c.Kind == analytics.Sale {
			c.Amount, c.Currency = int64(r.IntN(10_000)-2_000), pick(r, "EUR", "USD", "")
			if c.Currency == "" {
				c.Amount = 0
			}
		}
		switch r.IntN(8) {
		case 0:
			c.Click[15] ^= 0x55 // not there, yet
		case 1:
			c.Click, c.Link, c.Campaign, c.Domain, c.Code = terse.ClickID{}, ev.Link, ev.Campaign, ev.Domain, ev.Code
		case 2:
			c.Customer = ""
		}
		b.Conversions = append(b.Conversions, c)
	}
	b.Campaigns = []analytics.CampaignTags{{Workspace: Workspace, Campaign: 12, Tags: []string{"sms", "spring"}}, {Workspace: Workspace, Campaign: 99}}
	return b
}
