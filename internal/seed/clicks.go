package seed

import (
	"fmt"
	"math"
	"math/rand/v2"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
)

// Clicks makes clicks one after the other, in the order of their seconds.
type Clicks struct {
	o      Options
	domain string
	links  []Link
	r      *rand.Rand

	perHour []int // clicks of each hour of the range
	hour    int
	left    int // of the hour
	from    terse.Millis

	// An entry for each share of an index: picking by weight is one look-up.
	countries, agents, referrers, queries []uint16
	clients                               [][]byte // agent x country
	botClients                            [][]byte
	destinations                          []string
	click                                 clicks.Imported
}

// MakeClicks returns a maker of clicks on links, of which at least one is needed. Links come in the order of their importance: the
// first have most clicks.
func (o Options) MakeClicks(domain string, links []Link) *Clicks {
	c := &Clicks{
		o: o, domain: domain, links: links, r: rand.New(rand.NewPCG(o.Seed, 3)),
	}
	for i := range countries {
		for range countries[i].weight {
			c.countries = append(c.countries, uint16(i))
		}
	}
	for i := range agents {
		for range agents[i].weight {
			c.agents = append(c.agents, uint16(i))
		}
	}
	for i := range referrers {
		for range referrers[i].weight {
			c.referrers = append(c.referrers, uint16(i))
		}
	}
	for i := range queries {
		for range queries[i].weight {
			c.queries = append(c.queries, uint16(i))
		}
	}
	for i := range agents {
		for j := range countries {
			c.clients = append(c.clients, clicks.AppendClient(nil, agents[i].agent, countries[j].language, agents[i].platform))
		}
	}
	for _, agent := range bots {
		c.botClients = append(c.botClients, clicks.AppendClient(nil, agent, "", ""))
	}
	for i := range 64 {
		c.destinations = append(c.destinations, fmt.Sprintf("https://www.example.com/articles/%d", i))
	}
	c.spread()
	return c
}

// spread gives each hour its clicks: days and weeks as people have them, a slow growth, and a day on which
// something went viral.
func (c *Clicks) spread() {
	n := c.o.Days * 24
	c.from = c.o.To - terse.Millis(n)*3_600_000
	weights := make([]float64, n)
	total := 0.0
	viral := c.r.IntN(n)
	for i := range weights {
		at := (c.from + terse.Millis(i)*3_600_000).Time()
		w := 0.0
		for _, country := range countries {
			local := at.Hour() + country.ahead
			day := (int(at.Weekday())+6)%7 + 7
			if local < 0 {
				day--
			} else if local > 23 {
				day++
			}
			w += float64(country.weight * hours[(local+24)%24] * days[day%7])
		}
		w *= 1 + 0.5*float64(i)/float64(n)
		if since := i - viral; since >= 0 {
			w *= 1 + 6*math.Exp(-float64(since)/5)
		}
		weights[i] = w * (0.9 + 0.2*c.r.Float64())
		total += weights[i]
	}
	c.perHour = make([]int, n)
	done, sum := 0, 0.0
	for i := range weights {
		sum += weights[i]
		upTo := int(math.Round(float64(c.o.Clicks) * sum / total))
		c.perHour[i], done = upTo-done, upTo
	}
	c.hour, c.left = -1, 0
}

// Next returns the next click, which is valid until the next call; nil after the last.
//
// Hot path: 0 allocs/op, see TestClicksAllocs.
func (c *Clicks) Next() *clicks.Imported {
	for c.left == 0 {
		if c.hour++; c.hour >= len(c.perHour) {
			return nil
		}
		c.left = c.perHour[c.hour]
	}
	n := c.perHour[c.hour]
	second := terse.Millis(3600 * int64(n-c.left) / int64(n))
	c.left--
	at := c.from + terse.Millis(c.hour)*3_600_000 + second*1000 + terse.Millis(c.r.IntN(1000))

	bits := c.r.Uint64()
	home := int(c.countries[int(bits%uint64(len(c.countries)))])
	place := &countries[home]
	link := &c.links[c.link()]
	im := &c.click
	code, referrer, query := im.Code, im.Referrer[:0], im.Query[:0] // their memory is used again
	*im = clicks.Imported{
		Click: clicks.Click{
			At: at, Workspace: c.o.Workspace, Link: link.Number, Campaign: link.Campaign, Domain: c.domain, Code: append(code[:0], link.Code...),
			Destination: c.destinations[uint64(link.Number)%uint64(len(c.destinations))],
		},
		Country: place.code, Region: place.region, City: place.city,
	}
	im.Referrer, im.Query = referrer, query
	switch roll := bits >> 40 & 1023; {
	case roll < 115: // 11 %: bots
		im.Client = c.botClients[bits>>50%uint64(len(c.botClients))]
		if roll < 15 {
			im.Flags |= clicks.FlagHead
		}
		return im
	case roll < 130: // unknown codes
		im.Outcome, im.Link, im.Campaign, im.Destination = clicks.OutcomeNotFound, 0, 0, ""
		im.Code = append(im.Code[:0], unknown[bits>>50%uint64(len(unknown))]...)
	case roll < 145:
		im.Outcome, im.Destination = clicks.OutcomeExpired, ""
	case roll < 200: // QR codes
		im.Flags |= clicks.FlagQR
	}
	agent := int(c.agents[int(bits>>16%uint64(len(c.agents)))])
	im.Client = c.clients[agent*len(countries)+home]
	im.Referrer = append(im.Referrer[:0], referrers[c.referrers[int(bits>>24%uint64(len(c.referrers)))]].url...)
	im.Query = append(im.Query[:0], queries[c.queries[int(bits>>32%uint64(len(c.queries)))]].query...)
	// People: each of them in one country with one browser, as addresses and agents are. Of six one comes again that day.
	people := uint64(max(1, 3*c.o.Clicks/c.o.Days*agents[agent].weight*place.weight/1e4))
	im.Visitor = (c.r.Uint64N(people)*uint64(len(c.clients))+uint64(agent*len(countries)+home)+1)*0x9e3779b97f4a7c15 ^ uint64(at/86_400_000)*0xd1342543de82ef95 | 1
	return im
}

// link picks a link: half of the clicks go to a sixteenth of the links, and the first gets about 3 % of a million's.
func (c *Clicks) link() int {
	x := c.r.Float64()
	return int(float64(len(c.links)) * x * x * x * x)
}

// Conversion is what one of so many clicks leads to.
type Conversion struct {
	Kind     string // lead or sale
	Customer string
	Amount   int64
	At       terse.Millis
}

// Converts says whether click number i, which Next returned last, led to a conversion, and to which; every is how many
// clicks of people one comes from.
func (c *Clicks) Converts(i, every int) (Conversion, bool) {
	if every == 0 || i%every != 0 || c.click.Outcome != clicks.OutcomeRedirect || c.click.Visitor == 0 {
		return Conversion{}, false
	}
	conv := Conversion{Kind: "lead", Customer: fmt.Sprintf("customer-%d", c.r.IntN(1+c.o.Clicks/every/2)), At: min(c.click.At+terse.Millis(c.r.IntN(7_200_000)), c.o.To)}
	if c.r.IntN(3) == 0 {
		conv.Kind, conv.Amount = "sale", int64(990+c.r.IntN(20_000))
	}
	return conv, true
}
