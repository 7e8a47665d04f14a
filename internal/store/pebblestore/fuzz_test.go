package pebblestore

import (
	"bytes"
	"encoding/hex"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/terselink/terse"
)

// richLink uses every field that a row or a block can hold.
func richLink(r *rand.Rand, n terse.LinkNumber) terse.Link {
	l := terse.Link{Number: n, Workspace: 7, Version: 1 + r.Uint64N(3), CreatedAt: testNow + terse.Millis(r.IntN(5)), Code: "abc"}
	l.UpdatedAt = l.CreatedAt
	maybe := func(f func()) {
		if r.IntN(3) == 0 {
			f()
		}
	}
	maybe(func() { l.UpdatedAt += terse.Millis(r.IntN(1000)) - 500 })
	maybe(func() { l.ExpiresAt = testNow + terse.Millis(r.IntN(1_000_000)) })
	maybe(func() { l.Campaign = terse.CampaignID(r.Uint64N(1 << 63)) })
	maybe(func() { l.Destination = randomText(r, r.IntN(200), 62) })
	maybe(func() { l.Values = `{"a":"` + randomText(r, r.IntN(20), 62) + `"}` })
	maybe(func() { l.ExternalID = randomText(r, r.IntN(20), 16) })
	maybe(func() { l.Status = terse.StatusDisabled })
	maybe(func() { l.DefaultExpiry = true })
	maybe(func() { l.RedirectStatus = uint16(r.IntN(1 << 16)) })
	maybe(func() {
		no := false
		l.Settings = &terse.LinkSettings{
			Title: "<é & \u2028>", Tags: []string{"a", "b"}, Metadata: map[string]string{"z": "1", "a": ""}, ForwardQuery: &no, MaxClicks: 1,
			Rules: []terse.Rule{{Conditions: []terse.Condition{{Type: "country", Values: nil}}, Variants: []terse.Variant{{Destination: "x", Weight: 0}}}},
		}
	})
	return l
}

func rowOf(tb testing.TB, l *terse.Link) []byte {
	tb.Helper()
	var c settingsCache
	settings, err := c.encode(l.Settings)
	if err != nil {
		tb.Fatal(err)
	}
	return appendRow(nil, l, rowExtra{settings: settings, hasTag: l.Code != "", tag: codeTag(l.Code), moved: l.Version - 1})
}

func FuzzRow(f *testing.F) {
	r := rand.New(rand.NewPCG(1, 2))
	number := terse.NewLinkNumber(3, 7, 99)
	for seed := range uint64(20) {
		l := richLink(r, number)
		f.Add(seed, rowOf(f, &l))
	}
	f.Add(uint64(0), appendTombstone(nil, number))
	f.Fuzz(func(t *testing.T, seed uint64, value []byte) {
		// What is written is read back.
		l := richLink(rand.New(rand.NewPCG(seed, 1)), number)
		var w row
		if live, err := w.decode(number, rowOf(t, &l)); err != nil || !live {
			t.Fatalf("live %v, error %v", live, err)
		}
		got, err := w.link("abc")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(l, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		if w.moved != l.Version-1 {
			t.Fatalf("moved is %d, want %d", w.moved, l.Version-1)
		}
		// Whatever else is read is an error, or something that is written the same again.
		live, err := w.decode(number, value)
		if err != nil || !live {
			return
		}
		if l, err = w.link(""); err != nil {
			return // settings that are no JSON
		}
		if len(w.code) > 0 {
			return // an alias in a generated number: nothing writes that
		}
		again := appendRow(nil, &l, rowExtra{settings: w.settings, hasTag: w.hasTag, tag: w.tag, moved: w.moved})
		var back row
		if _, err := back.decode(number, again); err != nil {
			t.Fatalf("%s was read and written as %s: %v", hex.EncodeToString(value), hex.EncodeToString(again), err)
		}
	})
}

// blockRows makes rows of a block, with holes.
func blockRows(tb testing.TB, r *rand.Rand, first terse.LinkNumber) []blockRow {
	tb.Helper()
	var rows []blockRow
	var c settingsCache
	alike := r.IntN(2) == 0
	model := richLink(r, first)
	for i := range terse.LinkNumber(blockSize) {
		if r.IntN(4) == 0 && i != 5 {
			continue
		}
		l := model
		if !alike {
			l = richLink(r, first)
		}
		l.Number = first + i
		settings, err := c.encode(l.Settings)
		if err != nil {
			tb.Fatal(err)
		}
		rows = append(rows, blockRow{&l, settings})
	}
	return rows
}

func FuzzBlock(f *testing.F) {
	first := terse.NewLinkNumber(3, 7, 640)
	for seed := range uint64(20) {
		var e blockEncoder
		value, _, _ := e.append(nil, blockRows(f, rand.New(rand.NewPCG(seed, 2)), first), seed%2 == 0)
		f.Add(seed, value)
	}
	f.Fuzz(func(t *testing.T, seed uint64, value []byte) {
		var e blockEncoder
		var b block
		rows := blockRows(t, rand.New(rand.NewPCG(seed, 1)), first)
		for _, tags := range []bool{true, false} {
			encoded, bitmap, ok := e.append(nil, rows, tags)
			if !ok {
				t.Fatal("not a block")
			}
			if err := b.load(first, encoded); err != nil || b.bitmap != bitmap {
				t.Fatalf("bitmap %x, error %v, want %x", b.bitmap, err, bitmap)
			}
			for _, w := range rows {
				var r row
				b.row(w.link.Number, &r)
				got, err := r.link("abc")
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(*w.link, got); diff != "" {
					t.Fatalf("(-want +got):\n%s", diff)
				}
				if r.hasTag != tags || tags && r.tag != codeTag("abc") {
					t.Fatalf("tag %v %x", r.hasTag, r.tag)
				}
			}
		}
		// Whatever loads can be read, row by row. The checksum is made to fit, or nothing else would be tried.
		if len(value) < 4 {
			return
		}
		value = appendChecksum(value[:len(value)-4], first)
		if b.load(first, value) != nil {
			return
		}
		for i := range terse.LinkNumber(blockSize) {
			if b.has(first + i) {
				var r row
				b.row(first+i, &r)
			}
		}
	})
}

func appendChecksum(body []byte, n terse.LinkNumber) []byte {
	sum := checksum(n, body)
	return append(bytes.Clone(body), byte(sum>>24), byte(sum>>16), byte(sum>>8), byte(sum))
}

func FuzzChange(f *testing.F) {
	for _, c := range goldenChanges() {
		f.Add(appendChange(nil, &c))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		c, err := decodeChange(9, value)
		if err != nil {
			return
		}
		again, err := decodeChange(9, appendChange(nil, &c))
		if diff := cmp.Diff(c, again); err != nil || diff != "" {
			t.Fatalf("error %v (-first +second):\n%s", err, diff)
		}
	})
}

func FuzzEntry(f *testing.F) {
	runs := []terse.Run{{First: 5, Count: 3}, {First: 9, Count: 1}}
	f.Add(appendEntry(nil, entry{moved: 4, from: -1, last: 2, runs: runs}))
	f.Add(appendEntry(nil, entry{}))
	f.Fuzz(func(t *testing.T, value []byte) {
		e, err := decodeEntry(1, value, nil)
		if err != nil {
			return
		}
		for i, r := range e.runs {
			if r.Count == 0 || uint64(r.First)+r.Count > 1<<63 || i > 0 && e.runs[i-1].First+terse.LinkNumber(e.runs[i-1].Count) > r.First {
				t.Fatalf("run %d of %v", i, e.runs)
			}
		}
		if again, err := decodeEntry(1, appendEntry(nil, e), nil); err != nil || !cmp.Equal(e, again, cmp.AllowUnexported(entry{})) {
			t.Fatalf("%v became %v, error %v", e, again, err)
		}
	})
}

func FuzzCursor(f *testing.F) {
	q := terse.ListQuery{Domain: 1, Tag: "x"}
	print := queryPrint(1, &q)
	good := (&position{3, 4}).text(print)
	for _, s := range []string{"", good, good[:len(good)-1], good + "A", "%%%", "AQ"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parseCursor(s, print)
		if err != nil {
			if terse.ErrorCode(err) != terse.CodeInvalid {
				t.Fatalf("got error %v, want one of code invalid", err)
			}
			return
		}
		if p != nil && p.text(print) != s {
			t.Fatalf("%q is another text of %q", s, p.text(print))
		}
	})
}
