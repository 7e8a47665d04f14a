package seed

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/terselink/terse"
)

// Options say how much is made up.
type Options struct {
	Seed      uint64
	Links     int
	Clicks    int
	Days      int // that the clicks are spread over; the last one ends with To
	To        terse.Millis
	Workspace terse.WorkspaceID
}

// Campaign is a campaign to create.
type Campaign struct {
	Name        string
	Destination string // a template
	Tags        []string
	Links       int
}

// Plan is what is to be created before clicks are made: campaigns with their links, and links of their own.
func (o *Options) Plan() (campaigns []Campaign, own int) {
	names := []string{"Autumn sale", "Appointment reminders", "Black Friday", "Newsletter", "Partner programme", "Product launch"}
	r := rand.New(rand.NewPCG(o.Seed, 1))
	left := o.Links * 7 / 10
	for i, name := range names {
		n := left / 2
		if i == len(names)-1 {
			n = left
		}
		if n == 0 {
			continue
		}
		left -= n
		campaigns = append(campaigns, Campaign{
			Name: name, Links: n, Tags: tagSets[2+r.IntN(len(tagSets)-2)],
			Destination: fmt.Sprintf("https://shop.example/c/%d/{sku}?u={u}", i+1),
		})
	}
	for _, c := range campaigns {
		own += c.Links
	}
	return campaigns, o.Links - own
}

// AppendCampaignRow appends row i of a campaign as NDJSON.
func AppendCampaignRow(dst []byte, i int) []byte {
	return fmt.Appendf(dst, `{"sku":"A%d","u":"%x","external_id":"r-%d"}`+"\n", i%997, uint32(i)*2654435761, i)
}

// RowMaker makes rows of links of their own.
type RowMaker struct{ r *rand.Rand }

// Rows returns a maker; the same options make the same rows.
func (o *Options) Rows() *RowMaker { return &RowMaker{rand.New(rand.NewPCG(o.Seed, 2))} }

// AppendRow appends the row of link i as NDJSON.
func (m *RowMaker) AppendRow(dst []byte, i int) []byte {
	dst = fmt.Appendf(dst, `{"destination":"https://www.example.com/articles/%d/some-headline-of-it","external_id":"l-%d"`, m.r.IntN(1_000_000), i)
	if tags := tagSets[m.r.IntN(len(tagSets))]; tags != nil {
		dst = fmt.Appendf(dst, `,"tags":["%s"]`, strings.Join(tags, `","`))
	}
	if i < 200 {
		dst = fmt.Appendf(dst, `,"title":"Page %d of the site"`, i)
	}
	return append(dst, "}\n"...)
}

// Link is a link that clicks go to.
type Link struct {
	Number   terse.LinkNumber
	Campaign terse.CampaignID
	Code     string
}
