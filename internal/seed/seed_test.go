package seed

import (
	"slices"
	"testing"
	"time"

	"github.com/terselink/terse"
	"github.com/terselink/terse/internal/clicks"
)

func options(n int) Options {
	return Options{Seed: 9, Links: 1000, Clicks: n, Days: 14, To: terse.MillisOf(time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)), Workspace: 1}
}

func someLinks() (list []Link) {
	for i := range 1000 {
		list = append(list, Link{Number: terse.LinkNumber(i + 1), Code: "abcdefg", Campaign: terse.CampaignID(i % 3)})
	}
	return list
}

// TestClicks: exactly as many as asked for, in order of seconds, with days, bots and a few links on top.
func TestClicks(t *testing.T) {
	o := options(100_000)
	c := o.MakeClicks("go.example.com", someLinks())
	n, bots, second := 0, 0, terse.Millis(0)
	byHour, byLink, outcomes := map[int]int{}, map[terse.LinkNumber]int{}, map[clicks.Outcome]int{}
	for {
		im := c.Next()
		if im == nil {
			break
		}
		n++
		if im.At/1000 < second || im.At >= o.To || im.At < o.To-14*86_400_000 {
			t.Fatalf("click %d at %s", n, im.At.Time())
		}
		second = im.At / 1000
		byHour[im.At.Time().Hour()]++
		byLink[im.Link]++
		outcomes[im.Outcome]++
		if im.Visitor == 0 {
			bots++
		}
	}
	if n != o.Clicks {
		t.Errorf("%d clicks", n)
	}
	if bots < n/12 || bots > n/8 {
		t.Errorf("%d of bots", bots)
	}
	if byHour[17] < 2*byHour[4] {
		t.Errorf("hours %v: no day and night", byHour)
	}
	if byLink[1] < 20*byLink[900] || byLink[0] == 0 || outcomes[clicks.OutcomeExpired] == 0 {
		t.Errorf("first link %d, a late one %d, none %d, outcomes %v", byLink[1], byLink[900], byLink[0], outcomes)
	}
}

// TestSame: the same options make the same data, another seed makes others.
func TestSame(t *testing.T) {
	texts := func(seed uint64) (list []string) {
		o := options(2000)
		o.Seed = seed
		c := o.MakeClicks("d", someLinks())
		rows := o.Rows()
		for i := 0; ; i++ {
			im := c.Next()
			if im == nil {
				return list
			}
			_, converts := c.Converts(i, 10)
			list = append(list, im.At.Time().String()+string(im.Client)+string(im.Code)+im.Country+string(rows.AppendRow(nil, i)))
			if converts {
				list = append(list, "converts")
			}
		}
	}
	a := texts(1)
	if !slices.Equal(a, texts(1)) {
		t.Error("not the same")
	}
	if slices.Equal(a, texts(2)) {
		t.Error("the same with another seed")
	}
	campaigns, own := (&Options{Seed: 1, Links: 1000}).Plan()
	for _, g := range campaigns {
		own += g.Links
	}
	if own != 1000 || len(campaigns) != 6 {
		t.Errorf("%d links in %v", own, campaigns)
	}
	if campaigns, own := (&Options{Links: 1}).Plan(); own != 1 || len(campaigns) != 0 {
		t.Errorf("one link: %d and %v", own, campaigns)
	}
}

func TestClicksAllocs(t *testing.T) {
	o := options(10_000_000)
	c := o.MakeClicks("d", someLinks())
	for range 1000 {
		c.Next()
	}
	if n := testing.AllocsPerRun(1000, func() { c.Next() }); n != 0 {
		t.Errorf("%v allocations a click", n)
	}
}

func BenchmarkClicks(b *testing.B) {
	o := options(1 << 30)
	c := o.MakeClicks("d", someLinks())
	for b.Loop() {
		if c.Next() == nil {
			b.Fatal("too few")
		}
	}
}
